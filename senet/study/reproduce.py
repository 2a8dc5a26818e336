"""``senet reproduce TABLE``: plan a table of the paper, run it as a study, end with ours beside theirs."""

import argparse
import shlex
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from senet.analysis.paper import CLASSIFICATION_TABLES, OTHER_TABLES, PaperRecipe, paper_recipe
from senet.errors import UserError, did_you_mean
from senet.files import configs_directory
from senet.rundir import RunDir
from senet.study import commands
from senet.study.executors import job_environment, start_job
from senet.study.plan import Request, compose_run, composing, key_of, parse, points_of
from senet.training.callbacks.progress import readable
from senet.training.config import RunConfig
from senet.training.console import OK, say, setup_console
from senet.training.entry import check_run, in_one_line, register_models

CIFAR_TABLES = ("T4", "T5")
SENET154_TABLES = ("T8", "T9")
NETWORK_TABLES = ("T2", "T3", "T6", *CIFAR_TABLES, *SENET154_TABLES)
"""Tables whose rows are networks, each with its recipe."""
OTHER_DATA = {("T5", "cifar10"): "cifar100", ("T6", "imagenet"): "places365"}
"""The data of a table's networks in a tier, where they are not the tier's own."""
TIERS: dict[str, list[str]] = {
    "digits": [],
    "cifar10": ["data=cifar10", "recipe=cifar"],
    "imagefolder": ["data=imagefolder", "model=se_resnet50", "recipe=paper_ablation", "se=ablation"],
    "imagenet": ["data=imagenet", "model=se_resnet50", "recipe=paper_ablation", "se=ablation"],
}
"""What each tier sets; anything typed after it wins."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    tables = ", ".join(CLASSIFICATION_TABLES)
    parser.add_argument("table", metavar="TABLE", help=f"of version 4 of the paper: {tables}")
    parser.add_argument(
        "--tier", default="digits", choices=list(TIERS), help="data and size (default: %(default)s)"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and stop; needs no data")
    parser.add_argument(
        "--probe", action="store_true", help="train a few steps of the smallest network, to estimate the time"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py, e.g. seed=0,1,2")
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]  # options between overrides


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; unless that is all that is wanted, run or resume it. Return the exit status."""
    setup_console()
    register_models()
    with in_one_line():
        table = arguments.table.upper()
        if table in OTHER_TABLES:
            raise UserError(f"{table} {OTHER_TABLES[table]}")
        if table not in CLASSIFICATION_TABLES:
            raise UserError(
                f'there is no table "{arguments.table}" here{did_you_mean(table, CLASSIFICATION_TABLES)}'
            )
        typed = overrides_of(table, arguments.tier, arguments.overrides)
        with composing():
            describe(table, parse(typed), probing=arguments.probe)
        if arguments.plan:
            say(f"run it with: train.py -m {shlex.join(typed)}")
            return OK
        return commands.main(typed)


def overrides_of(table: str, tier: str, typed: list[str]) -> list[str]:
    """Return the overrides of the study that answers a table's question in a tier.

    Raises:
        UserError: for a table of CIFAR networks in a tier of other images, or of SENet-154 in one of small ones.
    """
    own, ablation = list(TIERS[tier]), _ablations()[table]
    large = tier in ("imagefolder", "imagenet")
    if table in CIFAR_TABLES and large:
        raise UserError(f"{table} is of networks for images of 32 pixels: use --tier cifar10 or digits")
    if table in SENET154_TABLES and not large:
        raise UserError(f"{table} is of SENet-154, for large images: use --tier imagenet or imagefolder")
    if table in NETWORK_TABLES and (tier == "digits" or not (large or table in CIFAR_TABLES)):
        ablation = "networks_small"
    elif table in NETWORK_TABLES:  # they bring their networks, with biases in SE, and each its recipe
        own = [f"data={OTHER_DATA.get((table, tier), tier)}"]
    elif table == "T15" and not large:  # SE_3x3 needs bottlenecks
        own.append("model=se_preact_resnet164")
    keys = {key_of(o) for o in typed}
    return [f"ablation={ablation}", *(o for o in own if key_of(o) not in keys), *typed]


def _ablations() -> dict[str, str]:
    """Return the ablation of every table, from the configuration files."""
    files = sorted((configs_directory() / "ablation").glob("*.yaml"))
    return {str(OmegaConf.load(file).ablation.table): file.stem for file in files}


