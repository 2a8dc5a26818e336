# One truncated JPEG, two ranks: the line shown is the other rank's gloo error; where the exit status is 2 the run directory with the reason is deleted too.
. "$(dirname "$0")/../lib.sh"
$PY - $W/d <<'P'
import sys; from pathlib import Path; from PIL import Image; r=Path(sys.argv[1])
for s in ("train","val"):
    for c in "ab":
        (r/s/c).mkdir(parents=True)
        for k in range(24): Image.new("RGB",(16,16),(k*4,9,200)).save(r/s/c/f"{k}.jpg")
(r/"train/b/5.jpg").write_bytes((r/"train/b/4.jpg").read_bytes()[:200])
P
F=0
for seed in 1 2 3; do timeout 900 $PY train.py data=imagefolder data.root=$W/d data.preprocessing.size=8 data.preprocessing.resize=8 data.in_memory=false augment.crop=random_resized trainer.max_epochs=1 data.batch_size=4 trainer.devices=2 data.workers=0 seed=$seed runs_dir=$W/r >$W/o 2>&1; echo "seed $seed: exit $?; $(tail -1 $W/o | cut -c1-160); run directories left: $(ls -d $W/r/*_*_* 2>/dev/null | wc -l)"; grep -q "b/5.jpg" $W/o || F=1; done; exit $F
