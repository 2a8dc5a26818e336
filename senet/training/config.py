"""The schema of a run: every key there is, its type and default; unknown keys name the nearest valid one."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from senet.data import AnyDataConfig, AugmentConfig
from senet.errors import UserError, did_you_mean
from senet.kernels import Kernels
from senet.nn import SEConfig
from senet.training.objective import LossConfig, MixConfig
from senet.training.optimizers import AnyOptimizer
from senet.training.schedules import AnySchedule

_CLOSED = ConfigDict(extra="forbid")
AnyData = Annotated[AnyDataConfig, Field(discriminator="name")]


@with_config(extra="allow")
class TrainerSettings(TypedDict, total=False):
    """Arguments of Lightning's Trainer; the types of the usual ones are checked before anything starts."""

    max_epochs: int
    max_steps: int
    accelerator: str
    devices: int | str | list[int]
    num_nodes: int
    precision: str | None
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    sync_batchnorm: bool
    deterministic: bool | str
    limit_train_batches: int | float
    limit_val_batches: int | float
    strategy: str
    gradient_clip_algorithm: str | None
    overfit_batches: int
    check_val_every_n_epoch: int
    log_every_n_steps: int


@dataclass(frozen=True, config=_CLOSED)
class EmaConfig:
    """Exponential moving average of the weights, evaluated and saved beside the raw ones.

    Attributes:
        decay: per step; ``None`` for no average.
        warmup: start from a short memory, ``1 - (1 + step) ** (-2/3)`` while that is below ``decay``.
    """

    decay: float | None = None
    warmup: bool = True

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 < self.decay < 1:
            raise UserError(f"ema.decay={self.decay} must lie between 0 and 1, or be null for no average")


@dataclass(frozen=True, config=_CLOSED)
class CheckpointConfig:
    """When checkpoints are written: always ``best`` and ``last`` after each validation.

    Attributes:
        every_n_steps: write ``last`` also every so many optimiser steps; ``None`` for never.
    """

    every_n_steps: int | None = None


@dataclass(frozen=True, config=_CLOSED)
class RanksConfig:
    """Agreement of the processes of a run.

    Attributes:
        check_every_n_steps: optimiser steps between comparisons of all ranks' weights.
    """

    check_every_n_steps: int = 200

    def __post_init__(self) -> None:
        if self.check_every_n_steps < 1:
            raise UserError(f"ranks.check_every_n_steps={self.check_every_n_steps} must be 1 or more")


@dataclass(frozen=True, config=_CLOSED)
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


@dataclass(frozen=True, config=_CLOSED)
class LoggerConfig:
    """Loggers beside the CSV files, which are always written.

    Attributes:
        wandb: settings of Weights & Biases, or ``None`` for off.
        tensorboard: whether to write TensorBoard events.
    """

    wandb: WandbConfig | None = None
    tensorboard: bool = False


