"""MLflow as a logger: one MLflow run per run directory, which a resume continues."""

import os
from collections.abc import Mapping
from typing import Any

import mlflow  # noqa: F401  # Lightning would say of its absence less than senet.plugins does
from pytorch_lightning.loggers import MLFlowLogger

from senet.rundir import RunDir
from senet.training.console import rank
from senet.training.logger_settings import MlflowConfig


def open_logger(config: MlflowConfig, run: RunDir, values: Mapping[str, Any]) -> MLFlowLogger:
    """Return the logger of a run; its MLflow id is kept in ``run.json``, by which a resume finds it."""
    uri = (
        config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path / 'mlflow.db'}"
    )
    known = run.record().get("mlflow_run_id")
    logger = MLFlowLogger(config.experiment, run.record()["title"], uri, run_id=known)
    if known is None and rank() == 0:
        logger.log_hyperparams(dict(values))
        run.update(mlflow_run_id=logger.run_id)
    return logger
