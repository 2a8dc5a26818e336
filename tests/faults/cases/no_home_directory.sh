# A uid without an entry and no HOME (containers, cron): the optional cache of the listing ends the run
. "$(dirname "$0")/../lib.sh"
[ "$(id -u)" = 0 ] && command -v setpriv > /dev/null || { echo "needs root and setpriv"; exit 3; }
mk "$W/d" ant,bee 4 2 || exit 3
chmod -R a+rwX "$W"; unset XDG_CACHE_HOME
timeout 400 env -u HOME -u USER -u LOGNAME setpriv --reuid=54321 --regid=54321 --clear-groups "$PY" - > "$W/log" 2>&1 <<'X'
import os
from pathlib import Path
from senet.data.files.folder import scan
print(len(scan(Path(os.environ["W"]) / "d/train")), "images")
X
rc=$?; tail -1 "$W/log"; grep -q "8 images" "$W/log" && exit 0
grep -q "home directory" "$W/log" && exit 1
exit 3
