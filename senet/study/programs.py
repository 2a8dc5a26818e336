"""The programs ``train.py`` and ``eval.py``, which are also ``senet train`` and ``senet eval``."""

from collections.abc import Callable

import hydra

from senet.files import configs_directory
from senet.study import main as study
from senet.training import entry


def train_main() -> None:
    """Train what Hydra composes of the command line; many runs with ``-m`` and ``search=``."""
    entry.command_line(_composed("train", entry.train), study)


def eval_main() -> None:
    """Evaluate what Hydra composes of the command line."""
    entry.command_line(_composed("eval", entry.evaluate))


def _composed(name: str, job: Callable[..., None]) -> Callable[[], None]:
    directory = str(configs_directory())
    main: Callable[[], None] = hydra.main(version_base="1.3", config_path=directory, config_name=name)(job)
    return main
