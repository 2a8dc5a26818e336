# A class folder is renamed between two parts of a run: resume trains on with shifted labels and writes the new names over the old weights
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
train $SMALL data.root="$W/d" || exit 3
R=$(ls -d "$W"/runs/2*)
for s in train val; do mv "$W/d/$s/bee" "$W/d/$s/zebra"; done       # ant=0 bee=1 cat=2 -> ant=0 cat=1 zebra=2
train resume="$R" trainer.max_epochs=2; rc=$?
timeout 240 "$PY" -c "import torch,sys; print('classes in last.ckpt:', torch.load(sys.argv[1], weights_only=True)['senet']['classes'])" "$R/checkpoints/last.ckpt"
if [ $rc = 0 ] && ! grep -qiE "zebra|class(es)? .*(differ|changed|other|not)" "$W/log"; then echo "FAULT: resumed silently with other labels"; exit 1; fi
exit 0
