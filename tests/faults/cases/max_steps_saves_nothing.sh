# trainer.max_steps ends in mid-epoch: no checkpoint, KeyError after training
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
train $SMALL data.root="$W/d" trainer.max_epochs=5 trainer.max_steps=2; rc=$?
ls "$W"/runs/2*/checkpoints
[ $rc = 0 ] && [ -f "$(echo "$W"/runs/2*/checkpoints/last.ckpt)" ] && exit 0
grep -q KeyError "$W/log" || [ $rc = 0 ] && { echo "FAULT: trained, and nothing is left of it"; exit 1; }
exit $([ $rc = 2 ] && echo 0 || echo 3)      # refused at the start with a line is right, too
