"""``senet reproduce TABLE``: plan a table of the paper, run it as a study, end with ours beside theirs."""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from senet.errors import UserError, did_you_mean
from senet.training import launch
from senet.training.callbacks.progress import readable
from senet.training.config import RunConfig, validate
from senet.training.console import say, setup_console
from senet.training.entry import check_run, configs_directory, in_one_line, register_models
from senet.training.rundir import RunDir
from senet.training.study import commands
from senet.training.study.plan import Request, compose_run, composing, key_of, parse, points_of

CIFAR_TABLES = ("T4", "T5")
NETWORK_TABLES = ("T2", *CIFAR_TABLES)
TIERS: dict[str, list[str]] = {
    "digits": [],
    "cifar10": ["data=cifar10", "recipe=cifar"],
    "imagefolder": ["data=imagefolder", "model=se_resnet50", "recipe=paper_ablation", "se=ablation"],
    "imagenet": ["data=imagenet", "model=se_resnet50", "recipe=paper_ablation", "se=ablation"],
}
"""What each tier sets; anything typed after it wins."""


@dataclass(frozen=True)
class Settings:
    """How the paper's figures of a table came about (v4, sections 5 and 6)."""

    data: str
    network: str
    epochs: str
    batch: str
    rate: str
    runs: str = "1"


_ABLATION = Settings(
    "ImageNet-1k", "SE-ResNet-50", "about 300", "not stated", "0.1, divided by 10 on plateaus, 3 times"
)
PAPER = {
    "T2": Settings("ImageNet-1k", "those of the table", "100", "1024", "0.6, divided by 10 every 30 epochs"),
    "T4": Settings(
        "CIFAR-10", "those of the table", "as the cited papers", "as the cited papers", "as the cited papers"
    ),
    "T5": Settings(
        "CIFAR-100", "those of the table", "as the cited papers", "as the cited papers", "as the cited papers"
    ),
} | {f"T{number}": _ABLATION for number in range(10, 17)}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("table", metavar="TABLE", help=f"of version 4 of the paper: {', '.join(PAPER)}")
    parser.add_argument(
        "--tier", default="digits", choices=list(TIERS), help="data and size (default: %(default)s)"
    )
    parser.add_argument("--plan", action="store_true", help="print the plan and stop")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py, e.g. seed=0,1,2")
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]  # options between overrides


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; unless that is all that is wanted, run or resume it. Return the exit status."""
    setup_console()
    register_models()
    with in_one_line():
        table = arguments.table.upper()
        if table not in PAPER:
            raise UserError(f'there is no table "{arguments.table}" here{did_you_mean(table, PAPER)}')
        typed = overrides_of(table, arguments.tier, arguments.overrides)
        with composing(configs_directory()):
            request = parse(typed)
            describe(table, request)
        if arguments.plan:
            say(f"run it with: train.py -m {' '.join(typed)}")
            return launch.OK
        return commands.main(typed)


def overrides_of(table: str, tier: str, typed: list[str]) -> list[str]:
    """Return the overrides of the study that answers a table's question in a tier.

    Raises:
        UserError: for a table of CIFAR networks in a tier of other images.
    """
    own, ablation = list(TIERS[tier]), _ablations()[table]
    large = tier in ("imagefolder", "imagenet")
    if table in CIFAR_TABLES and large:
        raise UserError(f"{table} is of networks for images of 32 pixels: use --tier cifar10 or digits")
    if table in NETWORK_TABLES:  # they bring their networks, and the main recipe, whose SE layers have biases
        own = [o for o in own if not o.startswith(("model=", "se="))]
        own = ["recipe=paper" if o == "recipe=paper_ablation" else o for o in own]
        own = ["data=cifar100" if table == "T5" and o == "data=cifar10" else o for o in own]
        if tier == "digits" or (table == "T2" and not large):
            ablation = "networks_small"
    elif table == "T15" and not large:  # SE_3x3 needs bottlenecks
        own.append("model=se_preact_resnet164")
    keys = {key_of(o) for o in typed}
    return [f"ablation={ablation}", *(o for o in own if key_of(o) not in keys), *typed]


def _ablations() -> dict[str, str]:
    """Return the ablation of every table, from the configuration files."""
    files = sorted((configs_directory() / "ablation").glob("*.yaml"))
    tables = {yaml.safe_load(file.read_text())["ablation"]["table"]: file.stem for file in files}
    return {table: name for table, name in tables.items() if table}


def describe(table: str, request: Request) -> None:
    """Print runs, recipe, differences from the paper and the cost. Must be called while ``composing``."""
    runs = {
        point.label: compose_run([*point.overrides, f"seed={request.seeds[0]}"])
        for point in points_of(request)
    }
    first = next(iter(runs.values()))
    say(f"table     {table} of the paper (v4)")
    say(f"runs      {len(runs) * len(request.seeds)}: {len(request.seeds)} of each: {', '.join(runs)}")
    for name, paper, ours in differences(table, request, first):
        say(f"{name:9} {ours}; paper: {paper}")
    training, start = (seconds * len(request.seeds) for seconds in estimate(list(runs.values())))
    say(
        f"cost      about {readable(training + start)}, one job at a time: {readable(training)} of training and "
        f"{readable(start)} of starting, from a short probe on this machine"
    )


def differences(table: str, request: Request, values: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return what is set here beside what the paper says: (name, paper, ours)."""
    config: RunConfig = validate(RunConfig, values)
    paper = PAPER[table]
    batch = launch.global_batch(config.data.batch_size, config.trainer)
    rate = f"{config.optimizer.scaled_lr(batch):g} ({config.optimizer.name}, {config.schedule.name})"
    return [
        ("data", paper.data, config.data.name),
        (
            "network",
            paper.network,
            str(request.base["model"]["name"]) if paper is _ABLATION else "those above",
        ),
        ("epochs", paper.epochs, str(config.trainer.get("max_epochs"))),
        ("batch", paper.batch, str(batch)),
        ("lr", paper.rate, rate),
        ("seeds", paper.runs, str(len(request.seeds))),
    ]


