# name=exp/a (names with a slash are usual in wandb): traceback of mkdir
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
train $SMALL data.root="$W/d" name=exp/a; rc=$?
grep -q Traceback "$W/log" && { echo "FAULT: traceback"; exit 1; }
[ $rc = 0 ] || [ $rc = 2 ] && exit 0
exit 1
