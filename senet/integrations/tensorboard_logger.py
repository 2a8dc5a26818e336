"""TensorBoard as a logger: events in the run directory."""

from collections.abc import Mapping
from typing import Any

import tensorboard  # noqa: F401  # Lightning would say of its absence less than senet.plugins does
from pytorch_lightning.loggers import TensorBoardLogger

from senet.rundir import RunDir, read_rows


def open_logger(config: bool, run: RunDir, values: Mapping[str, Any]) -> TensorBoardLogger:
    """Return the logger of a run; what came after its last checkpoint is hidden, as it is cut off the CSV files."""
    rows = [*read_rows(run.metrics_file), *read_rows(run.steps_file)]
    kept = max((int(row["step"]) for row in rows), default=-1)
    return TensorBoardLogger(run.path, name="tensorboard", version="", purge_step=kept + 1)
