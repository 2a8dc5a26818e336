"""From the command line to a study: which points and seeds, every job composed and checked before any runs."""

import argparse
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from senet.errors import UserError
from senet.files import configs_directory
from senet.ledger import Job, Ledger, PlannedPoint
from senet.models import Network, is_se
from senet.models.families import plain_twin, se_twin
from senet.nn.config import Block, SEConfig
from senet.rundir import RunDir
from senet.study.executors import LauncherConfig
from senet.training.config import RunConfig, config_hash
from senet.training.effects import check_typed
from senet.training.entry import STUDY_SECTIONS, check_run, plain, run_record
from senet.training.sections import TrainerSection
from senet.training.validation import validate

SHARED = {"trainer", "trainer.devices", "trainer.num_nodes", "trainer.accelerator", "runs_dir"}
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
        ablation: the chosen one.
        search: the chosen one.
        launcher: where the jobs run.
    """

    fixed: list[str]
    sweeps: dict[str, list[str]]
    seeds: list[int]
    base: dict[str, Any]
    ablation: dict[str, Any] | None
    search: dict[str, Any] | None
    launcher: LauncherConfig


def composing() -> AbstractContextManager[None]:
    """Let ``compose`` read the configuration files, as long as the context lasts."""
    context: AbstractContextManager[None] = initialize_config_dir(
        str(configs_directory()), version_base="1.3"
    )
    return context


def compose_run(overrides: list[str]) -> dict[str, Any]:
    """Return the configuration of one run. Must be called while ``composing``."""
    return _of_run(compose("train", overrides=overrides))


def _of_run(composed: DictConfig) -> dict[str, Any]:
    values = plain(composed)
    values.pop("resume", None)
    return values


def key_of(override: str) -> str:
    """Return the key of an override, without signs."""
    return override.lstrip("+~").partition("=")[0]


def parse(typed: list[str]) -> Request:
    """Take typed overrides apart and compose what they have in common.

    Raises:
        UserError: for what has no meaning in a study.
    """
    folders, typed = _config_dirs(typed)
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
    swept = [o for o in parsed if o.is_sweep_override()]
    for key in SHARED & {o.key_or_group for o in swept}:
        raise UserError(f"{key}: the jobs of a study share its slots, so that this takes one value")
    for key, times in Counter(o.key_or_group for o in parsed).items():
        if times > 1 and any(o.key_or_group == key for o in swept):
            raise UserError(f"{key} is set {times} times: give all its values in one list")
    fixed = [*folders, *(str(o.input_line) for o in parsed if not o.is_sweep_override())]
    sweeps = {o.key_or_group: _values(o) for o in swept}
    seed_lines = sweeps.pop("seed", None)
    composed = compose("train", overrides=fixed)
    base = _of_run(composed) | {
        key: OmegaConf.to_container(composed[key], resolve=True) for key in STUDY_SECTIONS if key in composed
    }
    validate(TrainerSection, base)  # which is read before any job is composed
    seeds = [base["seed"]] if seed_lines is None else [_seed(line) for line in seed_lines]
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seed={','.join(map(str, seeds))}: name each seed once")
    launcher = validate(LauncherConfig, base["launcher"])
    return Request(fixed, sweeps, seeds, base, base.get("ablation"), base.get("search"), launcher)


def _config_dirs(typed: list[str]) -> tuple[list[str], list[str]]:
    """Return ``--config-dir DIR`` as the override that any later composition understands, and what else was typed.

    Raises:
        UserError: for a directory that there is not.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    try:
        given, others = parser.parse_known_args(typed)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    if given.config_dir is None:
        return [], others
    folder = given.config_dir.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--config-dir {given.config_dir}: there is no such directory")
    quoted = str(folder).replace("'", r"\'")
    return [f"hydra.searchpath=['file://{quoted}']"], others


def _values(override: Override) -> list[str]:
    """Return one override per value of a sweep."""
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a study takes lists of values; search=optuna draws from ranges"
        )
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


def _seed(line: str) -> int:
    text = line.partition("=")[2]
    if not text.isdecimal():
        raise UserError(f"{line}: a seed is a whole number")
    return int(text)


def points_of(request: Request) -> list[PlannedPoint]:
    """Return the points of a study: those of its ablation, times every combination of what was swept."""
    points = _ablation_points(request, request.ablation) if request.ablation else [PlannedPoint("", [])]
    return [_with(request, point, swept) for point in points for swept in product(*request.sweeps.values())]


def _with(request: Request, point: PlannedPoint, swept: Iterable[str]) -> PlannedPoint:
    """Return a point at one combination of what was swept."""
    return replace(
        point,
        label=", ".join(filter(None, (point.label, *swept))) or request.base["name"],
        overrides=_for_network(request, [*point.overrides, *swept]),
        baseline=", ".join((point.baseline, *swept)) if point.baseline else None,
    )


def _ablation_points(request: Request, ablation: dict[str, Any]) -> list[PlannedPoint]:
    """Return an ablation's points for the chosen network and its twin."""
    # model= chooses the network of an ablation that speaks of {se} and {plain}; any other axis is the ablation's.
    axes = {key_of(o) for entry in ablation["points"] for o in entry["overrides"] if "{" not in o}
    for override in [*request.fixed, *request.sweeps]:
        if key_of(override) in axes:
            raise UserError(
                f"{override}: {key_of(override)} is what ablation={ablation['name']} varies; "
                "drop it, or for some of its points drop ablation= and list their values with -m"
            )
    if "model" in request.sweeps:
        raise UserError(f"model=: run ablation={ablation['name']} once for each network")
    plain_name = plain_twin(request.base["model"]["name"])
    typed = {key_of(o) for o in [*request.fixed, *request.sweeps]}
    points = []
    for entry in ablation["points"]:
        # A point's defaults, its paper's own recipe for example, give way to what was typed.
        defaults = [o for o in entry.get("defaults", []) if key_of(o) not in typed]
        overrides = [
            o.replace("{plain}", plain_name).replace("{se}", se_twin(plain_name))
            for o in [*entry["overrides"], *defaults]
        ]
        baseline = entry.get("baseline") or ablation["baseline"]
        paper = entry.get("paper") if ablation.get("paper_trunk") in (None, plain_name) else None
        points.append(PlannedPoint(entry["label"], overrides, baseline, paper))
    return points


