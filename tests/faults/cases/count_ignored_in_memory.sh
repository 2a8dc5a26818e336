# data.eval_on_bad_image=count is ignored where images are kept in memory (size <= 64, resize null)
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
echo garbage > "$W/d/val/ant/000.jpg"
train $SMALL data.root="$W/d" data.preprocessing.resize=null data.preprocessing.size=40 data.eval_on_bad_image=count; rc=$?
[ $rc = 0 ] && grep -q "count as wrong" "$W/log" && exit 0
grep -q "in_memory" "$W/log" && exit 0
echo "FAULT: asked to count it as wrong, it ends the run"; exit 1
