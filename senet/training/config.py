"""The schema of a run: every key there is, its type, its default and what it does."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, Required, Self, cast, get_args

from pydantic import ConfigDict, with_config
from pydantic.dataclasses import dataclass
from typing_extensions import TypedDict

from senet.data import AnyDataConfig, AugmentConfig
from senet.data.config import FilesConfig
from senet.errors import UserError
from senet.kernels import Kernels
from senet.models.families import STARTING, check_options
from senet.nn import SEConfig
from senet.ranges import Between, Count, Natural, Seed, ShareBelowOne, Side, Workers
from senet.training import launch
from senet.training.objective import LossConfig, MixConfig
from senet.training.optimizers import AnyOptimizer
from senet.training.schedules import AnySchedule, Progress
from senet.training.sections import LoggerConfig, TrainerSettings
from senet.training.validation import validate
from senet.weights.checkpoint import Averaging

AVERAGING = get_args(Averaging)
_CLOSED = ConfigDict(extra="forbid")


@with_config(extra="allow")
class ModelSettings(TypedDict, total=False):
    """The network, and the options of its family.

    Attributes:
        name: which network.
        weights: to start from: timm:NAME.TAG, torchvision:ENUM.NAME, caffe:FILE, a file or a run directory.
        new_classifier: start the classifier anew, though the weights have one of as many classes.
        freeze: the last stage that stands still, with all before it; stages are numbered as in the paper.
        drop_path: the rate of stochastic depth in the last block; the others' rise to it.
        dropout: before the classifier.
        stride_on: which convolution of a bottleneck has the stride: "1x1", the paper's, or "3x3", torchvision's.
        stem_pool: max pooling of the stem: "ceil", the paper's, or "pad", torchvision's.
        zero_channels: where a CIFAR ResNet's shortcut gets its new channels, zeros: "behind" the old ones or on "both"
            sides of them.
        branch_relu: a ReLU at the end of the residual branch, before SE: for timm's legacy_seresnet18 and 34 alone.
        timm_name: of timm's network, for model=timm and model=se_timm.
        pretrained: start from timm's weights.
    """

    name: Required[str]
    weights: str | None
    new_classifier: bool
    freeze: Natural | None
    drop_path: ShareBelowOne
    dropout: ShareBelowOne
    stride_on: Literal["1x1", "3x3"]
    stem_pool: Literal["ceil", "pad"]
    zero_channels: Literal["behind", "both"]
    branch_relu: bool
    timm_name: str | None
    pretrained: bool


class Composed:
    """A configuration made of plain values, which it carries along: they are what is stored and hashed."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check ``values`` and return them as a configuration.

        Raises:
            UserError: for the first unknown key, wrong type or impossible value, naming the key in full.
        """
        config: Self = validate(cls, values)
        vars(config)["_values"] = dict(values)
        return config

    @property
    def values(self) -> dict[str, Any]:
        """The plain values that this configuration was made of."""
        values: dict[str, Any] = vars(self)["_values"]
        return values

    @property
    def hash(self) -> str:
        """12 hex digits that identify what is trained."""
        return config_hash(self.values)

    @property
    def identity(self) -> str:
        """What all ranks of a job must have in common, in one line."""
        return f"config {self.hash}"


@dataclass(frozen=True, config=_CLOSED)
class BatchNormConfig:
    """BatchNorm in training.

    Attributes:
        frozen_from: share of the run from which on BN normalises with its running statistics and keeps them, its
            weights and biases, as in the last epochs of SENet-154 (paper, appendix); ``None`` for never.
        precise_batches: before every evaluation the running statistics become the mean over so many batches of
            training images on each device (PreciseBN, arXiv 2105.07576); 0 keeps the moving average.
    """

    frozen_from: Between | None = None
    precise_batches: Natural = 0

    def __post_init__(self) -> None:
        if self.frozen_from is not None and self.precise_batches:
            raise UserError(
                "batch_norm: precise_batches estimates anew what frozen_from keeps: set one of them alone"
            )

    def frozen(self, at: Progress) -> bool:
        """Whether BN stands still now: a function of the progress alone, so that a resume need not know."""
        return self.frozen_from is not None and at.share >= self.frozen_from


@dataclass(frozen=True, config=_CLOSED)
class EmaConfig:
    """Average of the weights, evaluated and saved beside the raw ones.

    Attributes:
        decay: per step, of an exponential moving average; ``None`` for none.
        epochs: instead of ``decay``: the equal average of the weights after each of the last so many epochs (SWA,
            Izmailov et al. 2018, arXiv 1803.05407); before them it is the raw weights.
        warmup: start from a short memory, ``1 - (1 + step) ** (-2/3)`` while that is below ``decay``.
    """

    decay: Between | None = None
    warmup: bool = True
    epochs: Count | None = None

    def __post_init__(self) -> None:
        if self.decay is not None and self.epochs is not None:
            raise UserError("ema: decay and epochs are two kinds of average: set one of them alone")


@dataclass(frozen=True, config=_CLOSED)
class CheckpointConfig:
    """When checkpoints are written: always ``best`` and ``last`` after each validation.

    Attributes:
        every_n_steps: write ``last`` also every so many optimiser steps; ``None`` for never.
    """

    every_n_steps: Count | None = None


@dataclass(frozen=True, config=_CLOSED)
class RanksConfig:
    """Agreement of the processes of a run.

    Attributes:
        check_every_n_steps: optimiser steps between comparisons of all ranks' weights.
    """

    check_every_n_steps: Count = 200


@dataclass(frozen=True, config=_CLOSED)
class RunConfig(Composed):
    """One training run.

    Attributes:
        seed: of every random stream.
        name: of the run, part of its directory's name.
        runs_dir: where run directories are made.
        model: ``name``, the options of ``create_model``, ``weights`` to start from (see ``senet.weights``),
            ``new_classifier`` to start that anew, ``freeze``, the last stage that stands still, and ``drop_path``, the
            rate of stochastic depth.
        se: the SE blocks; ``None`` for a plain network.
        data: which images.
        augment: training augmentation.
        mixing: mixup and CutMix.
        optimizer: optimiser and learning rate.
        schedule: of the learning rate.
        loss: loss function.
        batch_norm: frozen at the end, or estimated anew.
        ema: average of the weights.
        checkpoint: when to save.
        ranks: how often the ranks are compared.
        channels_last: NHWC memory layout, faster in most cases.
        compile: ``torch.compile`` the network in place.
        kernels: the residual tail's implementation: "auto" takes the fused one where it pays, "eager", "triton".
        fit_memory: at out-of-memory, halve ``data.batch_size`` and double ``trainer.accumulate_grad_batches``.
        trainer: arguments of Lightning's Trainer, under Lightning's names.
        logger: which loggers.
    """

    seed: Seed
    name: str
    runs_dir: str
    model: ModelSettings
    se: SEConfig | None
    data: AnyDataConfig
    augment: AugmentConfig
    mixing: MixConfig
    optimizer: AnyOptimizer
    schedule: AnySchedule
    loss: LossConfig
    ema: EmaConfig
    trainer: TrainerSettings
    logger: LoggerConfig
    batch_norm: BatchNormConfig = field(default_factory=BatchNormConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)
    channels_last: bool = True
    compile: bool = False
    kernels: Kernels = "auto"
    fit_memory: bool = False

    def __post_init__(self) -> None:
        epochs = self.trainer.get("max_epochs", 1)
        if epochs in (None, -1) and self.trainer.get("max_steps", -1) == -1:
            raise UserError(
                f"trainer.max_epochs={epochs} has no end: set trainer.max_epochs or trainer.max_steps to 1 or more; "
                "the learning rate's schedule needs to know it"
            )
        check_options(self.model["name"], self.model_options)

    @property
    def global_batch(self) -> int:
        """Images of one optimiser step, over all machines, devices and accumulated batches."""
        accumulated = int(self.trainer.get("accumulate_grad_batches") or 1)
        return self.data.batch_size * launch.world_size(self.trainer) * accumulated

    def with_smaller_batches(self) -> "RunConfig | None":
        """Return the same run with batches of half the size and twice as many a step; None if they are odd."""
        half, odd = divmod(self.data.batch_size, 2)
        if odd:
            return None
        data, trainer = dict(self.values["data"]), dict(self.values["trainer"])
        data["batch_size"] = half
        trainer["accumulate_grad_batches"] = 2 * int(trainer.get("accumulate_grad_batches") or 1)
        return RunConfig.of({**self.values, "data": data, "trainer": trainer})

    @property
    def in_memory(self) -> bool:
        """Whether the data set is held in memory, decoded."""
        return not isinstance(self.data, FilesConfig) or self.data.keeps_in_memory

    @property
    def model_options(self) -> dict[str, Any]:
        """The options of ``create_model`` alone."""
        return {k: v for k, v in self.model.items() if k not in ("name", *STARTING)}


@dataclass(frozen=True, config=_CLOSED)
class EvalConfig(Composed):
    """One evaluation.

    Attributes:
        run: run directory whose checkpoint is evaluated.
        ckpt: checkpoint file, instead of ``run``.
        which: "best" or "last" checkpoint of ``run``.
        weights: of a checkpoint "raw", "ema", or "auto" for those it was chosen by; or instead of ``run`` and ``ckpt``
            what ``model.weights`` takes: timm:NAME.TAG, torchvision:ENUM.NAME, caffe:FILE, a FILE or folder; or
            several, with --bulk.
        data: another data set than the one stored; ``None`` keeps the stored one.
        root: the stored data set at another place.
        size: crop size in pixels, if not the stored one; the resize scales with it.
        batch_size: images per device and step; ``None`` takes the stored one.
        workers: processes that decode images; ``None`` takes the stored number.
        output: directory of the results; ``None`` makes one beside the checkpoint.
        trainer: arguments of Lightning's Trainer.
    """

    trainer: TrainerSettings
    run: str | None = None
    ckpt: str | None = None
    which: Literal["best", "last"] = "best"
    weights: str = "auto"
    data: AnyDataConfig | None = None
    root: str | None = None
    size: Side | None = None
    batch_size: Count | None = None
    workers: Workers | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        if (self.run is not None) + (self.ckpt is not None) + (self.spec is not None) != 1:
            hint = "" if self.spec is None else f' (weights="{self.spec}" is none of {", ".join(AVERAGING)})'
            raise UserError(f"give run=RUN_DIR, ckpt=FILE or weights=SPEC, one of them{hint}")
        if self.trainer.get("limit_val_batches") == 0:
            raise UserError("trainer.limit_val_batches=0 leaves no image to evaluate")

    @property
    def spec(self) -> str | None:
        """The weights that are evaluated instead of a run's or a checkpoint's."""
        return None if self.weights in AVERAGING else self.weights

    @property
    def averaging(self) -> Averaging:
        """Which of a checkpoint's weights are evaluated."""
        return cast(Averaging, self.weights) if self.spec is None else "auto"


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 12 hex digits that identify what is trained: all keys but where results go and who logs them."""
    decisive = {k: v for k, v in config.items() if k not in ("runs_dir", "name", "logger")}
    text = json.dumps(decisive, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
