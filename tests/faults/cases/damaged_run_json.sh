# A half-written run.json or config.yaml: `resume=` ends with a traceback; one line that names the file is promised.
. "$(dirname "$0")/../lib.sh"
F=0
for f in run.json config.yaml; do
  mkdir -p $W/r/checkpoints; echo '{}' > $W/r/run.json; echo 'seed: 0' > $W/r/config.yaml
  [ $f = run.json ] && echo '{"id": "a' > $W/r/run.json || printf 'seed: 0\ntrainer' > $W/r/config.yaml
  timeout 600 $PY train.py resume=$W/r >$W/o 2>&1; echo "$f: exit $?; $(tail -1 $W/o)"; grep -q Traceback $W/o && F=1
done; exit $F
