"""Settings that have no effect beside the others of the same run are refused: their user meant something.

Only what the user set counts, not what a default or a recipe of ours says.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from senet.data.config import FilesConfig
from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.training import launch
from senet.training.config import RunConfig

if TYPE_CHECKING:
    from senet.models import Network

_DECODED = "images that are decoded as they are needed, not a data set held in memory"
_FILES = "image files"
NEEDS = {
    "augment.scale": "augment.crop=random_resized",
    "augment.ratio": "augment.crop=random_resized",
    "augment.pad": "augment.crop=pad",
    "data.sampling.fold": "data.sampling.folds",
    "data.sampling.subset_seed": "data.sampling.fraction or data.sampling.per_class or data.sampling.folds",
    "data.workers": _DECODED,
    "data.decoder": _DECODED,
    "data.max_pixels": _FILES,
    "data.preprocessing.interpolation": "data.preprocessing.resize or augment.crop=random_resized",
    "model.new_classifier": "model.weights",
    "mixing.probability": "mixing.mixup or mixing.cutmix",
    "mixing.mixup": "mixing.probability above 0",
    "mixing.cutmix": "mixing.probability above 0",
    "loss.teacher_share": "loss.teacher",
    "loss.temperature": "loss.teacher",
    "batch_norm.precise_batches": "model.freeze=null, for what is frozen keeps its statistics",
    "ema.epochs": "batch_norm.precise_batches, for BN's statistics are no average of those of other weights",
    "ema.warmup": "ema.decay",
    "optimizer.decay_norm_and_bias": "optimizer.weight_decay above 0",
    "schedule.warmup_start": "schedule.warmup_epochs",
    "schedule.warmup_shape": "schedule.warmup_epochs",
    "schedule.gamma": "schedule.milestones or schedule.drops",
    "schedule.patience": "schedule.drops above 0",
    "schedule.threshold": "schedule.drops above 0",
    "trainer.gradient_clip_algorithm": "trainer.gradient_clip_val",
    "trainer.limit_train_batches": "trainer.overfit_batches=0",
}
"""Key to what it needs for an effect: one of the keys named before a comma, set or as said, or what ``_has`` knows."""


def _has(config: RunConfig, need: str) -> bool:
    """Return whether a run has what one of its keys needs."""
    if need == _DECODED:
        return not config.in_memory
    if need == _FILES:
        return isinstance(config.data, FilesConfig)
    for condition in need.partition(", ")[0].split(" or "):
        key, _, wanted = condition.removesuffix(" above 0").partition("=")
        value = _at(config.values, key)
        if wanted in ("null", "0"):
            found = not value
        else:
            found = value == wanted if wanted else bool(value)
        if found:
            return True
    return False


EVALUATION_READS = (
    *("accelerator", "devices", "num_nodes", "strategy", "precision", "deterministic", "benchmark"),
    *("limit_val_batches", "inference_mode", "profiler"),
)
"""Of the trainer section."""


def keys_of(typed: Iterable[str]) -> set[str]:
    """Return the keys that overrides set."""
    return {override.lstrip("+~").partition("=")[0] for override in typed}


def check_effects(config: RunConfig, typed: Collection[str], configs: Path) -> None:
    """Refuse what the user set and nothing would read.

    Args:
        config: of the run.
        typed: the user's overrides.
        configs: the directory of our configuration files.

    Raises:
        UserError: for the first such key, saying what it needs.
    """
    debug = [o.partition("=")[2] for o in typed if o.startswith("debug=")]
    debugged = _read(configs / f"debug/{debug[-1]}.yaml") if debug else {}  # on top of the user's settings
    mine, values = keys_of(typed), {key: _at(config.values, key) for key in NEEDS}
    # Nobody's default was set by somebody, in a file of his own.
    theirs = {key for key, ours in _shipped(configs).items() if values[key] not in [None, *ours]}
    _refuse_idle(
        config, [key for key in NEEDS if key in mine | theirs and key.partition(".")[0] not in debugged]
    )
    if config.se is not None:
        config.se.check_set(key.removeprefix("se.") for key in mine if key.startswith("se."))
    _check_sizes(config, mine)


def check_typed(config: RunConfig, typed: Iterable[str]) -> None:
    """Refuse overrides that have no effect, whatever else is set.

    Raises:
        UserError: for the first such key, saying what it needs.
    """
    mine = keys_of(typed)
    _refuse_idle(config, [key for key in NEEDS if key in mine])


def _refuse_idle(config: RunConfig, keys: Iterable[str]) -> None:
    for key in keys:
        value = _at(config.values, key)
        off = value in (None, 0, False) and key not in ("data.sampling.fold", "data.workers", "ema.warmup")
        if not off and not _has(config, NEEDS[key]):
            raise UserError(
                f"{key}={json.dumps(value)} has no effect here: it needs {NEEDS[key]}; set that or drop {key}"
            )


def _check_sizes(config: RunConfig, mine: set[str]) -> None:
    """Refuse lengths that do not fit into each other."""
    epochs = config.trainer.get("max_epochs")
    size, augment = config.data.preprocessing.size, config.augment
    if augment.crop == "pad" and augment.pad > size and "augment.pad" in mine:
        raise UserError(f"augment.pad={augment.pad}: a crop of {size} pixels could miss the image altogether")
    if augment.cutout >= 2 * size:
        raise UserError(f"augment.cutout={augment.cutout} always covers all of an image of {size} pixels")
    if epochs in (None, -1):  # the run's length is trainer.max_steps alone
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
    mine, found = keys_of(typed), []
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
    keys = keys_of(typed)
    if {"ckpt", "which"} <= keys:
        raise UserError("which= chooses a checkpoint of run=RUN_DIR; ckpt=FILE is one already: drop which=")
    for key in sorted(keys):
        first, _, rest = key.partition(".")
        if key.startswith("data.preprocessing."):
            raise UserError(
                f"{key}: preprocessing comes with the checkpoint; size= changes the crop, and the resize with it"
            )
        if key.startswith("data.sampling.") or key == "data.on_bad_image":
            raise UserError(f"{key} is for training; it has no effect on an evaluation")
        if first == "trainer" and rest and rest not in EVALUATION_READS:
            raise UserError(f"{key} has no effect on an evaluation; drop it")


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def _read(path: Path) -> Any:
    return OmegaConf.load(path) if path.is_file() else {}


@cache
def _shipped(configs: Path) -> dict[str, list[Any]]:
    """Return the values that our own files give the keys of ``NEEDS``: what a run has without its user's doing."""
    found: dict[str, list[Any]] = {key: [] for key in NEEDS}
    for path in [configs / "train.yaml", *configs.glob("*/*.yaml")]:
        whole = path.parent == configs or path.parent.name in ("recipe", "experiment", "debug")
        values: Any = _read(path) if whole else OmegaConf.create({path.parent.name: _read(path)})
        recipes = (values.get("recipe") or {}).values()
        for key, given in found.items():
            section, _, name = key.partition(".")
            # Values of the form ${oc.select:recipe.step.gamma,0.1} are their default here, where no recipe is.
            given.append(OmegaConf.select(values, key))
            if section in ("optimizer", "schedule"):
                given.extend(recipe.get(name) for recipe in recipes)
    return found
