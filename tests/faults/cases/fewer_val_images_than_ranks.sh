# Three ranks, two validation images: the rank without one raises before training, and what is shown is the lost connection of another rank
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee 12 1 || exit 3
# "torchrun train.py is fine": three ranks, started by hand; REAL ranks: train.py ... trainer.devices=3 does the same
port=$((20000 + RANDOM % 20000)); pids=""
for r in 0 1 2; do
  RANK=$r LOCAL_RANK=$r WORLD_SIZE=3 LOCAL_WORLD_SIZE=3 GROUP_RANK=0 MASTER_ADDR=127.0.0.1 MASTER_PORT=$port TORCHELASTIC_RUN_ID=case \
    timeout 400 "$PY" train.py $SMALL data.root="$W/d" data.batch_size=4 trainer.devices=3 > "$W/log$r" 2>&1 & pids="$pids $!"
done
bad=0; for p in $pids; do wait "$p"; rc=$?; [ $rc = 0 ] || [ $rc = 2 ] || bad=1; done
tail -2 "$W/log0" | cut -c1-300
[ $bad = 0 ] && exit 0
echo "FAULT: no line that says what is wrong, nothing saved"; exit 1
