"""MLflow as a logger: one MLflow run per run directory, which a resume continues."""

import os
from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException
from pytorch_lightning.loggers import MLFlowLogger

from senet.errors import UserError
from senet.rundir import RunDir
from senet.training.console import rank, say
from senet.training.sections import MlflowConfig


def open_logger(config: MlflowConfig, run: RunDir, values: Mapping[str, Any]) -> MLFlowLogger:
    """Return the logger of a run; its MLflow id is kept in ``run.json``, by which a resume finds it.

    Raises:
        UserError: if the server is not reached, or refuses.
    """
    uri = (
        config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.path / 'mlflow.db'}"
    )
    title, known = run.record()["title"], run.record().get("mlflow_run_id")
    try:
        logger = MLFlowLogger(config.experiment, title, uri, run_id=known)
        if rank() != 0:
            return logger
        if known is not None and _goes_on(logger, known):
            return logger
        if known is not None:
            say(f"MLflow has no run {known} any more at {uri}: a new one is begun")
            logger = MLFlowLogger(config.experiment, title, uri)
        logger.log_hyperparams(dict(values))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"logger=mlflow, {uri}: {reason}") from error
    run.update(mlflow_run_id=logger.run_id)
    return logger


def _goes_on(logger: MLFlowLogger, known: str) -> bool:
    """Let an MLflow run go on, if it is still there: an attempt that began anew has taken its own database away."""
    try:
        if logger.experiment.get_run(known).info.lifecycle_stage != "active":
            return False
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    logger.experiment.update_run(known, status="RUNNING")
    return True
