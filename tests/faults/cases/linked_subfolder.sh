# A linked folder inside a class is not walked: its images are left out without a word (linked class folders are)
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee 4 2 || exit 3
mkdir "$W/more"; for i in 0 1 2 3; do cp "$W/d/train/ant/00$i.jpg" "$W/more/n$i.jpg"; done; ln -s "$W/more" "$W/d/train/ant/batch2"
timeout 400 "$PY" - <<'X'
import os, sys
from pathlib import Path
from senet.data.files.folder import scan
from senet.errors import UserError
try: n = len(scan(Path(os.environ["W"]) / "d/train"))
except UserError as error: print("refused:", error); sys.exit(0)
print(n, "images instead of 12"); sys.exit(0 if n == 12 else 1)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