def describe(table: str, request: Request, *, probing: bool) -> None:
    """Print the runs, and for those trained alike the recipe and how it differs from the paper's.

    Needs no data, unless ``probing`` for the time. Must be called while ``composing``.
    """
    points, seeds = points_of(request), len(request.seeds)
    runs = {point.label: compose_run([*point.overrides, f"seed={request.seeds[0]}"]) for point in points}
    alike: dict[tuple[str, ...], list[str]] = {}
    biases: set[str] = set()
    for point in points:
        config, _ = check_run(runs[point.label], None)
        if config.se is not None and config.se.reads("bias"):
            biases.add("with" if config.se.bias else "without")
        name = next(
            (o.partition("=")[2] for o in reversed(point.overrides) if key_of(o) == "recipe"), "quick"
        )
        lines = _settings(name, config, paper_recipe(table, config.model["name"]))
        alike.setdefault(tuple(lines), []).append(point.label)
    say(f"table     {table} of the paper (v4)")
    say(f"runs      {len(runs) * seeds}: {seeds} of each: {', '.join(runs)}; paper: 1 of each")
    theirs = "with" if paper_recipe(table, runs[points[0].label]["model"]["name"]).biases else "without"
    say(f"SE        {' and '.join(sorted(biases))} biases; paper: {theirs}")
    for shared, labels in alike.items():
        if len(alike) > 1:
            say(f"\n{', '.join(labels)}")
        for line in shared:
            say(line)
    if probing:
        training, start = (seconds * seeds for seconds in estimate(list(runs.values())))
        say(
            f"cost      about {readable(training + start)}, one job at a time: {readable(training)} of training "
            f"and {readable(start)} of starting, from a short probe on this machine"
        )


def _settings(recipe: str, config: RunConfig, paper: PaperRecipe) -> list[str]:
    """Return a line for each setting of a run, and what the paper has for it."""

    def line(name: str, ours: object, theirs: object, *, same: bool) -> str:
        return f"{name:9} {ours}; " + ("as in the paper" if same else f"paper: {theirs}")

    def crop(size: int, resize: int | None) -> str:
        return f"{size} of {resize} px" if resize else f"{size} px"

    pre, batch, epochs = config.data.preprocessing, config.global_batch, config.trainer.get("max_epochs")
    optimizer, smoothing = config.optimizer, config.loss.label_smoothing
    rate = f"{optimizer.scaled_lr(batch):g}"
    if optimizer.lr_batch not in (None, batch):
        rate += f" = {optimizer.lr:g} at a batch of {optimizer.lr_batch}"
    times, rest = divmod(paper.batch or 0, batch)
    more = times * int(config.trainer.get("accumulate_grad_batches") or 1)
    reached = f" (trainer.accumulate_grad_batches={more} makes it)" if times > 1 and not rest else ""
    lines = [
        f"recipe    {recipe}: configs/recipe/{recipe}.yaml says its source and what is assumed",
        line("data", config.data.name, paper.data, same=False),
        line("crop", crop(pre.size, pre.resize), crop(paper.size, paper.resize),
             same=(pre.size, pre.resize) == (paper.size, paper.resize)),
        line("batch", f"{batch} = {config.data.batch_size} x {batch // config.data.batch_size}",
             f"{paper.batch}{reached}" if paper.batch else "not stated", same=batch == paper.batch),
        line("lr", f"{rate} ({optimizer.name}, {config.schedule.name})", f"{paper.lr:g}, {paper.schedule}", same=False),
        line("epochs", epochs, paper.epochs or "not stated", same=epochs == paper.epochs),
        line("decay", f"{optimizer.weight_decay:g} of the weights", "not stated", same=False),
        line("smoothing", f"{smoothing:g} of the labels",
             "yes, how much is not stated" if paper.smoothing else "not mentioned", same=False),
    ]  # fmt: skip
    return [*lines, f"note      {paper.note}"] if paper.note else lines


def estimate(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Return seconds of training and of starting all runs: one is measured, the others go by MACs and length.

    The probe's epochs are short, so that this errs on the high side.
    """
    from senet.models import count_macs

    checked = [check_run(values) for values in runs]
    macs = [count_macs(network, 3, config.data.preprocessing.size) for config, network in checked]
    least = min(macs)
    found = probe(runs[macs.index(least)])
    images = [
        m / least * _trained_images(config, found.images)
        for m, (config, _) in zip(macs, checked, strict=True)
    ]
    return sum(images) / found.rate, len(runs) * found.start


def _trained_images(config: RunConfig, epoch: int) -> int:
    """Return the images of a run whose epochs have so many: of its epochs, or of its steps if they end before."""
    epochs, steps = config.trainer.get("max_epochs") or -1, config.trainer.get("max_steps", -1)
    return min(count for count in (epochs * epoch, steps * config.global_batch) if count > 0)


class Probe(NamedTuple):
    """What a short run showed: images/s, images of an epoch, and the seconds it took beside training."""

    rate: float
    images: int
    start: float


def probe(values: dict[str, Any], steps: int = 8) -> Probe:
    """Train thrice a few steps in processes of their own.

    Raises:
        UserError: if that fails.
    """
    trainer = values["trainer"] | {"max_epochs": 3, "limit_train_batches": steps, "limit_val_batches": 1}
    with tempfile.TemporaryDirectory() as folder:
        logger = {"wandb": None, "tensorboard": False}
        config = {**values, "trainer": trainer, "runs_dir": folder, "logger": logger}
        record = {"title": "probe", "status": "starting", "seed": values["seed"]}
        directory = RunDir.create(Path(folder), "probe", config, record)
        began = time.monotonic()
        start_job(directory.path, job_environment()).wait()  # it ends with this process, too
        if not directory.summary_file.is_file():
            raise UserError(f"the probe failed: {directory.record().get('error') or 'see its output'}")
        seconds = time.monotonic() - began
        summary = directory.summary()
    rate = float(summary["images_per_second"])
    start = max(0.0, seconds - summary["samples_seen"] / rate)
    return Probe(rate, int(summary["data"]["train_images"]), start)
