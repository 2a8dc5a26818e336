"""Files of weights that senet did not write as it writes them: our names or another library's, in any wrapper."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from senet.errors import UserError, in_a_line
from senet.integrations.unwrap import unwrap
from senet.plugins import integration
from senet.weights.checkpoint import Averaging
from senet.weights.record import CLASS_ORDER, WeightRecord, Weights


def read(
    path: Path, content: object, model: Mapping[str, Any], weights: Averaging, keys: Collection[str]
) -> Weights:
    """Return the weights in a file's ``content``; see ``senet.weights.read.read_weights``.

    Raises:
        UserError: if nobody knows their names.
    """
    return _ours(path, content, model, weights, keys) or _theirs(path, content, model, weights)


def _config_beside(path: Path) -> dict[str, Any]:
    """Return the ``config.json`` beside a file, as timm and the Hub keep them; {} if there is none.

    Raises:
        UserError: if it cannot be read: the images that the weights expect stand there.
    """
    file = path.parent / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({in_a_line(error)}): it says what {path.name} is") from error
    return config if isinstance(config, dict) and "architecture" in config else {}


def _ours(
    path: Path, content: object, model: Mapping[str, Any], weights: Averaging, keys: Collection[str]
) -> Weights | None:
    """Return the weights of a file that has our names, whose record is the network's own; else None."""

    def identify(state: dict[str, Tensor]) -> bool | None:
        return True if 2 * sum(key in state for key in keys) > len(keys) else None

    if not keys or (found := unwrap(content, identify, weights, str(path))) is None:
        return None
    inside, _ = found
    head = inside.state.get("head.fc.weight")
    classes = model["num_classes"] if head is None else len(head)
    words = "" if not inside.prefix and not inside.dropped else f"senet's names, {inside.describe()}"
    record = WeightRecord(str(path), {**model, "num_classes": classes}, recognised=words)
    return Weights(inside.state, record)


def _theirs(path: Path, content: object, model: Mapping[str, Any], weights: Averaging) -> Weights:
    """Return the weights of a file with another library's names under ours."""
    config = _config_beside(path)
    library = integration("recognise", package="timm", asked=f"weights={path}")
    tell = library.by_config(config) if config else library.recognise
    found = unwrap(content, tell, weights, str(path))
    if found is None and config and (other := unwrap(content, library.recognise, weights, str(path))):
        raise UserError(
            f'{path}: its config.json says "{config["architecture"]}", but these are weights of {other[1].name}'
        )
    if found is None:
        raise UserError(f"{path}: {library.refusal(content, model.get('name'))}")
    inside, match = found
    record = match.record()
    words = f"recognised as {match.name}, {inside.describe()}"
    if not record["num_classes"]:
        words += ", without a classifier"
    order = CLASS_ORDER if record["num_classes"] == 1000 else None
    labels = config.get("label_names") or config.get("pretrained_cfg", {}).get("label_names")
    classes = (
        tuple(map(str, labels)) if isinstance(labels, list) and len(labels) == record["num_classes"] else None
    )
    return Weights(
        match.state,
        WeightRecord(
            str(path),
            record,
            match.preprocessing,
            order,
            classes=classes,
            recognised=words,
            assumed=match.assumed,
        ),
    )
