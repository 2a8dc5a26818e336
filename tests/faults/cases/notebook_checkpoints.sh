# class/.ipynb_checkpoints/x-checkpoint.jpg: copies that Jupyter leaves are trained on and counted in validation
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee 4 2 || exit 3
for s in train val; do mkdir "$W/d/$s/ant/.ipynb_checkpoints"; cp "$W/d/$s/ant/000.jpg" "$W/d/$s/ant/.ipynb_checkpoints/000-checkpoint.jpg"; done
timeout 400 "$PY" - <<'X'
import os, sys
from pathlib import Path
from senet.data.files.folder import scan
root = Path(os.environ["W"]) / "d"
n = {s: len(scan(root / s)) for s in ("train", "val")}
print(n, "instead of 8 and 4")
sys.exit(0 if n == {"train": 8, "val": 4} else 1)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
