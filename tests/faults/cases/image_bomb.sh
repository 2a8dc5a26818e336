# A PNG of 21 KB and 13000 x 13000 pixels: `senet check` finds nothing but "grey"; each reader takes 0.5 to 2.3 GB for it.
. "$(dirname "$0")/../lib.sh"
$PY - $W/d <<'P'
import sys; from pathlib import Path; from PIL import Image; Image.MAX_IMAGE_PIXELS=None; r=Path(sys.argv[1])
for s in ("train","val"):
    for c in "ab": (r/s/c).mkdir(parents=True); Image.new("RGB",(8,8),(9,9,len(s)*9+ord(c))).save(r/s/c/"0.png")
Image.new("1",(13000,13000)).save(r/"train/a/wide.png"); print((r/"train/a/wide.png").stat().st_size,"bytes")
P
timeout 600 $PY -m senet check $W/d | tee $W/o; grep -qi "too large\|pixels\|limit" $W/o; rc=$?; exit $rc
