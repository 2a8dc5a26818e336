# A run killed with -9 whose process id now belongs to any other process (reboot, container): resume is refused, with no way out told.
. "$(dirname "$0")/../lib.sh"
mkdir -p $W/r/checkpoints
$PY - $W/r <<'P'
import json,os,sys; json.dump({"status":"running","pid":1,"host":os.uname().nodename},open(sys.argv[1]+"/run.json","w"))
P
echo 'seed: 0' > $W/r/config.yaml; timeout 600 $PY train.py resume=$W/r >$W/o 2>&1; tail -1 $W/o; grep -q "still running (process 1)" $W/o; rc=$?; [ $rc -ne 0 ]
