# A validation image whose name is not UTF-8 (old Windows archives): UnicodeEncodeError after the first epoch, nothing saved
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
timeout 240 "$PY" -c "import os,sys; v=os.fsencode(sys.argv[1]); os.rename(v+b'/000.jpg', v+b'/caf\xe9.jpg')" "$W/d/val/ant" || exit 3
train $SMALL data.root="$W/d"; rc=$?
ls "$W"/runs/2*/checkpoints 2>/dev/null
[ $rc = 0 ] && [ -f "$(echo "$W"/runs/2*/checkpoints/last.ckpt)" ] && exit 0
[ $rc = 2 ] && ! grep -q UnicodeEncodeError "$W/log" && exit 0
echo "FAULT: one epoch was trained and nothing is left of it"; exit 1
