# runs_dir on a 3 MB tmpfs (needs root): a traceback instead of one line, and run.json stays "running".
. "$(dirname "$0")/../lib.sh"
mkdir $W/m; mount -t tmpfs -o size=3m tmpfs $W/m || { echo "cannot mount"; exit 0; }
timeout 900 $PY train.py trainer.max_epochs=1 data.sampling.fraction=0.1 ema.decay=0.9 runs_dir=$W/m >$W/o 2>&1; echo "exit $?, $(wc -l < $W/o) lines"; tail -1 $W/o
grep '"status"' $W/m/*_*_*/run.json; F=0; grep -q Traceback $W/o && F=1; grep -q '"running"' $W/m/*_*_*/run.json && F=1; umount $W/m; exit $F
