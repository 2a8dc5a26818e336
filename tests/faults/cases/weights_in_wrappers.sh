# State dicts as others save them (module. prefix, _orig_mod. prefix, {"state_dict": ...}, {"model": ...}): refused, and the message does not say what to do
. "$(dirname "$0")/../lib.sh"
timeout 400 "$PY" - <<'X'
import os, sys, torch
from senet import create_model
from senet.errors import UserError
from senet.weights import load_weights
net = create_model("se_resnet20", num_classes=3); state = net.state_dict(); bad = 0
forms = {"module.": {f"module.{k}": v for k, v in state.items()}, "_orig_mod.": {f"_orig_mod.{k}": v for k, v in state.items()},
         "state_dict": {"state_dict": state, "epoch": 3}, "model": {"model": state}}
for name, content in forms.items():
    file = os.path.join(os.environ["W"], "w.pth"); torch.save(content, file)
    try: load_weights(file, create_model("se_resnet20", num_classes=3)); print(name, "loaded")
    except UserError as error:
        helps = name.strip("._") in str(error).replace(file, "") and ("prefix" in str(error) or "begin" in str(error) or "under" in str(error) or "inside" in str(error))
        print(name, "refused:", error); bad += not helps
sys.exit(1 if bad else 0)
X
rc=$?; [ $rc -le 1 ] && exit $rc; exit 3
