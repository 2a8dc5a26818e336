# trainer.max_epochs=0 is accepted and ends with "KeyError: 'val/count'" after start-up; -1 with "min() arg is an empty sequence".
. "$(dirname "$0")/../lib.sh"
F=0
for o in trainer.max_epochs=0 trainer.max_epochs=-1 trainer.accumulate_grad_batches=0 trainer.limit_val_batches=0; do timeout 900 $PY train.py data.sampling.fraction=0.1 $o runs_dir=$W >$W/o 2>&1; echo "$o: exit $?; $(tail -1 $W/o)"; grep -q "traceback in" $W/o && F=1; done; exit $F
