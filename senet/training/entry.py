"""From the command line to a job: Hydra composes, this module checks what was composed and starts it.

Only this file and ``study/plan.py`` know Hydra. ``--help`` and a misspelt key are answered without torch, which takes
seconds to import: what needs it is imported where a job begins.
"""

import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from senet.errors import UserError, did_you_mean, in_a_line
from senet.files import configs_directory
from senet.models.families import STARTING, foreign_names, is_se, model_names, model_options
from senet.nn.config import SEConfig
from senet.rundir import RunDir, checkpoint_path
from senet.terminal import complain
from senet.training.bulk import bulk_arguments, evaluate_all
from senet.training.console import FAILED, MISUSED, OK, rank, say, setup_console, under_torchrun
from senet.training.mistakes import explain, refuse_hydras_own
from senet.training.sections import TrainerSection
from senet.training.validation import validate

if TYPE_CHECKING:
    from senet.models import Network
    from senet.training.config import EvalConfig, RunConfig

Config = TypeVar("Config", "RunConfig", "EvalConfig")

RESUMABLE = ("trainer.", "data.root", "data.file", "data.workers", "data.batch_size", "checkpoint.")
"""What may change when a run is resumed, but not the images of a step; all else would make it another run."""

MULTIRUN = ("-m", "--multirun")
STUDY_SECTIONS = ("ablation", "search", "launcher")
"""Sections that say what a study runs and where; no run's own configuration has them."""


def register_models() -> None:
    """Make every network of the zoo a choice of the config group ``model``, its options as keys."""
    store = ConfigStore.instance()
    for name in (*model_names(), *foreign_names()):
        options = STARTING | model_options(name)
        se = SEConfig().to_dict() if is_se(name) else None
        store.store(name, {"model": {"name": name, **options}, "se": se}, group="model", package="_global_")


