"""Where weights come from: timm, torchvision, Caffe files and files of our own names, each with its record."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from senet.errors import UserError, did_you_mean
from senet.weights.peers import PEERS, Peer, from_timm, from_torchvision, peer
from senet.weights.record import CLASS_ORDER, Preprocessing, WeightRecord, ilsvrc_class_order

Which = Literal["auto", "raw", "ema"]
KEY_PREFIX = {"raw": "model.", "ema": "ema.module."}
"""How a checkpoint's keys begin: those of the trained network, and those of its average."""

FORMS = "timm:NAME.TAG, torchvision:ENUM.NAME, caffe:FILE.caffemodel, or a FILE (safetensors, state dict, checkpoint)"


class Weights(NamedTuple):
    """A state dict under our names, and its record."""

    state: dict[str, Tensor]
    record: WeightRecord


def read_weights(spec: str, model: Mapping[str, Any], which: Which = "auto") -> Weights:
    """Read the weights ``spec`` for a network with record ``model``; see ``load_weights``."""
    scheme, _, name = spec.partition(":")
    if scheme == "timm":
        return _timm(name)
    if scheme == "torchvision":
        return _torchvision(name)
    if scheme == "caffe":
        return _caffe(_existing(name), model)
    path = _existing(spec)
    if path.suffix == ".safetensors":
        return _safetensors(path, model)
    return _torch_file(path, model, which)


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise UserError(f'weights "{name}": there is no such file; weights are given as {FORMS}')
    return path


def _record(match: Peer, state: Mapping[str, Tensor]) -> dict[str, Any]:
    classes = len(state["head.fc.weight"])
    first = next(tensor for key, tensor in state.items() if tensor.ndim == 4)
    se = match.se.to_dict() if match.se else None
    return {
        "name": match.model,
        "se": se,
        "num_classes": classes,
        "in_channels": first.shape[1],
        "options": dict(match.options),
    }


def _offline(spec: str, error: Exception) -> UserError:
    return UserError(
        f"{spec} could not be downloaded ({type(error).__name__}): this machine seems to be offline; fetch the "
        "weights where there is a network and give the FILE"
    )


def _timm(name: str) -> Weights:
    """Download timm's weights ``name``, e.g. "legacy_seresnet50.in1k"; without a tag its default ones."""
    match = peer("timm", name.partition(".")[0])
    import timm

    architecture, _, tag = name.partition(".")
    released = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in released:
        raise UserError(f'timm has no weights "{name}"{did_you_mean(name, released)}')
    if not released:
        raise UserError(f"timm released no weights of {architecture}")
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # its retries say the same thing ten times
    try:
        theirs: Any = timm.create_model(name, pretrained=True)
    except OSError as error:
        raise _offline(f"timm:{name}", error) from error
    finally:
        hub.setLevel(level)
    state = from_timm(theirs.state_dict(), architecture)
    cfg = theirs.pretrained_cfg
    size = cfg["input_size"][-1]
    preprocessing: Preprocessing = {
        "size": size,
        "resize": math.floor(size / cfg["crop_pct"]),
        "interpolation": cfg["interpolation"],
        "mean": list(cfg["mean"]),
        "std": list(cfg["std"]),
        "colour": "RGB",
    }
    source = f"timm:{architecture}.{cfg['tag']}"
    return Weights(state, WeightRecord(source, _record(match, state), preprocessing, CLASS_ORDER))


def _torchvision(name: str) -> Weights:
    """Download torchvision's weights ``name``, e.g. "ResNet50_Weights.IMAGENET1K_V2"."""
    from torchvision.models import get_model_weights

    released = {str(entry): model for model in PEERS["torchvision"] for entry in get_model_weights(model)}
    if name not in released:
        raise UserError(f'there is no converter for torchvision\'s "{name}"{did_you_mean(name, released)}')
    model = released[name]
    match = peer("torchvision", model)
    weights = next(entry for entry in get_model_weights(model) if str(entry) == name)
    try:
        theirs = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise _offline(f"torchvision:{name}", error) from error
    state = from_torchvision(theirs, model)
    images = weights.transforms()
    # torchvision's Inception-v3 turns ImageNet's mean and std into (0.5, 0.5) inside the network.
    halves = [0.5, 0.5, 0.5]
    preprocessing: Preprocessing = {
        "size": images.crop_size[0],
        "resize": images.resize_size[0],
        "interpolation": images.interpolation.value,
        "mean": halves if model == "inception_v3" else list(images.mean),
        "std": halves if model == "inception_v3" else list(images.std),
        "colour": "RGB",
    }
    return Weights(
        state, WeightRecord(f"torchvision:{name}", _record(match, state), preprocessing, CLASS_ORDER)
    )


def _caffe(path: Path, model: Mapping[str, Any]) -> Weights:
    from senet.weights import caffe

    name = caffe.caffe_name(model["name"])
    state = caffe.from_caffe(caffe.read_caffemodel(path), name)
    record = _record(peer("caffe", name), state)
    imagenet = record["num_classes"] == len(ilsvrc_class_order())
    return Weights(
        state,
        WeightRecord(
            f"caffe:{path}",
            record,
            caffe.PREPROCESSING,
            CLASS_ORDER if imagenet else None,
            caffe.CHANGES if imagenet else caffe.CHANGES[:-1],
        ),
    )


def _like(model: Mapping[str, Any], state: Mapping[str, Tensor], path: Path) -> WeightRecord:
    """Return the record of a file without one: what the network is, with the file's class count."""
    head = state.get("head.fc.weight")
    classes = model["num_classes"] if head is None else len(head)
    return WeightRecord(str(path), {**model, "num_classes": classes})


def _safetensors(path: Path, model: Mapping[str, Any]) -> Weights:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
    if "senet" not in metadata:
        return Weights(state, _like(model, state, path))
    return Weights(state, WeightRecord.from_dict({**json.loads(metadata["senet"]), "source": str(path)}))


def _torch_file(path: Path, model: Mapping[str, Any], which: Which) -> Weights:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read as weights ({type(error).__name__})") from error
    if isinstance(content, dict) and {"senet", "state_dict"} <= content.keys():
        record = WeightRecord.from_dict({**content["senet"], "source": str(path)})
        chosen = content["senet"].get("selected_by", "raw") if which == "auto" else which
        return Weights(_prefixed(content["state_dict"], chosen, path), record)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} is neither a state dict nor a checkpoint of senet")
    return Weights(content, _like(model, content, path))


def _prefixed(state: Mapping[str, Tensor], which: str, path: Path) -> dict[str, Tensor]:
    prefix = KEY_PREFIX[which]
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not found:
        raise UserError(
            f'{path} has no {"averaged" if which == "ema" else "raw"} weights: no key begins with "{prefix}"'
        )
    return found
