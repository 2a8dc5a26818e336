"""TensorBoard as a logger: events in the run directory."""

from collections.abc import Mapping
from typing import Any

import tensorboard  # noqa: F401  # Lightning would say of its absence less than senet.plugins does
from pytorch_lightning.loggers import TensorBoardLogger

from senet.rundir import RunDir


def open_logger(config: bool, run: RunDir, values: Mapping[str, Any]) -> TensorBoardLogger:
    """Return the logger of a run."""
    return TensorBoardLogger(run.path, name="tensorboard", version="")
