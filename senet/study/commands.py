"""What can be done with a study: run it, look at it, run again what failed, add seeds, keep it without its weights.

``train.py -m ...`` and ``senet study status|retry|extend|archive DIR``, ``senet study export-wandb OVERRIDES``.
"""

import argparse
import gzip
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from senet.analysis.rows import build_rows, report_columns
from senet.analysis.runs import collect
from senet.errors import UserError
from senet.files import atomically, write_json
from senet.ledger import DONE, Ledger
from senet.plugins import integration
from senet.rundir import RunDir, link_latest
from senet.study.executors import JobSlot, LauncherConfig, build_executor, build_slots
from senet.study.plan import Request, composing, key_of, parse, plan, points_of, study_directory
from senet.study.runner import Runner, Source
from senet.table import Table
from senet.terminal import terminal_width
from senet.training import launch
from senet.training.console import FAILED, OK, say, setup_console, under_torchrun
from senet.training.entry import in_one_line, register_models
from senet.training.validation import validate

INTERRUPTED = 130


def main(typed: list[str]) -> int:
    """Run the study that the overrides ``typed`` describe, or what is missing of it; return the exit status."""
    if under_torchrun():
        raise UserError("a study starts the processes of its jobs itself: run it without torchrun")
    with composing():
        request = parse(typed)
        _slots(request.launcher, request.base["trainer"])  # refuse wrong ones before anything is written
        search = request.search and integration("optuna_search", package="optuna", asked="search=optuna")
        settings = search and search.settings(request)
        with Ledger.locked(study_directory(request)) as ledger:
            ledger.head |= _head(request, ledger, typed)
            if search:
                source = search.Search(settings, request, ledger)
            else:
                source = Source(plan(points_of(request), request.seeds, ledger))
            ledger.save()
            return execute(ledger, request.launcher, source)


def _head(request: Request, ledger: Ledger, typed: list[str]) -> dict[str, Any]:
    """Return what ``study.json`` says of the study as a whole."""
    ablation: Mapping[str, Any] = request.ablation or {}
    return {
        "name": ledger.path.name,
        "ablation": ablation.get("name"),
        "table": ablation.get("table"),
        "baseline": None if request.sweeps else ablation.get("baseline"),
        "command": typed,
        "launcher": request.base["launcher"],
        "trainer": request.base["trainer"],
        **({"search": request.search} if request.search else {}),
    }


def execute(ledger: Ledger, launcher: LauncherConfig, source: Source) -> int:
    """Run what ``source`` offers of a ledger that this process has locked; show how the study stands.

    Returns:
        The exit status.
    """
    link_latest(ledger.path)
    if ledger.path.parent.name == "studies":  # which lies beside the runs
        link_latest(ledger.path, ledger.path.parents[1])
    ledger.reconcile()
    slots = _slots(launcher, ledger.head["trainer"])
    done = sum(job.status in DONE for job in ledger.jobs.values())
    say(f"study     {ledger.path}")
    say(f"jobs      {len(ledger.jobs)}, of which {done} are done; {len(slots)} at once")
    interrupted = Runner(ledger, build_executor(launcher, ledger.path), slots, source).run()
    show(ledger, reported=True)
    if interrupted:
        say(f"stopped; continue with: {_again(ledger)}")
    status = source.conclude()
    return INTERRUPTED if interrupted else status


def show(ledger: Ledger, *, reported: bool = False) -> None:
    """Print the study's table, or with ``reported`` write and print its report, and every job that is not done."""
    if reported and any(job.status == "finished" for job in ledger.jobs.values()):
        from senet.analysis.report import report  # draws: nothing else of a study waits for matplotlib

        say(f"\n{report([ledger.path]).text}")
        say(f"report    {ledger.path / 'report' / 'report.html'}")
    elif ledger.points:  # a search that has drawn nothing has none
        rows = build_rows(collect([ledger.path]), "last")
        say(f"\n{Table(report_columns(rows), rows).text(empty='-', width=terminal_width())}")
    say("")
    left = [job for job in ledger.jobs.values() if job.status not in DONE]
    for job in left:
        reason = f": {job.reason}" if job.reason else ""
        say(f"{job.status}: {job.label}, seed {job.seed}{reason} ({job.run})")
    if left and "search" not in ledger.head:  # whose failed trials are findings
        say(f"{len(left)} of {len(ledger.jobs)} runs are missing; run them with: {_again(ledger)}")