def command_line(main: Callable[[], None], study: Callable[[list[str]], int] | None = None) -> None:
    """Run a Hydra entry point; a mistake becomes one line on stderr and exit status 2.

    What asks for many runs goes to ``study``: Hydra's own multirun is started again by every rank.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit; we want the exception
    setup_console()
    register_models()
    with in_one_line():
        refuse_hydras_own(sys.argv[1:])
        if _asks_for_study(sys.argv[1:]):
            if study is None:
                raise UserError("-m: this program does one thing at a time")
            sys.exit(study([a for a in sys.argv[1:] if a not in MULTIRUN]))
        sys.argv[1:] = bulk_arguments(sys.argv[1:])
        with _filled():
            main()


@contextmanager
def _filled() -> Iterator[None]:
    """Break the page of ``--help`` at 80 columns: Hydra has a line for all choices of a group."""
    page = io.StringIO()
    try:
        with redirect_stdout(page) if {"--help", "-h"} & {*sys.argv} else nullcontext():
            yield
    finally:
        for line in page.getvalue().splitlines():
            print(textwrap.fill(line, 80, subsequent_indent="  ") if len(line) > 80 else line)


@contextmanager
def in_one_line() -> Iterator[None]:
    """End a mistake with one line on stderr and exit status 2."""
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error))
    except OSError as error:
        _fail(in_a_line(error))
    except ValueError as error:
        if not str(error).startswith("Config group override"):  # Hydra's word for GROUP=null or GROUP=1
            raise
        _fail(explain(error))


def _asks_for_study(arguments: list[str]) -> bool:
    if any(a in ("--help", "-h", "--cfg", "-c", "--info", "-i") for a in arguments):
        return False
    return any(a in MULTIRUN or (a.startswith("search=") and a != "search=null") for a in arguments)


def _fail(message: str) -> None:
    complain(f"error: {message}")
    sys.exit(MISUSED)


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain containers, everything resolved.

    ``recipe`` only holds the values that the optimiser and the schedule of its own choice refer to.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    for section in (values.get("optimizer", {}), values.get("schedule", {})):
        name = section.get("name") if isinstance(section, Mapping) else None
        given = values.get("recipe", {}).get(name, {}) if isinstance(name, str) else {}
        for key in given.keys() - section.keys():
            raise UserError(f"recipe.{name}.{key}: no such key{did_you_mean(key, section)}")
    for section, key in (("model", "weights"), ("loss", "teacher")):
        if given := (values.get(section) or {}).get(key):
            values[section][key] = _pinned(str(given))
    return {str(key): v for key, v in values.items() if key not in ("hydra", "recipe", *STUDY_SECTIONS)}


def _pinned(path: str) -> str:
    """Return where a path leads now: ``runs/latest`` will be another run when this one is resumed."""
    given = Path(path).expanduser()
    return str(given.resolve()) if given.exists() and given.resolve() != given.absolute() else path


@in_one_line()  # here already: Hydra would add lines of its own
def train(config: DictConfig) -> None:
    """Start, or with ``resume=RUN_DIR`` continue, one training run."""
    values = plain(config)
    resume = values.pop("resume", None)
    typed = list(HydraConfig.get().overrides.task)
    for override in typed:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in STUDY_SECTIONS:
            raise UserError(f"{override} is for a study of many runs: add -m")
    if resume:
        path = Path(resume).expanduser()
        trainer = plain(continued(path, typed)[0])["trainer"]
        _start("train", *_on_rank_zero(trainer, lambda: resume_run(path, typed)))
    else:
        _start("train", *_on_rank_zero(values["trainer"], lambda: new_run(values, typed)))


@in_one_line()  # here already: Hydra would add lines of its own
def evaluate(config: DictConfig) -> None:
    """Start one evaluation."""
    values = plain(config)
    typed = list(HydraConfig.get().overrides.task)
    if isinstance(values["weights"], list):
        sys.exit(
            evaluate_all(values["weights"], lambda spec: new_evaluation({**values, "weights": spec}, typed))
        )
    _start("eval", *_on_rank_zero(values["trainer"], lambda: new_evaluation(values, typed)))


def _on_rank_zero(
    trainer: Mapping[str, Any], make: Callable[[], tuple[RunDir, Config]]
) -> tuple[RunDir, Config]:
    """Make the run's directory on rank 0; every rank gets its path and configuration."""
    from senet.training import launch

    validate(TrainerSection, {"trainer": trainer})  # which is read before the rest of the configuration
    if not under_torchrun():
        launch.check_machines(trainer, 1)
        return make()
    launch.join_group(trainer)
    made: tuple[RunDir, Config] | UserError | None = None
    if rank() == 0:
        try:
            made = make()
        except UserError as error:
            made = error
    made = launch.everyone(made)[0]
    if isinstance(made, UserError):
        raise made
    assert made is not None
    return made


def new_run(values: Mapping[str, Any], typed: list[str]) -> tuple[RunDir, "RunConfig"]:
    """Check a composed configuration and make its run directory; ``typed`` are the user's overrides.

    Raises:
        UserError: for anything that can be seen to be wrong before training; nothing is left behind.
    """
    from senet.training.effects import notes

    config, network = check_run(values, typed)
    run = RunDir.create(Path(config.runs_dir), config.name, values, run_record(config, typed))
    run.hold()
    for note in notes(config, network, typed):
        say(note)
    return run, config


def run_record(config: "RunConfig", typed: list[str]) -> dict[str, Any]:
    """Return what ``run.json`` says of a run that is about to start."""
    # The name, then what the user typed: for people who read lists of runs.
    title = [config.name, *(o for o in typed if not o.startswith(("runs_dir=", "logger", "name=")))]
    facts = {"seed": config.seed, "config_hash": config.hash, "global_batch": config.global_batch}
    return {"task": "train", "title": " ".join(title), **facts, **_starting(typed)}


def _starting(typed: list[str]) -> dict[str, Any]:
    from senet.training.environment import describe_environment

    return {"overrides": typed, "status": "starting", "environment": describe_environment()}


