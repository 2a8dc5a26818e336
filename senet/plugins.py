"""How the core reaches an integration: by a name the user gave, and only then."""

from importlib import import_module
from typing import Any

from senet.errors import UserError


def integration(name: str, *, package: str, asked: str, extra: str | None = None) -> Any:
    """Return the module ``senet.integrations.NAME``.

    Args:
        name: of the module.
        package: that it needs.
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
