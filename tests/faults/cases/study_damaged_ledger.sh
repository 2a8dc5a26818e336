# A damaged study.json, or a garbage summary.json of a job: `senet study status` ends with a traceback (senet report says it in one line).
. "$(dirname "$0")/../lib.sh"
mkdir $W/s; echo '{"name": "x", "poi' > $W/s/study.json
timeout 600 $PY -m senet study status $W/s >$W/o 2>&1; echo "exit $?; $(tail -1 $W/o)"; grep -q Traceback $W/o; rc=$?; [ $rc -ne 0 ]
