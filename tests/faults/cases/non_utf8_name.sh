# A class folder whose name is not UTF-8: training ends after its first epoch with UnicodeEncodeError (predictions), no checkpoint is kept.
. "$(dirname "$0")/../lib.sh"
$PY - $W/d <<'P'
import os,sys; from pathlib import Path; from PIL import Image; r=Path(sys.argv[1])
for s in ("train","val"):
    for c in ("a",os.fsdecode(b"caf\xe9")):
        (r/s/c).mkdir(parents=True)
        for k in range(8): Image.new("RGB",(8,8),(k*20,9,90)).save(r/s/c/f"{k}.png")
P
timeout 900 $PY train.py data=imagefolder data.root=$W/d data.preprocessing.size=8 data.preprocessing.resize=null augment.crop=pad trainer.max_epochs=1 data.batch_size=8 data.workers=0 runs_dir=$W/r >$W/o 2>&1; rc=$?; tail -1 $W/o | cut -c1-200; echo "exit $rc; checkpoints: $(ls $W/r/*/checkpoints 2>/dev/null)"; grep -q UnicodeEncodeError $W/o; x=$?; [ $x -ne 0 ]
