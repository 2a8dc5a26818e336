"""From the command line to a study: which points and seeds, every job composed and checked before any runs."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from senet.errors import UserError
from senet.models import Network, is_se
from senet.models.factory import plain_twin, se_twin
from senet.training.config import RunConfig, config_hash, validate
from senet.training.entry import STUDY_SECTIONS, check_run, plain, run_record
from senet.training.rundir import RunDir
from senet.training.study.executors import LauncherConfig
from senet.training.study.ledger import Job, Ledger, Point

SHARED = {"trainer", "trainer.devices", "trainer.accelerator", "runs_dir"}
"""Keys that must be the same for all jobs of a study."""

_WIDTHS = ("reduction", "round_to", "stages")
"""SE settings that say nothing but the hidden width of every block."""


@dataclass(frozen=True)
class Request:
    """What the user typed, taken apart.

    Attributes:
        fixed: overrides with one value, as text.
        sweeps: for every swept key its overrides, one per value.
        seeds: of every point.
        base: the configuration composed from ``fixed``, resolved, with the study's own sections.
    """

    fixed: list[str]
    sweeps: dict[str, list[str]]
    seeds: list[int]
    base: dict[str, Any]

    @property
    def ablation(self) -> dict[str, Any] | None:
        """The chosen ablation."""
        return self.base.get("ablation")

    @property
    def launcher(self) -> LauncherConfig:
        """Where the jobs run."""
        config: LauncherConfig = validate(LauncherConfig, self.base["launcher"])
        return config


@contextmanager
def composing(configs: Path) -> Iterator[None]:
    """Let ``compose`` read the configuration files in ``configs``."""
    with initialize_config_dir(str(configs), version_base="1.3"):
        yield


def _compose(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a run's configuration, and the study's sections, of one list of overrides."""
    config: DictConfig = compose("train", overrides=overrides)
    values = plain(config)
    values.pop("resume", None)
    sections = {
        key: OmegaConf.to_container(config[key], resolve=True) for key in STUDY_SECTIONS if key in config
    }
    return values, sections


def compose_run(overrides: list[str]) -> dict[str, Any]:
    """Return the configuration of one run. Must be called while ``composing``."""
    return _compose(overrides)[0]


def key_of(override: str) -> str:
    """Return the key of an override, without signs."""
    return override.lstrip("+~").partition("=")[0]


def parse(typed: list[str]) -> Request:
    """Take typed overrides apart and compose what they have in common.

    Raises:
        UserError: for what has no meaning in a study.
    """
    parsed = OverridesParser.create().parse_overrides(typed)
    for override in parsed:
        if override.is_hydra_override():
            raise UserError(f"{override.input_line}: a study has no place for Hydra's own settings")
        if override.key_or_group == "resume":
            raise UserError(
                "resume= continues one run; a study continues by its own command, or senet study retry"
            )
        if override.is_sweep_override() and override.key_or_group.split(".")[0] in STUDY_SECTIONS:
            raise UserError(f"{override.input_line}: a study takes one value here")
    for key in SHARED & {o.key_or_group for o in parsed if o.is_sweep_override()}:
        raise UserError(f"{key}: the jobs of a study share its slots, so that this takes one value")
    sweeps = {o.key_or_group: _values(o) for o in parsed if o.is_sweep_override()}
    fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
    seed_lines = sweeps.pop("seed", None)
    values, sections = _compose(fixed)
    seeds = [values["seed"]] if seed_lines is None else [_seed(line) for line in seed_lines]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seed={','.join(map(str, seeds))}: name each seed once")
    return Request(fixed, sweeps, seeds, values | sections)


def _values(override: Override) -> list[str]:
    """Return one override per value of a sweep."""
    return [jobs[0] for jobs in BasicSweeper.split_arguments([override], max_batch_size=None)[0]]


def _seed(line: str) -> int:
    text = line.partition("=")[2]
    if not text.isdigit():
        raise UserError(f"{line}: a seed is a whole number")
    return int(text)


def points_of(request: Request) -> list[Point]:
    """Return the points of a study: those of its ablation, times every combination of what was swept."""
    if request.ablation is not None:
        points = _ablation_points(request, request.ablation)
    else:
        points = [Point("", [])]
    for overrides in request.sweeps.values():
        points = [_combine(point, override) for point in points for override in overrides]
    if points == [Point("", [])]:
        points = [Point(str(request.base["name"]), [])]
    return [Point(p.label, _for_network(request, p.overrides), p.baseline, p.paper) for p in points]


def _combine(point: Point, override: str) -> Point:
    def label(text: str) -> str:
        return f"{text}, {override}" if text else override

    baseline = label(point.baseline) if point.baseline else None
    return Point(label(point.label), [*point.overrides, override], baseline, point.paper)


