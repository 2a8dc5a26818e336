# Folders with fixed time stamps (reproducible archives, images of containers): new images are not seen, the cached index is taken
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee 4 2 || exit 3
timeout 400 "$PY" - <<'X'
import os, shutil, sys
from pathlib import Path
from senet.data.files.folder import scan
root = Path(os.environ["W"]) / "d"
def pin():
    for folder, _, files in os.walk(root):
        os.utime(folder, (1_000_000_000, 1_000_000_000))
pin(); before = len(scan(root / "train"))
for i in range(4):
    shutil.copy(root / f"train/ant/00{i}.jpg", root / f"train/ant/1{i:02d}.jpg")
pin(); after = len(scan(root / "train"))
there = len(list((root / "train").rglob("*.jpg")))
print(f"listed {before}, then {there} files are there and {after} are listed")
sys.exit(0 if after == there else 1)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
