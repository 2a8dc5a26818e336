"""What Hydra says of a mistake, in one line of ours that names the nearest valid key or choice. Read without torch."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf

from senet.errors import UserError, did_you_mean
from senet.files import configs_directory
from senet.training.hints import HABITS, no_such_key


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
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        # Where a mapping was typed, the key that is missing may be in it.
        inside = re.search(rf"full_key: ({re.escape(key.group(1))}\.\S+)", str(error.__cause__))
        missing, known = (inside or key).group(1), _known_keys()
        if inside and missing in known:
            return f"{key.group(1)}={{...}} holds a key with a dot in it: set its keys one by one, {missing}=VALUE"
        return no_such_key(missing, known, sys.argv[1:])
    again = re.search(r"(?:An item is already at|Multiple values for) '?([\w/]+)", text)
    if again:
        return f"{again.group(1)} has a value already: choose another with {again.group(1)}=VALUE, once and without +"
    if text.startswith("Config group override must be"):
        choices = {"model", *(path.name for path in configs_directory().iterdir() if path.is_dir())}
        groups = [
            argument
            for argument in sys.argv[1:]
            if argument.partition("=")[0] in choices
            and re.fullmatch(r"\w+=(null|true|false|-?\d.*|\[.*|\{.*)?", argument)
        ]
        if "se=null" in groups:
            return "se=null: a network without SE is the plain twin of its name, model=NAME without se_"
        return f"{' '.join(groups) or 'a group'} must be the name of a choice: see --help for those there are"
    choice = re.search(r"Could not find '(.+)/([^/']+)'", text)
    if choice:
        group, name = choice.groups()
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{group}={name}: there is no such choice{did_you_mean(name, options)}"
    return text.splitlines()[0] if text else type(error).__name__


def _known_keys() -> list[str]:
    """Return every config group and every dotted key of what the user chose, for hints."""
    name = "eval" if Path(sys.argv[0]).stem == "eval" else "train"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_directory()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = set(loader.list_groups(""))
        chosen = [a for a in sys.argv[1:] if a.partition("=")[0] in groups and "," not in a]
        try:
            config = OmegaConf.to_container(compose(name, overrides=chosen))
        except HydraException:  # one of them is wrong as well
            config = OmegaConf.to_container(compose(name))
    keys = ["data", "trainer"] if name == "eval" else [str(group) for group in groups if group != "hydra"]

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            keys.append(f"{prefix}{key}")
            walk(value, f"{prefix}{key}.")

    walk(config, "")
    return keys
