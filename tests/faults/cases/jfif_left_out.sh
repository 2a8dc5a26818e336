# .jfif and .avif, which Pillow reads, are left out, and the run does not say that there are such files
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
for i in 2 3 4 5 6 7; do mv "$W/d/train/ant/00$i.jpg" "$W/d/train/ant/00$i.jfif"; done
train $SMALL data.root="$W/d"; rc=$?
grep '^data' "$W/log"
grep -q "24 training" "$W/log" && exit 0
grep -qi "jfif" "$W/log" && exit 0
echo "FAULT: 6 of 24 training images silently left out"; exit 1
