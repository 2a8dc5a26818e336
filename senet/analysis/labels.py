"""The settings of runs, and what to call the points of a study: by that in which they differ."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import yaml
from omegaconf import OmegaConf

from senet.files import configs_directory
from senet.models import plain_twin
from senet.models.families import STARTING, model_options
from senet.nn import SEConfig

BOOKKEEPING = ("seed", "name", "runs_dir", "logger")
"""Keys that do not set one point apart from another."""
NOT_OF_RUNS = ("defaults", "hydra", "resume", "data")
"""Sections of ``train.yaml`` that a run's own configuration does not have, or has by the kind of data."""
SHORT = {
    "se.reduction": "r",
    "data.name": "data",
    "optimizer.name": "optimizer",
    "schedule.name": "schedule",
}
LONGEST = 40
"""Characters of a label; what it leaves out stands in a table of its own."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a configuration that makes a point: all but seed and bookkeeping."""
    return {key: value for key, value in config.items() if key not in BOOKKEEPING}


def as_plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the same network without SE, trained alike."""
    model = config["model"]
    return settings(config) | {"model": {**model, "name": plain_twin(str(model["name"]))}, "se": None}


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one with dotted keys."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    return {
        key: value
        for name, child in node.items()
        for key, value in flatten(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def with_new_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a run's configuration the settings that came after its version, which leave all as it was."""
    network = {"model": STARTING | model_options(str(config["model"]["name"]))}
    if config.get("se"):
        network["se"] = SEConfig().to_dict()
    defaults = OmegaConf.create(_shipped() | network)
    merged: Any = OmegaConf.to_container(OmegaConf.merge(defaults, config))
    return dict(merged)


@cache
def _shipped() -> dict[str, Any]:
    """Return what a run has if nothing is said, but for what is chosen by name."""
    values = yaml.safe_load((configs_directory() / "train.yaml").read_text())
    return {key: value for key, value in values.items() if key not in (*BOOKKEEPING, *NOT_OF_RUNS)}


def reduction_of(se: Mapping[str, Any] | None) -> int | None:
    """Return the r of the section ``se`` of a configuration; None without SE, and of a rival that has none."""
    return int(se["reduction"]) if se and SEConfig(block=se.get("block", "se")).reads("reduction") else None


class Labels(NamedTuple):
    """One label per configuration, and the settings in which they differ that no label names."""

    labels: list[str]
    others: list[str]


def label_points(configs: Sequence[Mapping[str, Any]]) -> Labels:
    """Name configurations by what differs: ``plain``, ``r=8``, ``placement=pre``, ``se_resnet50``, ``lr=0.1``.

    A setting that follows from another, as the image size from the data set, is not in the labels.
    """
    flat = [flatten(settings(config)) for config in configs]
    trunks = [plain_twin(str(f.get("model.name"))) for f in flat]
    with_se = [f for f in flat if f.get("se.reduction") is not None]
    mixed = 0 < len(with_se) < len(flat)
    se_keys = _varying(with_se, lambda key: key.startswith("se."))
    others = _varying(flat, lambda key: key != "model.name" and key.split(".")[0] != "se")
    told = [key for key in others if not _follows(key, flat, trunks)]
    words: list[list[str]] = []
    for f in flat:
        words.append([str(f["model.name"])] if len(set(trunks)) > 1 else [])
        if mixed and not words[-1] and not (f in with_se and se_keys):
            words[-1].append("SE" if f in with_se else "plain")
    left = set(others) - set(told)
    for key in [*se_keys, *told]:
        parts = [
            [_part(key, f[key], [*se_keys, *told])] if key in f and (key in told or f in with_se) else []
            for f in flat
        ]
        longer = [[*before, *part] for before, part in zip(words, parts, strict=True)]
        if max(len(", ".join(label)) for label in longer) > LONGEST:
            left.add(key)  # in all labels or in none
        else:
            words = longer
    labels = [", ".join(label) or str(f.get("model.name")) for label, f in zip(words, flat, strict=True)]
    if len(set(labels)) < len(labels):
        names = ["model.name"] if len({str(f.get("model.name")) for f in flat}) > 1 else []
        apart = _departures(flat, [*names, *se_keys, *told])
        if len(set(apart)) == len(apart) and max(map(len, apart)) <= LONGEST:
            return Labels(apart, [key for key in others if key not in told])
    # Points that differ in what is not shown must not become one.
    unlike = [
        label if labels.count(label) == 1 else f"{label[: LONGEST - 4]} #{i}"
        for i, label in enumerate(labels)
    ]
    return Labels(unlike, [key for key in [*se_keys, *others] if key in left])


def _departures(flat: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Name each point by the settings that most others do not share: one axis after the other was tried."""
    usual = {key: Counter(repr(f.get(key)) for f in flat).most_common(1)[0][0] for key in keys}
    return [
        ", ".join(
            str(f[key]) if key == "model.name" else _part(key, f[key], keys)
            for key in keys
            if key in f and repr(f[key]) != usual[key]
        )
        or "base"
        for f in flat
    ]


def varying(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which configurations differ, as dotted keys."""
    return _varying([flatten(settings(config)) for config in configs if config], lambda key: True)


def _varying(flat: Sequence[Mapping[str, Any]], wanted: Any) -> list[str]:
    keys = dict.fromkeys(key for f in flat for key in f if wanted(key))
    return [key for key in keys if len({repr(f.get(key, "-")) for f in flat}) > 1]


def _follows(key: str, flat: Sequence[Mapping[str, Any]], trunks: Sequence[str]) -> bool:
    """Return whether the name of a key's section, such as ``data.name``, has another value and decides the key's."""
    section = key.split(".")[0]
    names = trunks if section == "model" else [str(f.get(f"{section}.name")) for f in flat]
    decided = {(name, repr(f.get(key, "-"))) for name, f in zip(names, flat, strict=True)}
    return key != f"{section}.name" and 1 < len(set(names)) == len(decided)


def shown(value: Any) -> str:
    """Return a setting's value for people."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(shown, value))
    if isinstance(value, float):
        return f"{value:.4g}"  # what a search drew has more digits than anybody reads
    return "none" if value is None else str(value)


def _part(key: str, value: Any, among: Sequence[str]) -> str:
    last = key.rsplit(".", 1)[-1]
    ambiguous = sum(other.rsplit(".", 1)[-1] == last for other in among) > 1
    text = "all" if key == "se.stages" and value is None else shown(value)
    if len(text) > LONGEST // 2:
        text = "…" + text[-(LONGEST // 2) :]  # of a path the end says most
    return f"{SHORT.get(key, key if ambiguous else last)}={text}"


def trial(records: Iterable[Mapping[str, Any]]) -> str:
    """Return what must be known of runs that were made with ``debug=``; "" of all others."""
    typed = {str(o) for record in records for o in record.get("overrides") or ()}
    chosen = sorted(o for o in typed if o.startswith("debug=") and o != "debug=null")
    return (
        f"{', '.join(chosen)}: a trial of the program, cut short; its figures mean nothing." if chosen else ""
    )


def order_key(label: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that sorts points as a table has them: by trunk, plain first, numbers by value."""
    name = str(config["model"]["name"])
    return natural(plain_twin(name)), config.get("se") is not None, natural(label)


def natural(text: str) -> tuple[Any, ...]:
    """Return a key that sorts numbers in words by value: r=8 before r=16."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)
    )