def _again(ledger: Ledger) -> str:
    """Return the command that runs what is missing of a study, its extensions too."""
    if "search" in ledger.head:
        return f"train.py {shlex.join(ledger.head['command'])}"
    return f"senet study retry {shlex.quote(str(ledger.path))}"


def _slots(launcher: LauncherConfig, trainer: Mapping[str, Any]) -> list[JobSlot]:
    launch.check_machines(trainer, launcher.parameters.get("nodes", 1))
    gpus = _gpus(trainer)
    if gpus and launcher.executor == "local" and isinstance(trainer.get("devices"), list):
        raise UserError(
            f"trainer.devices={trainer['devices']}: every job of a study has GPUs of its own: say how many, and "
            "with CUDA_VISIBLE_DEVICES of which"
        )
    return build_slots(launcher, launch.process_count(trainer), gpus)


def _gpus(trainer: Mapping[str, Any]) -> list[str]:
    """Return the GPUs of this machine that jobs may use, as CUDA_VISIBLE_DEVICES names them."""
    if launch.accelerator(trainer) not in ("gpu", "cuda"):
        return []
    count = torch.cuda.device_count()  # CUDA sees none from the first on that there is not
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return visible.split(",")[:count]


def status(path: Path) -> int:
    """Show how a study stands; return 0 if nothing is missing."""
    ledger = Ledger.open(path)
    ledger.reconcile()
    show(ledger)
    return OK if all(job.status in DONE for job in ledger.jobs.values()) else FAILED


def retry(path: Path, typed: list[str]) -> int:
    """Run what is missing, failed or killed, each from its last checkpoint; no configuration is composed again."""
    _refuse_search(path, "goes on with its command: {command}")
    with Ledger.locked(path.resolve()) as ledger:
        jobs = list(ledger.jobs.values())
        gone = [job.label for job in jobs if not ledger.directory(job).config_file.is_file()]
        if gone:
            raise UserError(f"the run directory of {gone[0]} is gone: run the study's command again")
        return execute(ledger, _launcher(ledger, typed), Source(jobs))


def extend(path: Path, typed: list[str]) -> int:
    """Add the seeds of ``seed=...`` to every point of a study and run them."""
    seeds = [o for o in typed if key_of(o) == "seed"]
    if len(seeds) != 1:
        raise UserError("extend adds seeds: senet study extend DIR seed=3,4")
    _refuse_search(path, "is extended by its command with a higher search.trials")
    with composing(), Ledger.locked(path.resolve()) as ledger:
        launcher = _launcher(ledger, [o for o in typed if o not in seeds])
        jobs = plan(list(ledger.points.values()), parse(seeds).seeds, ledger)
        ledger.save()
        return execute(ledger, launcher, Source(jobs))


def _refuse_search(path: Path, text: str) -> None:
    ledger = Ledger.open(path)
    if "search" in ledger.head:
        raise UserError(f"a search {text.format(command=_again(ledger))}")


def _launcher(ledger: Ledger, typed: list[str]) -> LauncherConfig:
    """Return the launcher the study was last run with, its slots as ``typed`` says."""
    values = dict(ledger.head["launcher"])
    for override in typed:
        if key_of(override) != "launcher.slots":
            raise UserError(f"{override}: only launcher.slots=JxD can be set here")
        values["slots"] = override.partition("=")[2]
    config: LauncherConfig = validate(LauncherConfig, values)
    return config


# Without its weights --------------------------------------------------------------------------------------

