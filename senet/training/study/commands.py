"""What can be done with a study: run it, look at it, run again what failed, add seeds."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from senet.errors import UserError
from senet.training import launch
from senet.training.config import validate
from senet.training.console import say
from senet.training.entry import configs_directory
from senet.training.rundir import link_latest
from senet.training.study.executors import LauncherConfig, Slot, build_executor, build_slots
from senet.training.study.ledger import DONE, Job, Ledger
from senet.training.study.plan import Request, composing, key_of, parse, plan, plan_points, study_directory
from senet.training.study.runner import Grid, Runner, Source
from senet.training.study.table import show

INTERRUPTED = 130


def main(typed: list[str]) -> int:
    """Run the study that the overrides ``typed`` describe, or what is missing of it; return the exit status."""
    if launch.under_torchrun():
        raise UserError("a study starts the processes of its jobs itself: run it without torchrun")
    configs = configs_directory()
    with composing(configs):
        request = parse(typed)
        _slots(request.launcher, request.base["trainer"])  # refuse wrong ones before anything is written
        if request.base.get("search"):
            from senet.training.study.search import search  # optuna is needed for nothing else

            return search(request, typed)
        ledger = open_ledger(request, typed)
        with ledger.lock():
            jobs = plan(request, ledger)
            ledger.save()
            return execute(ledger, request.launcher, jobs, Grid(jobs))


def open_ledger(request: Request, typed: list[str], name: str | None = None) -> Ledger:
    """Return the ledger of a request's study, known or new; nothing is written yet."""
    path = study_directory(request, name)
    ledger = Ledger.open(path) if (path / "study.json").is_file() else Ledger(path, {})
    ablation: Mapping[str, Any] = request.ablation or {}
    ledger.head |= {
        "name": path.name,
        "ablation": ablation.get("name"),
        "table": ablation.get("table"),
        "baseline": None if request.sweeps else ablation.get("baseline"),
        "command": typed,
        "launcher": request.base["launcher"],
        "trainer": request.base["trainer"],
    }
    return ledger


def execute(ledger: Ledger, launcher: LauncherConfig, jobs: list[Job], source: Source) -> int:
    """Run what ``source`` offers, show how the study stands, return the exit status.

    Args:
        ledger: locked by this process.
        launcher: where jobs run.
        jobs: those that decide whether the study is done.
        source: of jobs.
    """
    link_latest(ledger.path)
    ledger.reconcile(ledger.jobs.values())
    slots = _slots(launcher, ledger.head["trainer"])
    done = sum(job.status in DONE for job in jobs)
    say(f"study     {ledger.path}")
    say(f"jobs      {f'{len(jobs)}, of which {done} are done; ' if jobs else ''}{len(slots)} at once")
    interrupted = Runner(ledger, build_executor(launcher, ledger.path), slots, source).run()
    show(ledger)
    if interrupted:
        say(f"stopped; continue with: train.py -m {shlex.join(ledger.head['command'])}")
        return INTERRUPTED
    return launch.OK if all(job.status in DONE for job in jobs) else launch.FAILED


def _slots(launcher: LauncherConfig, trainer: Mapping[str, Any]) -> list[Slot]:
    launch.check_machines(trainer, int(launcher.parameters.get("nodes", 1)))
    return build_slots(launcher, launch.process_count(trainer), _gpus(trainer))


def _gpus(trainer: Mapping[str, Any]) -> list[str]:
    """Return the GPUs of this machine that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    if launch.accelerator(trainer) not in ("gpu", "cuda"):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def _launcher(ledger: Ledger, typed: list[str]) -> LauncherConfig:
    """Return the launcher the study was last run with, ``launcher.*`` overrides applied."""
    values = dict(ledger.head["launcher"])
    for override in typed:
        key = key_of(override)
        if key not in ("launcher.slots",):
            raise UserError(f"{override}: only launcher.slots=JxD can be set here")
        values["slots"] = override.partition("=")[2]
    config: LauncherConfig = validate(LauncherConfig, values)
    return config


def status(path: Path) -> int:
    """Show how a study stands; return 0 if nothing is missing."""
    ledger = Ledger.open(path)
    ledger.reconcile(ledger.jobs.values())
    show(ledger, report=False)
    return launch.OK if all(job.status in DONE for job in ledger.jobs.values()) else launch.FAILED


def retry(path: Path, typed: list[str]) -> int:
    """Run what is missing, failed or killed, each from its last checkpoint; no configuration is composed again."""
    ledger = Ledger.open(path)
    if "search" in ledger.head:
        raise UserError(f"a search goes on with its command: train.py {' '.join(ledger.head['command'])}")
    with ledger.lock():
        ledger = Ledger.open(path)
        jobs = list(ledger.jobs.values())
        gone = [job.label for job in jobs if not ledger.directory(job).config_file.is_file()]
        if gone:
            raise UserError(f"the run directory of {gone[0]} is gone: run the study's command again")
        return execute(ledger, _launcher(ledger, typed), jobs, Grid(jobs))


def extend(path: Path, typed: list[str]) -> int:
    """Add the seeds of ``seed=...`` to every point of a study and run them."""
    seeds = [o for o in typed if key_of(o) == "seed"]
    if len(seeds) != 1:
        raise UserError("extend adds seeds: senet study extend DIR seed=3,4")
    ledger = Ledger.open(path)
    if "search" in ledger.head:
        raise UserError("a search is extended by its command with a higher search.trials")
    with composing(configs_directory()), ledger.lock():
        ledger = Ledger.open(path)
        jobs = plan_points(list(ledger.points.values()), parse(seeds).seeds, ledger)
        ledger.save()
        launcher = _launcher(ledger, [o for o in typed if o not in seeds])
        return execute(ledger, launcher, jobs, Grid(jobs))
