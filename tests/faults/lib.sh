# What the cases share: a working folder $W that goes with the case, made-up photographs, a short training run.
set -u
: "${PY:=python}" "${REPO:?set REPO to the checkout}"
W=$(mktemp -d)
trap 'rm -rf "$W"' EXIT
export W OMP_NUM_THREADS=1 XDG_CACHE_HOME="$W/cache" PYTHONPATH="$REPO"
cd "$REPO" || exit 3
F=0 # what a case may count its faults in

mk() { # ROOT CLASSES TRAIN VAL: noisy JPEG images of 40 px, one colour a class, TRAIN and VAL of each
    timeout 240 "$PY" - "$@" <<'X'
import os, sys, numpy as np
from PIL import Image
root, classes, train, val = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3]), int(sys.argv[4])
for split, n in (("train", train), ("val", val)):
    for k, c in enumerate(classes):
        os.makedirs(f"{root}/{split}/{c}", exist_ok=True)
        for i in range(n):
            r = np.random.default_rng(1000 * (split == "val") + 100 * k + i)
            a = r.integers(0, 60, (40, 40, 3)) + np.array([(k * 83) % 200, (k * 37) % 200, (k * 151) % 200])
            Image.fromarray(a.clip(0, 255).astype("uint8")).save(f"{root}/{split}/{c}/{i:03d}.jpg")
X
}

SMALL="data=imagefolder data.preprocessing.size=32 data.preprocessing.resize=36 data.workers=0 data.batch_size=8 trainer.max_epochs=1 runs_dir=$W/runs"
train() { # OVERRIDE...: the run's last lines; all of it is in $W/log
    timeout 400 "$PY" train.py "$@" >"$W/log" 2>&1
    rc=$?
    tail -4 "$W/log"
    return $rc
}
