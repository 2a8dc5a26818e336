"""What a run may set of Lightning's Trainer and of loggers. Read without these libraries, and without torch."""

from typing import Literal

from pydantic import with_config
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from senet.ranges import Count, Limit, Natural, Positive

Precision = Literal[
    "auto", "32-true", "32", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true", "64"
]


@with_config(extra="forbid")
class TrainerSettings(TypedDict, total=False):
    """Arguments of Lightning's Trainer that a user may set; the others belong to the run.

    Attributes:
        max_epochs: length of the run in epochs.
        min_epochs: epochs before anything may end the run early.
        max_steps: length of the run in optimiser steps, if that comes first; -1 for no limit.
        min_steps: optimiser steps before anything may end the run early.
        max_time: end the run after DD:HH:MM:SS.
        accelerator: the kind of device; "auto" takes a GPU where there is one.
        devices: processes on each machine, one per GPU or one per CPU process.
        num_nodes: machines.
        strategy: how processes share the work.
        precision: of the computation; "auto" is bf16-mixed where the device has instructions for it, else 32-true.
        accumulate_grad_batches: batches whose gradients make one optimiser step.
        gradient_clip_val: largest gradient.
        gradient_clip_algorithm: clip the norm of all gradients, or each value.
        sync_batchnorm: BatchNorm takes its statistics from all processes.
        deterministic: use deterministic algorithms alone; "warn" says where there is none.
        benchmark: let cuDNN try its algorithms first.
        detect_anomaly: let autograd say which operation made a NaN; slow.
        inference_mode: evaluate under ``torch.inference_mode``, else under ``no_grad``.
        profiler: print where the time went.
        limit_train_batches: train on so many batches of an epoch, or on this share.
        limit_val_batches: the same in validation; 0 for no validation.
        overfit_batches: train on the same so many batches again and again; 0 is off.
        val_check_interval: validate also every so many batches, or after this share of an epoch.
        check_val_every_n_epoch: epochs between validations.
        log_every_n_steps: optimiser steps between rows of steps.csv.
    """

    max_epochs: Literal[-1] | Count | None
    min_epochs: Natural | None
    max_steps: Literal[-1] | Count
    min_steps: Natural | None
    max_time: str | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Literal["auto", -1] | Count | str | list[Natural]
    num_nodes: Count
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"]
    precision: Precision | None
    accumulate_grad_batches: Count
    gradient_clip_val: Positive | None
    gradient_clip_algorithm: Literal["norm", "value"] | None
    sync_batchnorm: bool
    deterministic: bool | Literal["warn"]
    benchmark: bool | None
    detect_anomaly: bool
    inference_mode: bool
    profiler: Literal["simple", "advanced", "pytorch"] | None
    limit_train_batches: Limit
    limit_val_batches: Literal[0] | Limit
    overfit_batches: Natural
    val_check_interval: Limit | None
    check_val_every_n_epoch: Count
    log_every_n_steps: Count


class TrainerSection(TypedDict):
    """The section alone, which says on how many processes the others are looked at."""

    trainer: TrainerSettings


@dataclass(frozen=True, config={"extra": "forbid"})
class WandbConfig:
    """Weights & Biases.

    Attributes:
        project: project name.
        entity: user or team; ``None`` takes the account's default.
        group: runs that belong together; ``None`` takes the name of the run's study, or else the run's own, so that
            seeds and variants of one network and data set stand side by side.
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
