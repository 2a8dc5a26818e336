# se=null, model.name=[1,2]: a traceback.
. "$(dirname "$0")/../lib.sh"
F=0
for o in se=null "model.name=[1,2]"; do timeout 600 $PY train.py $o trainer.max_epochs=1 runs_dir=$W >$W/o 2>&1; echo "$o: exit $?; $(tail -1 $W/o)"; grep -q Traceback $W/o && F=1; done; exit $F
