# A diverged run whose every validation loss is NaN (and whose last.ckpt holds non-finite BN statistics) ends with exit 0 and "finished".
. "$(dirname "$0")/../lib.sh"
timeout 900 $PY train.py trainer.max_epochs=2 trainer.limit_train_batches=1 data.sampling.fraction=0.1 schedule.warmup_epochs=0 optimizer.lr_batch=null optimizer.lr=1e5 runs_dir=$W >$W/o 2>&1; rc=$?
tail -7 $W/o; cat $W/*_*_*/metrics.csv; grep -o NaN $W/*_*_*/summary.json | head -1; echo "exit $rc (a NaN should be an error)"; [ $rc -ne 0 ]
