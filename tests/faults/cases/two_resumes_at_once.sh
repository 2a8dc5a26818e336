# Two `train.py resume=RUN` started together both train in one directory (the check of run.json comes seconds before "running" is written).
. "$(dirname "$0")/../lib.sh"
timeout 900 $PY train.py trainer.max_epochs=1 data.sampling.fraction=0.1 runs_dir=$W >$W/o 2>&1 || { cat $W/o; exit 3; }
R=$(ls -d $W/*_*_*)
timeout 900 $PY train.py resume=$R trainer.max_epochs=3 >$W/a 2>&1 & A=$!
timeout 900 $PY train.py resume=$R trainer.max_epochs=3 >$W/b 2>&1 & B=$!
wait $A; a=$?; wait $B; b=$?; echo "exit statuses $a $b (one should be refused with 2)"; tail -2 $W/a $W/b; cat $R/metrics.csv
[ $a -eq 2 ] || [ $b -eq 2 ]
