"""The page of every configuration key, made from the schema: what it takes, its default and what it does."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, NamedTuple, get_args

from hydra import compose

from senet.data.config import DATA_SETS, DataConfig
from senet.integrations.optuna_search import SearchConfig
from senet.models.families import FAMILIES, FOREIGN
from senet.ranges import bare, in_words, keys_of, members
from senet.study.executors import LauncherConfig
from senet.study.plan import composing
from senet.training.config import EvalConfig, RunConfig
from senet.training.effects import NEEDS
from senet.training.entry import plain, register_models

INTRODUCTION = """# Every key

`KEY=VALUE` on the command line sets one. A key or a value that is not here is refused, with the nearest that is.
This page is made from the schema when the site is built. **Default** is what the [configuration files](files.md)
say without a recipe; a recipe (`quick`, if none is chosen) sets its own on top, and `senet train ... --cfg job` prints
what a command line comes to.
"""

RESUME = "`resume=RUN_DIR` [continues a run](../howto/resume.md) instead of starting one."
EVALUATION = "Keys of `senet eval`, which also takes `data` and, of `trainer`, what says where it runs."


class Key(NamedTuple):
    """A key as the page shows it."""

    name: str
    allowed: str
    default: str
    effect: str


class Section(NamedTuple):
    """A part of the page."""

    heading: str
    text: str
    keys: list[Key]


def sections() -> list[Section]:
    """Return every key there is, by section."""
    register_models()
    with composing():
        shipped = _composed()
        found = [Section("The run", RESUME, _alone(RunConfig, shipped))]
        for name, kind in keys_of(RunConfig).items():
            if name == "data":
                found += _data_sets()
                continue
            choices = [member for member in members(kind) if keys_of(member)]
            for choice in choices:
                heading = f"{name}={_names(choice)}" if len(choices) > 1 else name
                values = shipped if len(choices) == 1 else _composed(heading)
                found.append(_section(heading, choice, f"{name}.", values[name]))
        found.append(Section("Evaluation", EVALUATION, _alone(EvalConfig, _composed(name="eval"))))
        found.append(_section("launcher", LauncherConfig, "launcher.", _composed()["launcher"]))
        found.append(_section("search", SearchConfig, "search.", _composed("search=optuna")["search"]))
    return found


def keys(section: Any, prefix: str, values: Any) -> Iterator[Key]:
    """Yield the keys of a section and of those within it; ``values`` are what the configuration files say."""
    effects, values = effects_of(section), _defaults(section) | dict(values or {})
    for name, kind in keys_of(section).items():
        within = [member for member in members(kind) if keys_of(member)]
        for member in within:
            yield from keys(member, f"{prefix}{name}.", values.get(name))
        if not within:
            effect = _effect(f"{prefix}{name}", effects.get(name, ""))
            default = _as_typed(values[name]) if name in values else ""
            yield Key(f"{prefix}{name}", in_words(kind), default, effect)


def effects_of(section: Any) -> dict[str, str]:
    """Return what the docstrings of a section and of the classes it derives from say of its keys."""
    found: dict[str, str] = {}
    for base in reversed(bare(section).__mro__):
        attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, flags=re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", text)
    return found


def page() -> str:
    """Return the page as Markdown."""
    parts = [INTRODUCTION]
    for section in sections():
        parts.append(f"## {section.heading}\n\n{section.text}\n")
        if section.keys:
            rows = [
                f"| {' | '.join(map(_cell, (f'`{key.name}`', key.allowed, _code(key.default), key.effect)))} |"
                for key in section.keys
            ]
            parts.append("\n".join(["| key | allowed | default | effect |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _section(heading: str, kind: Any, prefix: str, values: Any) -> Section:
    summary = (inspect.getdoc(bare(kind)) or "").partition("\n")[0]
    return Section(heading, summary.replace("``", "`"), list(keys(kind, prefix, values)))


def _alone(kind: Any, values: Any) -> list[Key]:
    """Return the keys of a schema that stand in no section."""
    return [key for key in keys(kind, "", values) if "." not in key.name and key.name != "data"]


def _data_sets() -> Iterator[Section]:
    """Yield what all data sets have, then what each has of its own."""
    every = _section("data", DataConfig, "data.", {})
    yield every._replace(
        text="What every data set has; each has a file that says how its images are prepared."
    )
    shared = {key.name for key in every.keys}
    for kind in dict.fromkeys(DATA_SETS.values()):
        names = [name for name, other in DATA_SETS.items() if other is kind]
        own = _section(f"data={', '.join(names)}", kind, "data.", _composed(f"data={names[0]}")["data"])
        yield own._replace(keys=[key for key in own.keys if key.name not in shared])


def _composed(*overrides: str, name: str = "train") -> dict[str, Any]:
    """Return what the configuration files say, without a recipe."""
    without = ["~recipe"] if name == "train" else []
    composed = compose(name, overrides=[*without, *overrides])
    studies = {key: composed[key] for key in ("launcher", "search") if composed.get(key)}
    return plain(composed) | studies


def _names(kind: Any) -> str:
    return str(get_args(bare(keys_of(kind)["name"]))[0])


def _defaults(kind: Any) -> dict[str, Any]:
    if is_dataclass(bare(kind)):
        return {f.name: f.default for f in fields(bare(kind)) if f.default is not MISSING}
    return {key: value for family in (*FOREIGN, *FAMILIES) for key, value in family.options.items()}


def _effect(key: str, text: str) -> str:
    text = f"{text[:1].upper()}{text[1:]}".replace("``None``", "`null`")
    if key in NEEDS:
        text = f"{text.rstrip('.')}. Needs {NEEDS[key]}."
    if key.startswith("model."):
        having = [name for f in FAMILIES for name in f.names if key.partition(".")[2] in f.options]
        text += f" ({', '.join(having)}, and each with SE)" if having else ""
    return text


def _as_typed(value: Any) -> str:
    """Return a value as it is typed on the command line."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_as_typed, value))}]"
    return "" if isinstance(value, Mapping) else str(value)


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    print(page())
