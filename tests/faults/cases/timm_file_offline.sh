# Offline: the error of timm:NAME says to fetch the weights and give the FILE; the very file of timm is then refused
. "$(dirname "$0")/../lib.sh"
timeout 500 "$PY" - <<'X'
import os, sys, timm, torch
from senet import create_model
from senet.errors import UserError
from senet.weights import load_weights
file = os.path.join(os.environ["W"], "legacy_seresnet18.pth")
torch.save(timm.create_model("legacy_seresnet18", num_classes=10).state_dict(), file)    # what a download of timm's holds
try: load_weights(file, create_model("se_resnet18", num_classes=10)); print("loaded")
except UserError as error:
    print("refused:", error); sys.exit(0 if "timm" in str(error).replace(file, "") else 1)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
