# kill -9 in the first epoch, before any checkpoint, then resume: steps.csv keeps the rows of the killed attempt (exit 1 while so).
. "$(dirname "$0")/../lib.sh"
timeout 900 $PY train.py trainer.max_epochs=1 data.sampling.fraction=0.3 trainer.log_every_n_steps=1 runs_dir=$W >$W/o 2>&1 & P=$!
for i in $(seq 1 1500); do R=$(ls -d $W/*_*_* 2>/dev/null | head -1); [ -n "$R" ] && [ "$(wc -l < $R/steps.csv 2>/dev/null || echo 0)" -ge 4 ] && break; sleep 0.1; done
kill -9 $(pgrep -P $P) $P 2>/dev/null; wait $P 2>/dev/null
ls $R/checkpoints | grep -q last.ckpt && { echo "a checkpoint was there already: try again"; exit 0; }
timeout 900 $PY train.py resume=$R >>$W/o 2>&1 || { cat $W/o; exit 3; }
D=$(tail -n +2 $R/steps.csv | cut -d, -f1 | sort | uniq -d | wc -l); echo "duplicated steps in steps.csv: $D"; [ "$D" -eq 0 ]
