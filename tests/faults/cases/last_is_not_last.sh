# trainer.check_val_every_n_epoch=2 with 3 epochs: epoch 3 is trained and thrown away, last.ckpt and the figure "last" are of epoch 2
. "$(dirname "$0")/../lib.sh"
mk "$W/d" ant,bee,cat 8 3 || exit 3
train $SMALL data.root="$W/d" trainer.max_epochs=3 trainer.check_val_every_n_epoch=2; rc=$?
[ $rc = 2 ] && exit 0
timeout 240 "$PY" - "$W"/runs/2* <<'X'
import json, sys, torch
run = sys.argv[1]
step = torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["global_step"]
summary = json.load(open(f"{run}/summary.json"))
print(f"summary: {summary['epochs']} epochs, {summary['steps']} steps; last.ckpt: step {step}")
sys.exit(0 if step == summary["steps"] else 1)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
