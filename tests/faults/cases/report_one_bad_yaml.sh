# One run directory with a damaged config.yaml ends `senet report` for all runs with a traceback.
. "$(dirname "$0")/../lib.sh"
mkdir -p $W/20260101-000000_x_aaaaaa; echo '{"status":"finished"}' > $W/20260101-000000_x_aaaaaa/run.json; printf 'a: b: c\n' > $W/20260101-000000_x_aaaaaa/config.yaml
(cd $W && PYTHONPATH=$REPO timeout 600 $PY -m senet report $W >o 2>&1); tail -1 $W/o; grep -q Traceback $W/o; rc=$?; [ $rc -ne 0 ]
