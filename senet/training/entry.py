"""From the command line to a job: Hydra composes, this module starts what was composed.

Only this file and ``study/plan.py`` know Hydra. ``train.py`` and ``eval.py`` are its entry points around them.
"""

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from senet.errors import UserError, did_you_mean
from senet.models import Network, create_model, foreign_names, is_se, model_names
from senet.models.factory import builder_options
from senet.nn import SEConfig
from senet.training import launch
from senet.training.config import EvalConfig, RunConfig, config_hash, validate
from senet.training.console import say, setup_console
from senet.training.environment import describe_environment
from senet.training.rundir import RunDir, checkpoint_path, link_latest, write_atomically

RESUMABLE = ("trainer.", "data.root", "data.workers", "data.batch_size", "checkpoint.")
"""What may change when a run is resumed, but not the images of a step; all else would make it another run."""

MULTIRUN = ("-m", "--multirun")
STUDY_SECTIONS = ("ablation", "search", "launcher")
"""Sections that say what a study runs and where; no run's own configuration has them."""


def register_models() -> None:
    """Make every network of the zoo a choice of the config group ``model``, its options as keys."""
    store = ConfigStore.instance()
    for name in (*model_names(), *foreign_names()):
        options = {"weights": None, "freeze": None} | builder_options(name)
        se = SEConfig().to_dict() if is_se(name) else None
        store.store(name, {"model": {"name": name, **options}, "se": se}, group="model", package="_global_")


def command_line(main: Callable[[], None], study: Callable[[list[str]], int] | None = None) -> None:
    """Run a Hydra entry point; a mistake becomes one line on stderr and exit status 2.

    What asks for many runs goes to ``study``: Hydra's own multirun is started again by every rank.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra would print and exit; we want the exception
    setup_console(launch.rank())
    register_models()
    with in_one_line():
        if _asks_for_study(sys.argv[1:]):
            if study is None:
                raise UserError("-m: this program does one thing at a time")
            sys.exit(study([a for a in sys.argv[1:] if a not in MULTIRUN]))
        main()


@contextmanager
def in_one_line() -> Iterator[None]:
    """End a mistake with one line on stderr and exit status 2."""
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error))


def _asks_for_study(arguments: list[str]) -> bool:
    if any(a in ("--help", "-h", "--cfg", "-c", "--info", "-i") for a in arguments):
        return False
    return any(a in MULTIRUN or (a.startswith("search=") and a != "search=null") for a in arguments)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(launch.MISUSED)


def explain(error: BaseException) -> str:
    """Return Hydra's message as one line that names the nearest valid key or choice."""
    text = str(error).strip()
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        name = key.group(1)
        if name.startswith("se."):
            return f"{name}: this network has no SE block; choose an SE network with model=se_NAME"
        return f"there is no key {name}{did_you_mean(name, _known_keys())}"
    choice = re.search(r"Could not find '(.+)/([^/']+)'", text)
    if choice:
        group, name = choice.groups()
        options = re.findall(r"^\t(\S+)$", text, flags=re.MULTILINE)
        return f"{group}={name}: there is no such choice{did_you_mean(name, options)}"
    return text.splitlines()[0] if text else type(error).__name__


def configs_directory() -> Path:
    """Return the directory of the configuration files: beside the script, or else beside the package.

    Raises:
        UserError: if there is none.
    """
    places = [Path(sys.argv[0]).resolve().parent, Path(__file__).resolve().parents[2], Path.cwd()]
    for place in places:
        if (place / "configs" / "train.yaml").is_file():
            return place / "configs"
    raise UserError("there is no configs directory here: run this in a checkout of the project")