HERE_ONLY = ("pid", "host", "resumed")
"""What ``run.json`` says of the machine's processes, which is nobody else's business."""


def archive(study: Path, out: Path) -> int:
    """Copy what a study's report is made of to ``out``, from its finished runs; return how many they are.

    It is small enough for a repository, and whole enough for every table, interval and test.
    Per run: configuration, record, summary, metrics by epoch, and the predictions of the last epoch, compressed. What
    lies there of the same run is replaced; ``senet report OUT`` reads it as it reads the study.

    Raises:
        UserError: if no run has finished.
    """
    ledger = Ledger.open(study)
    ledger.reconcile()
    done = [job for job in ledger.jobs.values() if job.status == "finished"]
    if not done:
        raise UserError(f"{study}: no run has finished yet")
    if out.resolve() == ledger.path:
        raise UserError(f"{out} is the study itself: name another directory")
    if Ledger.lies_in(out) and Ledger.open(out).head.get("name") != ledger.head.get("name"):
        raise UserError(
            f"{out} holds another study, {Ledger.open(out).head.get('name')}: name another directory"
        )
    for job in done:
        _archive_run(ledger.directory(job), RunDir(out / job.run))
    for job in ledger.jobs.values():
        job.handle = None
    ledger.path, ledger.file = out, out / ledger.file.name
    ledger.save()
    return len(done)


def _archive_run(run: RunDir, kept: RunDir) -> None:
    predictions = [run.predictions_file("last", weights) for weights in ("raw", "ema")]
    (kept.path / predictions[0].parent.name).mkdir(parents=True, exist_ok=True)
    kept.write_config(run.config() | {"runs_dir": "runs"})  # wherever that was
    # Without validation there are no metrics.
    for file in filter(Path.is_file, (run.summary_file, run.metrics_file)):
        shutil.copyfile(file, kept.path / file.name)
    record = {key: value for key, value in run.record().items() if key not in HERE_ONLY}
    write_json(kept.record_file, record)
    for file in predictions:
        packed = file.with_name(f"{file.name}.gz")
        if file.is_file():
            # No time stamp and no name in it: the same predictions are the same bytes.
            content = gzip.compress(file.read_bytes(), mtime=0)
        elif packed.is_file():  # of an archive that went on as a study
            content = packed.read_bytes()
        else:
            continue
        with atomically(kept.path / file.parent.name / packed.name) as temporary:
            temporary.write_bytes(content)


# Command line -------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    texts = {
        "status": "what is done, what is missing and why",
        "retry": "run what is missing, failed or was killed, from its checkpoints",
        "extend": "add seeds to every point: senet study extend DIR seed=3,4",
        "archive": "copy what its report is made of, without weights: senet study archive DIR OUT",
    }
    for action, text in texts.items():
        command = actions.add_parser(action, help=text, description=text)
        command.add_argument("study", type=Path, metavar="DIR", help="the study's directory")
        if action == "archive":
            command.add_argument("out", type=Path, metavar="OUT", help="a directory, new or of before")
        elif action != "status":
            settable = "seed=..., launcher.slots=JxD"
            command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=settable)
    text = "print a sweep file for `wandb sweep`, from lists of values: lr=0.1,0.2, or search=optuna's space"
    command = actions.add_parser("export-wandb", help=text, description=text)
    command.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as for train.py")
    command.add_argument("--method", default="grid", choices=["grid", "random", "bayes"])


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked; return the exit status."""
    setup_console()
    register_models()
    with in_one_line():
        if arguments.action == "status":
            return status(arguments.study)
        if arguments.action == "retry":
            return retry(arguments.study, arguments.overrides)
        if arguments.action == "archive":
            say(f"{archive(arguments.study, arguments.out)} finished runs in {arguments.out}")
            return OK
        if arguments.action == "extend":
            return extend(arguments.study, arguments.overrides)
        wandb = integration("wandb_sweep", package="wandb", asked="export-wandb")
        print(wandb.export(arguments.overrides, arguments.method), end="")
        return OK
