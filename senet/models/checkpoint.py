"""A checkpoint file and the network it holds: its record, and its raw or averaged weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from senet.errors import UserError
from senet.models.factory import create_model
from senet.models.network import Network
from senet.nn import SEConfig

KEY_PREFIX = {"raw": "model.", "ema": "ema.module."}
"""How a checkpoint's keys begin: those of the trained network, and those of its average."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read one of our checkpoints.

    Raises:
        UserError: if the file is missing or was not written by senet.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({type(error).__name__})") from error
    if not isinstance(checkpoint, dict) or "senet" not in checkpoint:
        raise UserError(f"{path} was not written by senet: it has no record of its network and preprocessing")
    return checkpoint


def load_network(checkpoint: Mapping[str, Any], weights: str) -> tuple[Network, str]:
    """Rebuild the network of a checkpoint with its "raw" or "ema" weights ("auto": those it was chosen by).

    Returns:
        The network in evaluation mode, and which weights it has.
    """
    record = checkpoint["senet"]
    which = record["selected_by"] if weights == "auto" else weights
    prefix = KEY_PREFIX[which]
    state = {
        key.removeprefix(prefix): value
        for key, value in checkpoint["state_dict"].items()
        if key.startswith(prefix)
    }
    if not state:
        raise UserError(
            "this checkpoint has no averaged weights (the run had ema.decay=null): use weights=raw"
        )
    model = dict(record["model"])
    se = model.pop("se")
    network = create_model(
        model.pop("name"), se=SEConfig(**se) if se else None, **model.pop("options"), **model
    )
    network.load_state_dict(state, strict=True)
    return network.eval(), which
