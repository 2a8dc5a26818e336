# A too short tuple makes the function that writes the error message raise IndexError: a traceback instead of one line.
. "$(dirname "$0")/../lib.sh"
F=0
for o in "optimizer=adamw optimizer.betas=[0.9]" "data.sampling.sizes=[[1]]"; do
  timeout 600 $PY train.py $o trainer.max_epochs=1 runs_dir=$W >$W/o 2>&1; rc=$?
  grep -q Traceback $W/o && { echo "$o: traceback, exit $rc"; tail -1 $W/o; F=1; }
done; exit $F
