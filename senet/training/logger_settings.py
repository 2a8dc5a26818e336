"""Which loggers a run has beside its CSV files. Read without the loggers' own libraries."""

from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config={"extra": "forbid"})
class WandbConfig:
    """Weights & Biases.

    Attributes:
        project: project name.
        entity: user or team; ``None`` takes the account's default.
        group: runs that belong together; ``None`` takes the run's ``name``, so that seeds and variants of one
            network and data set stand side by side.
        offline: write locally and need no account; ``wandb sync`` uploads later.
        tags: labels of the run.
    """

    project: str = "senet"
    entity: str | None = None
    group: str | None = None
    offline: bool = False
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, config={"extra": "forbid"})
class MlflowConfig:
    """MLflow.

    Attributes:
        experiment: name of the experiment.
        tracking_uri: of the server; ``None`` takes ``MLFLOW_TRACKING_URI``, or else a file in the run directory.
    """

    experiment: str = "senet"
    tracking_uri: str | None = None


@dataclass(frozen=True, config={"extra": "forbid"})
class LoggerConfig:
    """Loggers beside the CSV files, which are always written.

    Attributes:
        wandb: settings of Weights & Biases, or ``None`` for off.
        tensorboard: whether to write TensorBoard events.
        mlflow: settings of MLflow, or ``None`` for off.
    """

    wandb: WandbConfig | None = None
    tensorboard: bool = False
    mlflow: MlflowConfig | None = None
