# Fine-tuning on as many other classes: the old classifier is kept for other classes, and nothing says so
. "$(dirname "$0")/../lib.sh"
mk "$W/a" ant,bee,cat 8 3 && mk "$W/b" rose,tulip,weed 8 3 || exit 3
train $SMALL data.root="$W/a" || exit 3
K=$(ls -d "$W"/runs/2*)/checkpoints/last.ckpt
train $SMALL data.root="$W/b" model.weights="$K" || exit 3
grep -iE "weights|class" "$W/log"
grep -qiE "classifier|other classes|class names" "$W/log" && exit 0
echo "FAULT: the rows of ant, bee, cat serve rose, tulip, weed without a word"; exit 1
