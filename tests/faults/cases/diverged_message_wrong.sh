# Divergence in the last step of an epoch: the next epoch's error says "checkpoints/last.ckpt is from before it", but last.ckpt was written after: resume fails for ever.
. "$(dirname "$0")/../lib.sh"
timeout 900 $PY train.py trainer.max_epochs=3 trainer.limit_train_batches=1 data.sampling.fraction=0.1 schedule.warmup_epochs=0 optimizer.lr_batch=null optimizer.lr=1e30 runs_dir=$W >$W/o 2>&1; tail -3 $W/o
R=$(ls -d $W/*_*_*); cat $R/metrics.csv; timeout 900 $PY train.py resume=$R >$W/o 2>&1; rc=$?; tail -1 $W/o; F=0; grep -q "last.ckpt is from before it" $W/o && F=1; exit $F
