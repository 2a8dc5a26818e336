# runs_dir a file, in /proc, or read-only; name=a/b: a traceback each instead of one line.
. "$(dirname "$0")/../lib.sh"
F=0
for o in runs_dir=/dev/null runs_dir=/proc/x "runs_dir=$W name=a/b"; do timeout 600 $PY train.py trainer.max_epochs=1 $o >$W/o 2>&1; echo "$o: exit $?; $(tail -1 $W/o)"; grep -q Traceback $W/o && F=1; done; exit $F
