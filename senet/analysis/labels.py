"""What to call the points of a study: by that in which their configurations differ."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from senet.models import plain_twin

BOOKKEEPING = ("seed", "name", "runs_dir", "logger")
"""Keys that do not set one point apart from another."""
SHORT = {"se.reduction": "r"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that makes a point: all but seed and bookkeeping."""
    return {key: value for key, value in config.items() if key not in BOOKKEEPING}


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in flatten(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def label_points(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one label per configuration: ``plain``, ``r=8``, ``placement=pre``, ``se_resnet50``, ``lr=0.1``."""
    flat = [flatten(settings(config)) for config in configs]
    trunks = {plain_twin(str(f.get("model.name"))) for f in flat}
    with_se = [f for f in flat if f.get("se.reduction") is not None]
    mixed = 0 < len(with_se) < len(flat)
    se_keys = _varying(with_se, lambda key: key.startswith("se."))
    others = _varying(flat, lambda key: key != "model.name" and key.split(".")[0] != "se")
    labels = []
    for f in flat:
        parts = [str(f["model.name"])] if len(trunks) > 1 else []
        if f in with_se:
            parts += [_part(key, f[key], se_keys) for key in se_keys]
            parts += ["SE"] if mixed and not parts else []
        elif mixed and not parts:
            parts.append("plain")
        parts += [_part(key, f[key], others) for key in others if key in f]
        labels.append(", ".join(parts) or str(f.get("model.name")))
    # Points that differ in later digits than are shown must not become one.
    return [label if labels.count(label) == 1 else f"{label} #{i}" for i, label in enumerate(labels)]


def _varying(flat: Sequence[Mapping[str, Any]], wanted: Any) -> list[str]:
    keys = dict.fromkeys(key for f in flat for key in f if wanted(key))
    return [key for key in keys if len({repr(f.get(key, "-")) for f in flat}) > 1]


def _part(key: str, value: Any, among: Sequence[str]) -> str:
    last = key.rsplit(".", 1)[-1]
    ambiguous = sum(other.rsplit(".", 1)[-1] == last for other in among) > 1
    name = SHORT.get(key, key if ambiguous else last)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = ",".join(map(str, value))
    if isinstance(value, float):
        value = f"{value:.4g}"  # what a search drew has more digits than anybody reads
    if value is None:
        value = "all" if key == "se.stages" else "none"
    return f"{name}={value}"


def order_key(label: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that sorts points as a table has them: by trunk, plain first, numbers by value."""
    name = str(config["model"]["name"])
    return natural(plain_twin(name)), config.get("se") is not None, natural(label)


def natural(text: str) -> tuple[Any, ...]:
    """Return a key that sorts numbers in words by value: r=8 before r=16."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text))
