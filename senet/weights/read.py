"""Where weights come from: other libraries by the scheme of a specification, or files recognised by what is in them."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from senet.errors import UserError
from senet.plugins import integration
from senet.rundir import RunDir
from senet.weights.checkpoint import Averaging, as_checkpoint, is_ours, read_torch_file
from senet.weights.record import WeightRecord, Weights

FORMS = (
    "timm:NAME.TAG, torchvision:ENUM.NAME, caffe:FILE.caffemodel, a FILE (safetensors, state dict, checkpoint), or the "
    "folder of a run or one with config.json and model.safetensors"
)
SCHEMES: dict[str, dict[str, str]] = {
    "timm": {"name": "timm_weights", "package": "timm"},
    "torchvision": {"name": "torchvision_weights", "package": "torchvision"},
    "caffe": {"name": "caffe", "package": "google", "extra": "caffe"},
}
"""The integrations that read weights, by the word before the colon. Each has ``read(name, model) -> Weights``."""


def read_weights(
    spec: str, model: Mapping[str, Any], weights: Averaging = "auto", keys: Collection[str] = ()
) -> Weights:
    """Read the weights ``spec``; see ``load_weights``.

    Args:
        spec: what to read.
        model: the record of the network they are for; empty if the file must say it.
        weights: which of raw and averaged ones.
        keys: of that network's state dict, by which a file without a record is known to be ours.

    Raises:
        UserError: if there are none, or nobody knows their names.
    """
    scheme, _, name = spec.partition(":")
    if scheme in SCHEMES:
        return integration(**SCHEMES[scheme], asked=f"weights={spec}").read(name, model)
    path = _locate(spec)
    state: object
    if path.suffix == ".safetensors":
        state, metadata = _safetensors(path)
        if "senet" in metadata:
            try:
                stored = {**json.loads(metadata["senet"]), "source": str(path)}
                return Weights(state, WeightRecord.from_dict(stored))
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
                raise UserError(f'{path}: its "senet" metadata is not what senet writes: {error}') from error
    else:
        state = read_torch_file(path)
        if is_ours(state):
            checkpoint = as_checkpoint(path, state)
            stored = {**checkpoint.record, "source": str(path)}
            return Weights(checkpoint.state(weights), WeightRecord.from_dict(stored), checkpoint)
    found: Weights = integration("wrapped").read(path, state, model, weights, keys)
    bad = next((key for key, value in found.state.items() if not bool(torch.isfinite(value).all())), None)
    if bad:
        raise UserError(f'{path}: "{bad}" holds numbers that are not finite: these weights are broken')
    return found


def existing_file(name: str) -> Path:
    """Return the path of a file of weights, or raise a UserError that says how weights are given."""
    path = Path(name).expanduser()
    if not path.is_file():
        missing = "download it first" if "://" in name else "there is no such file"
        raise UserError(f'weights "{name}": {missing}; weights are given as {FORMS}')
    return path


def _locate(name: str) -> Path:
    """Return the file of weights ``name``: of a run, of a folder as timm and the Hub keep them, or itself."""
    path = Path(name).expanduser()
    run = RunDir(path.resolve())  # not ``latest``, which will be another
    if run.exists():
        best = run.checkpoint("best")  # a run without validation has none
        return best if best.is_file() else run.checkpoint("last")
    if path.is_dir():
        names = ("model.safetensors", "pytorch_model.bin")
        path = next((path / file for file in names if (path / file).is_file()), path)
        if path.is_dir():
            raise UserError(f"{path} has no {' or '.join(names)}; weights are given as {FORMS}")
    return existing_file(str(path) if path.is_file() else name)


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: {error}") from error