def _known_keys() -> list[str]:
    """Return every config group and every dotted key of what the user chose, for hints."""
    name = "eval" if Path(sys.argv[0]).stem == "eval" else "train"
    with initialize_config_dir(str(configs_directory()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = set(loader.list_groups(""))
        chosen = [a for a in sys.argv[1:] if a.partition("=")[0] in groups and "," not in a]
        config = OmegaConf.to_container(compose(name, overrides=chosen))
    keys = [str(group) for group in groups]

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else ():
            keys.append(f"{prefix}{key}")
            walk(value, f"{prefix}{key}.")

    walk(config, "")
    return keys


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a composed configuration as plain containers, everything resolved.

    ``recipe`` only holds the values that the optimiser and the schedule of its own choice refer to.
    """
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    for section in (values.get("optimizer", {}), values.get("schedule", {})):
        given = values.get("recipe", {}).get(section.get("name"), {})
        for key in given.keys() - section.keys():
            raise UserError(f"recipe.{section['name']}.{key}: no such key{did_you_mean(key, section)}")
    return {str(key): v for key, v in values.items() if key not in ("hydra", "recipe", *STUDY_SECTIONS)}


def _job(job: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """End a job's mistakes here: Hydra would add lines of its own."""

    @functools.wraps(job)
    def wrapped(config: DictConfig) -> None:
        try:
            job(config)
        except UserError as error:
            _fail(str(error))

    return wrapped


@_job
def train(config: DictConfig) -> None:
    """Start, or with ``resume=RUN_DIR`` continue, one training run."""
    values = plain(config)
    resume = values.pop("resume", None)
    _join(values["trainer"])
    typed = list(HydraConfig.get().overrides.task)
    for override in typed:
        if override.lstrip("+~").partition("=")[0].partition(".")[0] in STUDY_SECTIONS:
            raise UserError(f"{override} is for a study of many runs: add -m")
    run, values = _on_rank_zero(lambda: resume_run(Path(resume), typed) if resume else new_run(values, typed))
    _start("train", run, values)


@_job
def evaluate(config: DictConfig) -> None:
    """Start one evaluation."""
    values = plain(config)
    _join(values["trainer"])
    typed = list(HydraConfig.get().overrides.task)
    run, values = _on_rank_zero(lambda: new_evaluation(values, typed))
    _start("eval", run, values)


def _join(trainer: Mapping[str, Any]) -> None:
    """Join the ranks that ``torchrun`` started, if it did."""
    if launch.under_torchrun():
        launch.join_group(trainer)
    else:
        launch.check_machines(trainer, 1)


def _on_rank_zero(make: Callable[[], RunDir]) -> tuple[RunDir, dict[str, Any]]:
    """Make the run's directory on rank 0; every rank gets its path and configuration."""
    box: tuple[Path, dict[str, Any]] | UserError | None = None
    if launch.rank() == 0:
        try:
            run = make()
            box = run.path, run.config()
        except UserError as error:
            box = error
    if launch.under_torchrun():
        box = launch.broadcast(box)
    if isinstance(box, UserError):
        raise box
    assert box is not None
    return RunDir(box[0]), box[1]


def new_run(values: Mapping[str, Any], typed: list[str]) -> RunDir:
    """Check a composed configuration and make its run directory; ``typed`` are the user's overrides.

    Raises:
        UserError: for anything that can be seen to be wrong before training; nothing is left behind.
    """
    config, _ = check_run(values)
    run = RunDir.create(Path(config.runs_dir), config.name, values, run_record(config, values, typed))
    link_latest(run.path)
    return run


def run_record(config: RunConfig, values: Mapping[str, Any], typed: list[str]) -> dict[str, Any]:
    """Return what ``run.json`` says of a run that is about to start."""
    return {
        "task": "train",
        "title": _title(config.name, typed),
        "seed": config.seed,
        "config_hash": config_hash(values),
        "global_batch": launch.global_batch(config.data.batch_size, config.trainer),
        "overrides": typed,
        "status": "starting",
        "environment": describe_environment(),
    }


def check_run(values: Mapping[str, Any]) -> tuple[RunConfig, Network]:
    """Check all that can be without data; return the configuration, and its network without memory.

    Raises:
        UserError: for the first mistake; nothing is left behind.
    """
    config: RunConfig = validate(RunConfig, values)
    launch.process_count(config.trainer)
    with torch.device("meta"):
        network = create_model(config.model["name"], se=config.se, **config.model_options)
    network.check_input(config.data.preprocessing.size)
    return config, network


def _title(name: str, typed: list[str]) -> str:
    """Return the run's name followed by what the user typed, for people who read lists of runs."""
    return " ".join([name, *(o for o in typed if not o.startswith(("runs_dir=", "logger", "name=")))])


def resume_run(path: Path, typed: list[str]) -> RunDir:
    """Open a run directory to continue it, with the few changes that leave it the same run."""
    run = RunDir.open(path.resolve())
    if run.is_running():
        raise UserError(f"{path} is still running (process {run.record()['pid']})")
    config = OmegaConf.create(run.config())
    changes = []
    for override in OverridesParser.create().parse_overrides(typed):
        key = override.key_or_group
        if key == "resume":
            continue
        if not key.startswith(RESUMABLE):
            raise UserError(
                f"resume continues the run as it was: {key} cannot change (only {', '.join(RESUMABLE)}* can)"
            )
        OmegaConf.update(config, key, override.value(), force_add=True)
        changes.append(override.input_line)
    values = plain(config)
    checked: RunConfig = validate(RunConfig, values)
    now = launch.global_batch(checked.data.batch_size, checked.trainer)
    before = run.record().get("global_batch", now)
    if now != before:
        raise UserError(
            f"the run takes {before} images a step, these settings {now}: set data.batch_size (now "
            f"{checked.data.batch_size}) or trainer.accumulate_grad_batches so that it stays {before}"
        )
    write_atomically(run.config_file, OmegaConf.to_yaml(config))
    history = [
        *run.record().get("resumed", []),
        {"overrides": changes, "environment": describe_environment()},
    ]
    run.update(resumed=history, config_hash=config_hash(values))
    return run


def new_evaluation(values: Mapping[str, Any], typed: list[str]) -> RunDir:
    """Check a composed evaluation and make its directory beside the checkpoint."""
    config: EvalConfig = validate(EvalConfig, values)
    launch.process_count(config.trainer)
    checkpoint = checkpoint_path(config.run, config.ckpt, config.which).resolve()
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: there is no such checkpoint")
    home = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
    parent = Path(config.output) if config.output else home / "evaluations"
    record = {
        "task": "eval",
        "title": "evaluation",
        "overrides": typed,
        "status": "starting",
        "environment": describe_environment(),
    }
    return RunDir.create(parent, config.which if config.run else checkpoint.stem, values, record)


def _start(task: str, run: RunDir, values: dict[str, Any]) -> None:
    """Run a job on as many processes as it asks for, and report a failure in one line."""
    resumed = (run.checkpoints / "last.ckpt").exists()
    status = launch.run_processes(task, run, values)
    if status == launch.OK or launch.rank() != 0:
        sys.exit(status) if status else None
        return
    record = run.record()
    if record["status"] == "interrupted":
        say(f"stopped; continue with: {task}.py resume={run.path}")
    if record["error"]:
        print(f"error: {record['error']}", file=sys.stderr)
        if not resumed and not any(run.checkpoints.iterdir()) and status == launch.MISUSED:
            run.discard()
    sys.exit(status)
