# kill -9 of one of two ranks: run.json and the line shown blame gloo ("Connection closed by peer ... GLHF"), not the killed rank.
. "$(dirname "$0")/../lib.sh"
timeout 900 $PY train.py trainer.devices=2 trainer.max_epochs=3 data.sampling.fraction=0.2 data.batch_size=16 trainer.log_every_n_steps=1 runs_dir=$W >$W/o 2>&1 & T=$!
for i in $(seq 1 6000); do R=$(ls -d $W/*_*_* 2>/dev/null | head -1); [ -n "$R" ] && [ "$(wc -l < $R/steps.csv 2>/dev/null || echo 0)" -ge 3 ] && break; sleep 0.1; done
P=$(pgrep -P $T); K=$(pgrep -P $P | tail -1); kill -9 $K; wait $T; echo "exit $?"; tail -1 $W/o; grep '"error"' $R/run.json; grep -qi "SIGKILL\|kill -9" $W/o; rc=$?; exit $rc