def estimate(runs: list[dict[str, Any]]) -> tuple[float, float]:
    """Return seconds of training and of starting all runs: one is measured, the others go by their MACs.

    The probe's epochs are short, so that this errs on the high side.
    """
    from senet.models import count_macs

    macs = []
    for values in runs:
        config, network = check_run(values)
        macs.append(count_macs(network, 3, config.data.preprocessing.size))
    probed = min(range(len(runs)), key=macs.__getitem__)
    found = probe(runs[probed])
    epochs = int(runs[probed]["trainer"]["max_epochs"])
    return sum(m / macs[probed] for m in macs) * epochs * found.images / found.rate, len(runs) * found.start


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
    from senet.training.study.executors import LocalProcesses, Slot

    trainer = values["trainer"] | {"max_epochs": 3, "limit_train_batches": steps, "limit_val_batches": 1}
    with tempfile.TemporaryDirectory() as folder:
        logger = {"wandb": None, "tensorboard": False}
        config = {**values, "trainer": trainer, "runs_dir": folder, "logger": logger}
        record = {"title": "probe", "status": "starting", "seed": values["seed"]}
        directory = RunDir.create(Path(folder), "probe", config, record)
        local = LocalProcesses()
        began = time.monotonic()
        handle = local.submit(directory.path, Slot())
        try:
            while local.poll(handle) is None:
                time.sleep(0.2)
        finally:
            local.stop(handle, now=True)
        if not directory.summary_file.is_file():
            raise UserError(f"the probe failed: {directory.record().get('error') or 'see its output'}")
        seconds = time.monotonic() - began
        summary = json.loads(directory.summary_file.read_text())
    rate = float(summary["images_per_second"])
    start = max(0.0, seconds - summary["samples_seen"] / rate)
    return Probe(rate, int(summary["data"]["train_images"]), start)
