"""A folder that ``timm.create_model("local-dir:DIR", pretrained=True)`` reads: safetensors and ``config.json``."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from senet.errors import UserError
from senet.files import atomically, write_json
from senet.integrations import timm as registry
from senet.integrations.peers import PEERS, to_timm
from senet.integrations.recognise import OWN
from senet.models.families import model_options
from senet.weights.record import WeightRecord
from senet.weights.trained import Trained

assert registry  # our networks are in timm's registry


class TimmExport:
    """The folder, read back by timm."""

    def __init__(self, file: Path, architecture: str) -> None:
        self.file, self.how = file, f"timm's {architecture}"
        self.network: Any = timm.create_model(f"local-dir:{file.parent}", pretrained=True).eval()

    def __call__(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def twin(record: Mapping[str, Any]) -> str | None:
    """Return the name of timm's own network that is the one of ``record``; None if there is none."""
    defaults = model_options(record["name"])
    fixed = {key: value for key, value in defaults.items() if key != "dropout"}
    options = {key: record["options"].get(key, value) for key, value in fixed.items()}
    for name, peer in PEERS["timm"].items():
        same = peer.model == record["name"] and {**fixed, **peer.options} == options
        if same and (peer.se.to_dict() if peer.se else None) == record["se"] and not peer.dropped:
            return name
    return None


def write(trained: Trained, network: nn.Module, folder: Path) -> TimmExport:
    """Write timm's own network where it has the same, else ours, ``senet_NAME``, by its registry.

    Raises:
        UserError: for a trunk of timm with SE attached, which neither knows.
    """
    record: dict[str, Any] = trained.network.record
    if record["name"] == "se_timm":
        raise UserError(
            "--to timm: timm knows no SE attached to its own networks: use --to onnx or --to torch"
        )
    pre, names = trained.preprocessing, trained.class_names()
    own_trunk = record["name"] == "timm"
    name = record["options"]["timm_name"].partition(".")[0] if own_trunk else twin(record)
    inside = network.get_submodule("trunk") if own_trunk else network
    state = {key: value.contiguous() for key, value in inside.state_dict().items()}
    config: dict[str, Any] = {
        "architecture": name or f"{OWN}{record['name']}",
        "num_classes": record["num_classes"],
    }
    if name is None:
        config["model_args"] = dict(record["options"]) | ({"se": record["se"]} if record["se"] else {})
    elif not own_trunk:
        state = to_timm(state, name)
    images = {
        "input_size": [pre.channels, pre.size, pre.size],
        "crop_pct": 1.0 if pre.resize is None else pre.size / pre.resize,
        "interpolation": pre.interpolation,
        "mean": list(pre.mean),
        "std": list(pre.std),
    }
    labels = {"label_names": names} if trained.classes else {}
    config["pretrained_cfg"] = {**images, "num_classes": record["num_classes"], **labels}
    config["senet_preprocessing"] = pre.to_dict()  # timm has no word for images that are not resized
    if pre.channels != 3:
        config.setdefault("model_args", {})["in_chans"] = pre.channels
    weights = WeightRecord(trained.source, record, pre, classes=trained.classes)
    with atomically(folder / "model.safetensors") as temporary:
        own = {"senet": json.dumps(weights.to_dict())} if name is None else {}
        safetensors.torch.save_file(state, temporary, {"format": "pt", **own})
    write_json(folder / "config.json", config)
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(None):
        return TimmExport(folder / "model.safetensors", config["architecture"])