def _ablation_points(request: Request, ablation: Mapping[str, Any]) -> list[Point]:
    """Return an ablation's points for the chosen network and its twin."""
    name = request.base["model"]["name"]
    names = {"{plain}": plain_twin(name), "{se}": se_twin(plain_twin(name))}
    points = []
    for entry in ablation["points"]:
        overrides = list(entry["overrides"])
        for word, network in names.items():
            overrides = [o.replace(word, network) for o in overrides]
        baseline = entry.get("baseline") or ablation["baseline"]
        points.append(Point(entry["label"], overrides, baseline, entry.get("paper")))
    # model= chooses the network of an ablation that speaks of {se} and {plain}; any other axis is the ablation's.
    axes = {key_of(o) for entry in ablation["points"] for o in entry["overrides"] if "{" not in o}
    for override in [*request.fixed, *request.sweeps]:
        if key_of(override) in axes:
            raise UserError(
                f"{override}: {key_of(override)} is what ablation={ablation['name']} varies; drop it"
            )
    if "model" in request.sweeps:
        raise UserError(f"model=: run ablation={ablation['name']} once for each network")
    return points


def _for_network(request: Request, own: list[str]) -> list[str]:
    """Return all overrides of a point; settings of SE blocks are none of a network without them."""
    chosen = {key_of(o): o.partition("=")[2] for o in own}
    fixed = [o for o in request.fixed if key_of(o) not in chosen]
    network = chosen.get("model", request.base["model"]["name"])
    if not is_se(network) and request.ablation is not None:
        fixed = [o for o in fixed if key_of(o).partition(".")[0] != "se"]
        own = [o for o in own if key_of(o).partition(".")[0] != "se"]
    return [*fixed, *own]


def signature(config: RunConfig, values: Mapping[str, Any], network: Network) -> str:
    """Return a hash of what is built and trained: hidden widths in place of r, and everything else as it is."""
    if config.se is not None:
        kept = {key: value for key, value in config.se.to_dict().items() if key not in _WIDTHS}
        values = {**values, "se": {**kept, "widths": network.se_widths()}}
    return config_hash({key: value for key, value in values.items() if key != "seed"})


def study_directory(request: Request, name: str | None = None) -> Path:
    """Return where a study lies: its name, and a hash of all that is common to its points but the seeds.

    The values of swept keys are left out, so that more values or seeds extend the study.
    """
    base = {key: value for key, value in request.base.items() if key not in ("seed", "launcher", "search")}
    search = request.base.get("search") or {}
    space = {key: value for key, value in search.items() if key not in ("trials", "storage")}
    identity = json.dumps([config_hash(base), sorted(request.sweeps), space], sort_keys=True, default=str)
    kind = (request.ablation or search or {}).get("name") or "-".join(map(_slug, request.sweeps)) or "seeds"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return (
        Path(request.base["runs_dir"]).resolve()
        / "studies"
        / f"{name or kind}-{request.base['name']}-{digest}"
    )


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "", text.replace(" ", "-"))


def plan(request: Request, ledger: Ledger) -> list[Job]:
    """Compose and check every job of a request, enter them in the ledger, make their run directories.

    Must be called while ``composing``. Nothing is written if any job is wrong.

    Raises:
        UserError: for the first mistake, naming the point; for two points that are the same.
    """
    return plan_points(points_of(request), request.seeds, ledger)


def plan_points(points: list[Point], seeds: list[int], ledger: Ledger) -> list[Job]:
    """Do so for given points and seeds; points that the ledger knows must still be what they were."""
    planned: list[tuple[Point, int, dict[str, Any], RunConfig]] = []
    for point in points:
        for seed in seeds:
            try:
                values = compose_run([*point.overrides, f"seed={seed}"])
                if seed == seeds[0]:
                    config, network = check_run(values)
                    point.signature = _checked(point, signature(config, values, network))
                else:
                    config = validate(RunConfig, values)
            except UserError as error:
                raise UserError(f"{point.label}: {error}") from error
            planned.append((point, seed, values, config))
        ledger.add_point(point)
    ledger.head["seeds"] = sorted({*ledger.head.get("seeds", []), *seeds})
    return [enter(ledger, *entry) for entry in planned]


def _checked(point: Point, new: str) -> str:
    if point.signature not in ("", new):
        raise UserError("its configuration files have changed since the study began: start a new study")
    return new


def enter(ledger: Ledger, point: Point, seed: int, values: dict[str, Any], config: RunConfig) -> Job:
    """Return a configuration's job, new or known, with its run directory made."""
    key = config_hash(values)
    job = ledger.jobs.get(key) or Job(key, point.label, seed, [*point.overrides, f"seed={seed}"], run="")
    job.label = point.label
    if not job.run or not ledger.directory(job).config_file.is_file():
        values = _in_study(values, ledger.path)
        record = run_record(config, values, job.overrides)
        record |= {"status": "planned", "label": point.label, "study": ledger.path.name}
        record["title"] = f"{point.label} seed {seed}"
        run = RunDir.create(ledger.path, _slug(f"{point.label}-seed{seed}"), values, record)
        job.run, job.status, job.reason, job.handle = run.path.name, "missing", None, None
    ledger.jobs[key] = job
    return job


def _in_study(values: dict[str, Any], study: Path) -> dict[str, Any]:
    """Return a job's configuration with its results in the study's directory and its wandb run in its group."""
    logger = dict(values["logger"])
    if logger.get("wandb") is not None:
        logger["wandb"] = {**logger["wandb"], "group": logger["wandb"].get("group") or study.name}
    return {**values, "runs_dir": str(study), "logger": logger}