def check_run(values: Mapping[str, Any], typed: Collection[str] | None = ()) -> tuple["RunConfig", "Network"]:
    """Check all that can be without data; return the configuration, and its network without memory.

    ``typed`` are the user's overrides, which must all have an effect; ``None`` asks for none of that.

    Raises:
        UserError: for the first mistake; nothing is left behind.
    """
    from senet.models import create_model, without_memory
    from senet.nn.tail import set_drop_path
    from senet.training.config import RunConfig
    from senet.training.effects import check_batch_norm, check_effects

    config = RunConfig.of(values)
    if typed is not None:
        check_effects(config, typed, configs_directory())
    if config.in_memory:
        config.augment.check_in_memory()
    with without_memory():
        network = create_model(config.model["name"], se=config.se, **config.model_options)
    if rate := config.model.get("drop_path"):
        set_drop_path(network, rate)
    network.check_input(config.data.preprocessing.size)
    check_batch_norm(config, network)
    return config, network


def continued(path: Path, typed: list[str]) -> tuple[DictConfig, list[str]]:
    """Return a run's configuration with the few changes that leave it the same run, and those of ``typed``."""
    composed, changes = OmegaConf.create(RunDir.open(path.resolve()).config()), []
    for override in OverridesParser.create().parse_overrides(typed):
        key = override.key_or_group
        if key == "resume":
            continue
        if not key.startswith(RESUMABLE):
            raise UserError(
                f"resume continues the run as it was: {key} cannot change (only {', '.join(RESUMABLE)}* can)"
            )
        OmegaConf.update(composed, key, override.value(), force_add=True)
        changes.append(str(override.input_line))
    return composed, changes


def resume_run(path: Path, typed: list[str]) -> tuple[RunDir, "RunConfig"]:
    """Open a run directory to continue it."""
    from senet.training.config import RunConfig
    from senet.training.environment import describe_environment

    run = RunDir.open(path.resolve())
    run.hold()
    composed, changes = continued(path, typed)
    config = RunConfig.of(plain(composed))
    before = run.record().get("global_batch", config.global_batch)
    if config.global_batch != before:
        raise UserError(
            f"the run takes {before} images a step, these settings {config.global_batch}: set data.batch_size (now "
            f"{config.data.batch_size}) or trainer.accumulate_grad_batches so that it stays {before}"
        )
    run.write_config(config.values)
    history = [
        *run.record().get("resumed", []),
        {"overrides": changes, "environment": describe_environment()},
    ]
    run.update(resumed=history, config_hash=config.hash)
    return run, config


def new_evaluation(values: Mapping[str, Any], typed: list[str]) -> tuple[RunDir, "EvalConfig"]:
    """Check a composed evaluation and make its directory beside the checkpoint."""
    from senet.training.config import EvalConfig
    from senet.training.effects import check_evaluation

    check_evaluation(typed)
    config = EvalConfig.of(values)
    if config.spec is not None:
        home, name = Path("runs"), re.sub(r"[^\w.-]+", "_", Path(config.spec).name)
        if (
            config.data is None
            and not RunDir(Path(config.spec)).exists()
            and not config.spec.endswith(".ckpt")
        ):
            raise UserError(f"{config.spec}: say on which images, e.g. data=imagefolder data.root=DIR")
    else:
        checkpoint = checkpoint_path(config.run, config.ckpt, config.which).resolve()
        if not checkpoint.is_file():
            raise UserError(f"{checkpoint}: there is no such checkpoint")
        home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        name = config.which if config.run else checkpoint.stem
    parent = Path(config.output).expanduser() if config.output else home / "evaluations"
    record = {"task": "eval", "title": "evaluation", **_starting(typed)}
    return RunDir.create(parent, name, values, record), config


def _start(task: str, run: RunDir, config: "RunConfig | EvalConfig") -> None:
    """Run a job on as many processes as it asks for, and report a failure in one line."""
    from senet.training.jobs import run_processes

    resumed = bool(run.to_go_on_from())
    status = run_processes(task, run, config)
    if status == OK:
        return
    try:
        record = run.record() if rank() == 0 else {}
    except UserError:  # no run directory any more: that was said
        sys.exit(status)
    if record.get("status") == "interrupted":
        say(f"stopped; continue with: train.py resume={run.path}" if task == "train" else "stopped")
    if record.get("error"):
        complain(f"error: {record['error']}")
        if status == MISUSED and not resumed and not record.get("began"):
            run.discard()
        elif status == FAILED and run.to_go_on_from():
            say(f"once that is mended, continue with: train.py resume={run.path}")
    sys.exit(status)
