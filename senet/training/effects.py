"""Settings that have no effect beside the others of the same run are refused: their user meant something.

Only what the user set counts, not what a default or a recipe of ours says.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from senet.data.config import FilesConfig
from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.training import launch
from senet.training.config import RunConfig

if TYPE_CHECKING:
    from senet.models import Network

Works = Callable[[RunConfig], bool]


def _in_memory(config: RunConfig) -> bool:
    return not isinstance(config.data, FilesConfig) or config.data.keeps_in_memory


def _subset(config: RunConfig) -> bool:
    sampling = config.data.sampling
    return any(x is not None for x in (sampling.fraction, sampling.per_class, sampling.folds))


_CROPS: Works = lambda c: c.augment.crop == "random_resized"  # noqa: E731
_FILES = "images that are decoded as they are needed, not a data set held in memory"

NEEDS: dict[str, tuple[Works, str]] = {
    "augment.scale": (_CROPS, "augment.crop=random_resized"),
    "augment.ratio": (_CROPS, "augment.crop=random_resized"),
    "augment.pad": (lambda c: c.augment.crop == "pad", "augment.crop=pad"),
    "data.sampling.fold": (lambda c: c.data.sampling.folds is not None, "data.sampling.folds"),
    "data.sampling.subset_seed": (_subset, "data.sampling.fraction, per_class or folds"),
    "data.workers": (lambda c: not _in_memory(c), _FILES),
    "data.decoder": (lambda c: not _in_memory(c), _FILES),
    "data.max_pixels": (lambda c: isinstance(c.data, FilesConfig), "image files"),
    "data.preprocessing.interpolation": (
        lambda c: c.data.preprocessing.resize is not None or c.augment.crop == "random_resized",
        "data.preprocessing.resize or augment.crop=random_resized",
    ),
    "model.new_classifier": (lambda c: c.model.get("weights") is not None, "model.weights"),
    "mixing.probability": (lambda c: c.mixing.mixup > 0 or c.mixing.cutmix > 0, "mixing.mixup or cutmix"),
    "mixing.mixup": (lambda c: c.mixing.probability > 0, "mixing.probability above 0"),
    "mixing.cutmix": (lambda c: c.mixing.probability > 0, "mixing.probability above 0"),
    **{
        key: (lambda c: c.loss.teacher is not None, "loss.teacher")
        for key in ("loss.teacher_share", "loss.temperature")
    },
    "batch_norm.precise_batches": (
        lambda c: not c.model.get("freeze"),
        "model.freeze=null, for what is frozen keeps its statistics",
    ),
    "ema.epochs": (
        lambda c: c.batch_norm.precise_batches > 0,
        "batch_norm.precise_batches, for BN's statistics are no average of those of other weights",
    ),
    "ema.warmup": (lambda c: c.ema.decay is not None, "ema.decay"),
    "optimizer.decay_norm_and_bias": (
        lambda c: c.optimizer.weight_decay > 0,
        "optimizer.weight_decay above 0",
    ),
    "schedule.warmup_start": (lambda c: c.schedule.warmup_epochs > 0, "schedule.warmup_epochs"),
    "schedule.warmup_shape": (lambda c: c.schedule.warmup_epochs > 0, "schedule.warmup_epochs"),
    "schedule.gamma": (
        lambda c: bool(getattr(c.schedule, "milestones", True) and getattr(c.schedule, "drops", True)),
        "schedule.milestones or drops",
    ),
    "schedule.patience": (lambda c: getattr(c.schedule, "drops", 1) > 0, "schedule.drops above 0"),
    "schedule.threshold": (lambda c: getattr(c.schedule, "drops", 1) > 0, "schedule.drops above 0"),
    "trainer.gradient_clip_algorithm": (
        lambda c: c.trainer.get("gradient_clip_val") is not None,
        "trainer.gradient_clip_val",
    ),
    "trainer.limit_train_batches": (
        lambda c: not c.trainer.get("overfit_batches"),
        "trainer.overfit_batches=0",
    ),
}
"""Key to whether it has an effect, and what it needs for one."""


def check_effects(config: RunConfig, typed: Iterable[str], configs: Path) -> None:
    """Refuse what the user set and nothing would read.

    Args:
        config: of the run.
        typed: the user's overrides.
        configs: the directory of our configuration files.

    Raises:
        UserError: for the first such key, saying what it needs.
    """
    overrides = dict(o.lstrip("+").partition("=")[::2] for o in typed)
    mine = set(overrides) | set(_flat(_read(configs / f"experiment/{overrides.get('experiment')}.yaml")))
    debugged = _read(configs / f"debug/{overrides.get('debug')}.yaml")  # put on top of the user's settings
    shipped = _shipped(configs)
    values = {key: _at(config.values, key) for key in NEEDS if key.partition(".")[0] not in debugged}
    # Nobody's default was set by somebody, in a file of his own.
    _refuse_idle(
        config,
        [k for k, v in values.items() if k in mine or (v is not None and v not in shipped.get(k, [v]))],
    )
    if config.se is not None:
        config.se.check_set(key.removeprefix("se.") for key in overrides if key.startswith("se."))
    _check_sizes(config, mine)


def check_typed(config: RunConfig, typed: Iterable[str]) -> None:
    """Refuse overrides that have no effect, whatever else is set.

    Raises:
        UserError: for the first such key, saying what it needs.
    """
    mine = [override.lstrip("+").partition("=")[0] for override in typed]
    _refuse_idle(config, [key for key in NEEDS if key in mine])


def _refuse_idle(config: RunConfig, keys: Iterable[str]) -> None:
    for key in keys:
        (works, need), value = NEEDS[key], _at(config.values, key)
        off = value in (None, 0, False) and key not in ("data.sampling.fold", "data.workers", "ema.warmup")
        if not off and not works(config):
            raise UserError(
                f"{key}={json.dumps(value)} has no effect here: it needs {need}; set that or drop {key}"
            )


def _check_sizes(config: RunConfig, mine: set[str]) -> None:
    """Refuse lengths that do not fit into each other."""
    epochs = config.trainer.get("max_epochs")
    size, augment = config.data.preprocessing.size, config.augment
    if augment.crop == "pad" and augment.pad > size and "augment.pad" in mine:
        raise UserError(f"augment.pad={augment.pad}: a crop of {size} pixels could miss the image altogether")
    if augment.cutout >= 2 * size:
        raise UserError(f"augment.cutout={augment.cutout} always covers all of an image of {size} pixels")
    if epochs is None:
        return
    warmup = config.schedule.warmup_epochs
    if "schedule.warmup_epochs" in mine and warmup > epochs:
        raise UserError(f"schedule.warmup_epochs={warmup:g} is longer than trainer.max_epochs={epochs}")
    late = [epoch for epoch, _ in config.data.sampling.sizes if epoch >= epochs]
    if late:
        raise UserError(
            f"data.sampling.sizes: epoch {late[0]} is after the last of trainer.max_epochs={epochs}"
        )


def check_batch_norm(config: RunConfig, network: "Network") -> None:
    """Refuse batches of one image where a BatchNorm would see one value per channel. ``network`` has no memory.

    Raises:
        UserError: saying what to change.
    """
    if config.data.batch_size > 1 or (
        config.trainer.get("sync_batchnorm") and launch.world_size(config.trainer) > 1
    ):
        return
    import torch

    pre = config.data.preprocessing
    try:
        network.train()(torch.empty(1, pre.channels, pre.size, pre.size, device="meta"))
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise UserError(
                f"data.batch_size=1: at {pre.size} pixels a BatchNorm of {config.model['name']} sees one value per "
                "channel and cannot train; take 2 or more (trainer.accumulate_grad_batches does not help)"
            ) from error
        raise


def notes(config: RunConfig, network: "Network", typed: Iterable[str]) -> list[str]:
    """Return what is worth a line at the start: settings that do less than they seem to."""
    mine = {o.lstrip("+").partition("=")[0] for o in typed}
    found = []
    if "se.reduction" in mine and config.se is not None and config.se.round_to == 1:
        channels = {block.channels for block in network.se_blocks().values()}
        widths = {c: config.se.hidden_channels(c) for c in channels}
        same = [r for r in range(1, max(channels) + 1) if all(max(1, c // r) == w for c, w in widths.items())]
        if len(same) > 1:
            found.append(f"se.reduction  every r from {same[0]} to {same[-1]} builds this network")
    if launch.world_size(config.trainer) == 1:
        idle = mine & {"trainer.sync_batchnorm", "ranks.check_every_n_steps"}
        found += [f"{key} has no effect with one process" for key in sorted(idle)]
    meant, size = network.input_size, config.data.preprocessing.size
    if size == Preprocessing().size < meant and "data.preprocessing.size" not in mine:
        resize = 352 if meant == 299 else round(meant * 256 / 224)  # 352: the paper, section 5.1
        found.append(
            f"{config.model['name']} is meant for {meant} px and sees {size}: set data.preprocessing.size={meant} "
            f"data.preprocessing.resize={resize}"
        )
    if config.data.batch_size == 1:
        found.append("data.batch_size=1: BatchNorm takes its statistics from single images")
    return found


def check_evaluation(typed: Iterable[str]) -> None:
    """Refuse what an evaluation does not read.

    Raises:
        UserError: for the first such key, saying what to do instead.
    """
    keys = {o.lstrip("+~").partition("=")[0] for o in typed}
    if {"ckpt", "which"} <= keys:
        raise UserError("which= chooses a checkpoint of run=RUN_DIR; ckpt=FILE is one already: drop which=")
    reads = ("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark")
    for key in sorted(keys):
        first, _, rest = key.partition(".")
        if key.startswith("data.preprocessing."):
            raise UserError(
                f"{key}: preprocessing comes with the checkpoint; size= changes the crop, and the resize with it"
            )
        if key.startswith("data.sampling.") or key == "data.on_bad_image":
            raise UserError(f"{key} is for training; it has no effect on an evaluation")
        if (
            first == "trainer"
            and rest
            and rest not in (*reads, "limit_val_batches", "inference_mode", "profiler")
        ):
            raise UserError(f"{key} has no effect on an evaluation; drop it")


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested keys as dotted ones."""
    flat: dict[str, Any] = {}
    for key, value in values.items() if isinstance(values, Mapping) else ():
        inner = _flat(value, f"{prefix}{key}.")
        flat |= inner or {f"{prefix}{key}": value}
    return flat


@cache
def _shipped(configs: Path) -> dict[str, list[Any]]:
    """Return the values that our own files give every key: what a run has without its user's doing."""
    found: dict[str, list[Any]] = {}
    for path in [configs / "train.yaml", *configs.glob("*/*.yaml")]:
        group = path.parent.name
        if group in ("experiment", "search", "launcher", "ablation"):
            continue
        whole = path.name == "train.yaml" or group in ("recipe", "debug")
        values = _flat(_read(path), "" if whole else f"{group}.")
        recipe = {
            f"{part}.{k}": v for part in ("schedule", "optimizer") for k, v in _of_recipe(values).items()
        }
        for key, value in (values | recipe).items():
            # Values of the form ${oc.select:recipe.step.gamma,0.1} end in their default.
            text = str(value)
            default = yaml.safe_load(text.partition(",")[2][:-1]) if text.startswith("${oc.select") else value
            found.setdefault(key, []).append(default)
    return found


def _of_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a recipe gives the optimiser and the schedule of its choice, by its last key."""
    return {key.rpartition(".")[2]: value for key, value in values.items() if key.startswith("recipe.")}
