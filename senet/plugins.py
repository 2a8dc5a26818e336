"""How the core reaches what it does not import: an integration, or a module of the user's own, by its name."""

import os
from functools import cache
from importlib import import_module
from typing import Any

from senet.errors import UserError


def integration(name: str, *, package: str = "", asked: str = "", extra: str | None = None) -> Any:
    """Return the module ``senet.integrations.NAME``.

    Args:
        name: of the module.
        package: that it needs and may be missing.
        asked: the setting that asks for it, for the message.
        extra: of senet that brings the package; without one it is installed under its own name.

    Raises:
        UserError: if the package is not installed; says what to install.
    """
    try:
        return import_module(f"senet.integrations.{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        install = f"senet[{extra}]" if extra else package
        raise UserError(f"{asked} needs the {package} package: install {install}") from error


@cache
def import_users_own() -> None:
    """Import the modules that the environment variable ``SENET_PLUGINS`` lists, separated by commas.

    They register functions of the user's own. A variable, for every process of a job inherits it, and no run directory
    can name code that is imported when somebody looks at it.

    Raises:
        UserError: if there is no such module.
    """
    for name in filter(None, map(str.strip, os.environ.get("SENET_PLUGINS", "").split(","))):
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):  # one that the module itself needs
                raise
            raise UserError(
                f"SENET_PLUGINS={name}: there is no such module; is its folder in PYTHONPATH?"
            ) from error
