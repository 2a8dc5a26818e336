"""What Hydra says of a mistake, in one line of ours that names the nearest valid key or choice. Read without torch."""

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from senet.errors import UserError, did_you_mean
from senet.files import configs_directory
from senet.training.validation import HABITS, no_such_key


def refuse_hydras_own(arguments: list[str]) -> None:
    """Refuse what would change how Hydra composes: it would be ignored, or be another program.

    Raises:
        UserError: saying what to type instead.
    """
    for argument in arguments:
        key = argument.lstrip("+~").partition("=")[0]
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            launcher = argument.partition("=")[2] if key == "hydra/launcher" else ""
            way = f"use launcher={launcher} with -m" if launcher else HABITS["hydra"]
            raise UserError(f"{argument}: {way}")
        if key in ("--config-name", "-cn", "--config-path", "-cp"):
            raise UserError(
                f"{key}: choose a file of configs/experiment with experiment=NAME; evaluation is eval.py"
            )


def explain(error: BaseException) -> str:
    """Return Hydra's message as one line that names the nearest valid key or choice."""
    text = str(error).strip()
    if key := re.search(r"Could not override '([^']+)'", text):
        return _no_such_key(key[1], error.__cause__)
    if again := re.search(r"(?:An item is already at|Multiple values for) '?([\w/]+)", text):
        return f"{again[1]} has a value already: choose another with {again[1]}=VALUE, once and without +"
    if text.startswith("Config group override must be"):
        word = re.compile(r"(\w+)=(null|true|false|-?\d.*|\[.*|\{.*)?")
        groups = [a for a in sys.argv[1:] if (found := word.fullmatch(a)) and found[1] in _groups()]
        if "se=null" in groups:
            return "se=null: a network without SE is the plain twin of its name, model=NAME without se_"
        return f"{' '.join(groups) or 'a group'} must be the name of a choice: see --help for those there are"
    if choice := re.search(r"Could not find '(.+)/([^/']+)'", text):
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{choice[1]}={choice[2]}: there is no such choice{did_you_mean(choice[2], options)}"
    return text.splitlines()[0] if text else type(error).__name__


def _groups() -> set[str]:
    return {"model", *(path.name for path in configs_directory().iterdir() if path.is_dir())}


def _no_such_key(typed: str, cause: Any) -> str:
    """Say what is wrong with the key ``typed``; ``cause`` is OmegaConf's error, which holds what was composed."""
    composed = OmegaConf.to_container(cause.parent_node._get_root())
    known = {key for key in _dotted(composed) if key.partition(".")[0] != "hydra"}
    if "seed" in known:  # an evaluation chooses its data and trainer alone, which are keys already
        known |= _groups()
    # Where a mapping was typed, the key that is missing may be in it.
    missing = cause.full_key if cause.full_key.startswith(f"{typed}.") else typed
    if missing != typed and missing in known:
        return f"{typed}={{...}} holds a key with a dot in it: set its keys one by one, {missing}=VALUE"
    return no_such_key(missing, known, sys.argv[1:])


def _dotted(values: Any) -> Iterator[str]:
    for key, inner in values.items() if isinstance(values, Mapping) else ():
        yield str(key)
        yield from (f"{key}.{rest}" for rest in _dotted(inner))