def _for_network(request: Request, own: list[str]) -> list[str]:
    """Return all overrides of a point with some of its own; in an ablation SE's reach the blocks that read them."""
    chosen = {key_of(o): o.partition("=")[2] for o in own}
    overrides = [*(o for o in request.fixed if key_of(o) not in chosen), *own]
    if request.ablation is None:
        return overrides
    if not is_se(chosen.get("model", request.base["model"]["name"])):
        return [o for o in overrides if key_of(o).partition(".")[0] != "se"]
    if (block := chosen.get("se.block", "se")) == "se":
        return overrides
    rival, given = SEConfig(block=cast(Block, block)), request.base["se"] or {}
    unread = {f"se.{axis}": value for axis, value in SEConfig().to_dict().items() if not rival.reads(axis)}
    reset = [
        f"{key}={value}"
        for key, value in unread.items()
        if given.get(key.removeprefix("se."), value) != value
    ]
    return [*(o for o in overrides if key_of(o) not in unread), *reset]


def signature(config: RunConfig, network: Network) -> str:
    """Return a hash of what is built and trained: hidden widths in place of r, and everything else as it is."""
    values: dict[str, Any] = config.values
    if config.se is not None:
        kept = {key: value for key, value in config.se.to_dict().items() if key not in _WIDTHS}
        values = {**values, "se": {**kept, "widths": network.se_widths()}}
    return config_hash({key: value for key, value in values.items() if key != "seed"})


def study_directory(request: Request) -> Path:
    """Return where a study lies: its name, and a hash of all that is common to its points but the seeds.

    The values of swept keys are left out, so that more values or seeds extend the study.
    """
    base = {key: value for key, value in request.base.items() if key not in ("seed", "launcher", "search")}
    search = request.search or {}
    space = {key: value for key, value in search.items() if key not in ("trials", "storage")}
    identity = json.dumps([config_hash(base), sorted(request.sweeps), space], sort_keys=True, default=str)
    kind = (request.ablation or search).get("name") or "-".join(map(_slug, request.sweeps)) or "seeds"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return Path(base["runs_dir"]).expanduser().resolve() / "studies" / f"{kind}-{base['name']}-{digest}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "", text.replace(" ", "-"))


def plan(points: list[PlannedPoint], seeds: list[int], ledger: Ledger) -> list[Job]:
    """Compose and check every job, enter them in the ledger, make their run directories.

    Must be called while ``composing``. No run directory is made if any job is wrong. The jobs come seed by seed: a
    study that is cut short has compared its points already.

    Raises:
        UserError: for the first mistake, naming the point; for two points that are the same, and for a point of the
            ledger that is no longer what it was.
    """
    planned: list[tuple[PlannedPoint, list[RunConfig]]] = []
    common = set.intersection(*(set(point.overrides) for point in points))
    idle: list[UserError] = []  # where what all points have in common does nothing
    for point in points:
        try:
            first, *others = (compose_run([*point.overrides, f"seed={seed}"]) for seed in seeds)
            config, network = check_run(first, None)
            _check_effects(config, point, common, idle)
            planned.append((point, [config, *map(RunConfig.of, others)]))
        except UserError as error:
            raise UserError(f"{point.label}: {error}") from error
        ledger.add_point(replace(point, signature=signature(config, network)))
    if len(idle) == len(points):
        raise idle[0]
    ledger.head["seeds"] = sorted({*ledger.head.get("seeds", []), *seeds})
    return [
        enter(ledger, point, seed, configs[i]) for i, seed in enumerate(seeds) for point, configs in planned
    ]


def _check_effects(config: RunConfig, point: PlannedPoint, common: set[str], idle: list[UserError]) -> None:
    """Refuse what sets this point apart and does nothing in it; note in ``idle`` if what is common does nothing here.

    SE's axes were judged when the points were made; a trial with ``debug=`` overrides what else is set.
    """
    if any(key_of(override) == "debug" for override in point.overrides):
        return

    def typed(own: bool) -> list[str]:
        return [o for o in point.overrides if (o not in common) == own and not key_of(o).startswith("se.")]

    check_typed(config, typed(own=True))
    try:
        check_typed(config, typed(own=False))
    except UserError as error:
        idle.append(error)


def enter(ledger: Ledger, point: PlannedPoint, seed: int, config: RunConfig) -> Job:
    """Return a configuration's job, new or known, with its run directory made."""
    job = ledger.jobs.get(config.hash) or Job(
        config.hash, point.label, seed, [*point.overrides, f"seed={seed}"], run=""
    )
    job.label = point.label
    if not job.run or not ledger.directory(job).config_file.is_file():
        placed = RunConfig.of({**config.values, "runs_dir": str(ledger.path)})
        record = run_record(placed, job.overrides)
        record |= {"status": "planned", "label": point.label, "study": ledger.path.name}
        record["title"] = f"{point.label} seed {seed}"
        run = RunDir.create(ledger.path, _slug(f"{point.label}-seed{seed}"), placed.values, record)
        job.run, job.status, job.reason, job.handle = run.path.name, "missing", None, None
    ledger.jobs[config.hash] = job
    return job
