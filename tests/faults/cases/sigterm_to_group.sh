# SIGTERM to the whole process group (a terminal's, SLURM's scancel, a container's stop, `timeout`) kills the loader's workers: the orderly stop becomes a RuntimeError and nothing is saved
. "$(dirname "$0")/../lib.sh"
export OMP_NUM_THREADS=1 XDG_CACHE_HOME="$W/cache"
"$PY" - "$W/d" <<'X' || exit 3
import os, sys, numpy as np
from PIL import Image
for s, n in (("train", 200), ("val", 4)):
    for k, c in enumerate("ab"):
        os.makedirs(f"{sys.argv[1]}/{s}/{c}")
        for i in range(n):
            Image.fromarray(np.random.default_rng(9 * i + k).integers(0, 255, (40, 40, 3)).astype("uint8")).save(f"{sys.argv[1]}/{s}/{c}/{i}.jpg")
X
setsid "$PY" train.py data=imagefolder data.root="$W/d" data.preprocessing.size=32 data.preprocessing.resize=36 data.in_memory=false data.workers=2 data.batch_size=4 trainer.max_epochs=50 trainer.log_every_n_steps=1 runs_dir="$W/r" > "$W/log" 2>&1 &
P=$!
for _ in $(seq 600); do sleep 0.5; [ "$(cat "$W"/r/2*/steps.csv 2>/dev/null | wc -l)" -gt 5 ] && break; kill -0 $P 2>/dev/null || { cat "$W/log"; exit 3; }; done
kill -TERM -- -$P
wait $P; rc=$?
tail -3 "$W/log"; ls "$W"/r/2*/checkpoints
echo "exit $rc"
if [ $rc != 143 ] || ! [ -f "$(ls -d "$W"/r/2*)/checkpoints/last.ckpt" ] || grep -q "RuntimeError" "$W/log"; then echo "FAULT: no orderly stop"; exit 1; fi
exit 0