@dataclass(frozen=True, config=_CLOSED)
class RunConfig:
    """One training run.

    Attributes:
        seed: of every random stream.
        name: of the run, part of its directory's name.
        runs_dir: where run directories are made.
        model: ``name``, the options of ``create_model``, ``weights`` to start from (see ``senet.weights``), and
            ``freeze``, the last stage that stands still.
        se: the SE blocks; ``None`` for a plain network.
        data: which images.
        augment: training augmentation.
        mixing: mixup and CutMix.
        optimizer: optimiser and learning rate.
        schedule: of the learning rate.
        loss: loss function.
        ema: average of the weights.
        checkpoint: when to save.
        ranks: how often the ranks are compared.
        channels_last: NHWC memory layout, faster in most cases.
        compile: ``torch.compile`` the network in place.
        kernels: the residual tail's implementation: "auto" takes the fused one where it pays, "eager", "triton".
        trainer: arguments of Lightning's Trainer, under Lightning's names.
        logger: which loggers.
    """

    seed: int
    name: str
    runs_dir: str
    model: dict[str, Any]
    se: SEConfig | None
    data: AnyData
    augment: AugmentConfig
    mixing: MixConfig
    optimizer: AnyOptimizer
    schedule: AnySchedule
    loss: LossConfig
    ema: EmaConfig
    trainer: TrainerSettings
    logger: LoggerConfig
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)
    channels_last: bool = True
    compile: bool = False
    kernels: Kernels = "auto"

    def __post_init__(self) -> None:
        check_trainer(self.trainer)
        if self.model.get("name") is None:
            raise UserError("model.name is missing: choose a network with model=NAME")

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of ``create_model`` alone."""
        return {k: v for k, v in self.model.items() if k not in ("name", "weights", "freeze")}


@dataclass(frozen=True, config=_CLOSED)
class EvalConfig:
    """One evaluation.

    Attributes:
        run: run directory whose checkpoint is evaluated.
        ckpt: checkpoint file, instead of ``run``.
        which: "best" or "last" checkpoint of ``run``.
        weights: "raw", "ema", or "auto" for those the checkpoint was chosen by.
        data: another data set than the one stored; ``None`` keeps the stored one.
        root: the stored data set at another place.
        size: crop size in pixels, if not the stored one; the resize scales with it.
        batch_size: images per device and step; ``None`` takes the stored one.
        output: directory of the results; ``None`` makes one beside the checkpoint.
        trainer: arguments of Lightning's Trainer.
    """

    trainer: TrainerSettings
    run: str | None = None
    ckpt: str | None = None
    which: str = "best"
    weights: str = "auto"
    data: AnyData | None = None
    root: str | None = None
    size: int | None = None
    batch_size: int | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        check_trainer(self.trainer)
        if (self.run is None) == (self.ckpt is None):
            raise UserError("give run=RUN_DIR or ckpt=FILE, one of the two")
        for key, valid in (("which", ("best", "last")), ("weights", ("auto", "raw", "ema"))):
            value = getattr(self, key)
            if value not in valid:
                raise UserError(f'{key}="{value}"{did_you_mean(value, valid)}')


# Ours to decide: the run directory, its loggers and its callbacks hold together.
TRAINER_OURS = {
    "logger",
    "callbacks",
    "default_root_dir",
    "plugins",
    "enable_checkpointing",
    "model_registry",
}
TRAINER_OURS |= {"enable_progress_bar", "enable_model_summary", "use_distributed_sampler", "barebones"}


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Refuse keys that Lightning's Trainer does not have, or that the run decides itself."""
    for key in trainer.keys() - TrainerSettings.__annotations__.keys():
        from pytorch_lightning import Trainer  # seconds to import, and seldom needed here

        valid = set(inspect.signature(Trainer.__init__).parameters) - TRAINER_OURS - {"self"}
        if key in TRAINER_OURS:
            raise UserError(f"trainer.{key} is decided by the run; there is nothing to set")
        if key not in valid:
            raise UserError(
                f"trainer.{key}: Lightning's Trainer has no such argument{did_you_mean(key, valid)}"
            )


def validate(schema: Any, values: Mapping[str, Any]) -> Any:
    """Return ``values`` as a ``schema``.

    Raises:
        UserError: for the first unknown key, wrong type or impossible value, naming the key in full.
    """
    try:
        return TypeAdapter(schema).validate_python(values)
    except ValidationError as error:
        raise UserError(_message(schema, values, error.errors()[0])) from error


def _field_names(schema: Any) -> set[str]:
    """Return the names of all fields reachable from a schema, for hints."""
    names = {f.name for f in fields(schema)} if is_dataclass(schema) else set()
    parts = get_type_hints(schema).values() if names else get_args(schema)
    return names.union(*(_field_names(part) for part in parts))


def _message(schema: Any, values: Mapping[str, Any], error: Any) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    # A union puts its tag into the location; only parts that are keys of the values belong to the path.
    path: list[str] = []
    node: Any = values
    for part in error["loc"]:
        is_key = isinstance(node, Mapping) and part in node
        if is_key or (isinstance(node, list | tuple) and isinstance(part, int)):
            path.append(str(part))
            node = node[part]
    if error["type"] == "missing":
        path.append(str(error["loc"][-1]))
    key = ".".join(path)
    if error["type"] == "unexpected_keyword_argument":
        return f"there is no key {key}{did_you_mean(path[-1], _field_names(schema))}"
    return f"{key}={error.get('input')!r}: {error['msg']}"


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hex digits that identify what is trained: all keys but where results go and who logs them."""
    decisive = {k: v for k, v in config.items() if k not in ("runs_dir", "name", "logger")}
    text = json.dumps(decisive, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
