# Two ranks, stopped in order (or killed) in mid-epoch, resumed: train/loss of that epoch in metrics.csv is not that of the undisturbed run.
. "$(dirname "$0")/../lib.sh"
A="trainer.devices=2 trainer.max_epochs=1 data.sampling.fraction=0.2 data.batch_size=16 checkpoint.every_n_steps=2 trainer.log_every_n_steps=1"
timeout 900 $PY train.py $A runs_dir=$W/a >$W/o1 2>&1 || { cat $W/o1; exit 3; }
timeout 900 $PY train.py $A runs_dir=$W/b >$W/o2 2>&1 & P=$!
for i in $(seq 1 3000); do R=$(ls -d $W/b/*_*_* 2>/dev/null | head -1); [ -n "$R" ] && [ "$(wc -l < $R/steps.csv 2>/dev/null || echo 0)" -ge 5 ] && break; sleep 0.1; done
C=$(pgrep -P $P); kill -9 $C 2>/dev/null; for c in $C; do kill -9 $(pgrep -P $c) 2>/dev/null; done; wait $P 2>/dev/null; sleep 3
[ -f $R/checkpoints/last.ckpt ] || { echo "no checkpoint yet"; exit 0; }
timeout 900 $PY train.py resume=$R >$W/o3 2>&1 || { cat $W/o3; exit 3; }
diff $W/a/*_*_*/metrics.csv $R/metrics.csv; rc=$?; exit $rc
