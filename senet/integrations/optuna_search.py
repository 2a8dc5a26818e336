"""Search with Optuna's ask and tell. Only the driver knows Optuna; a trial's ranks know their configuration."""

import math
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from senet.errors import UserError, did_you_mean
from senet.ledger import Job, Ledger, PlannedPoint
from senet.ranges import Count, Natural, Seed
from senet.rundir import PREFIX
from senet.study.plan import Request, compose_run, enter
from senet.training.console import FAILED, OK, say
from senet.training.entry import check_run
from senet.training.validation import validate

SHOWN = 5
"""Best trials that are listed at the end."""
DRIVER = "driver"
"""Attribute of a trial that says who asked for it: in a database there may be several."""


FIGURES = (
    *(f"{prefix}/{figure}" for prefix in PREFIX.values() for figure in ("top1", "top5", "loss")),
    *("train/loss", "train/top1"),
)
"""Columns of metrics.csv that can be searched for."""


@dataclass(frozen=True)
class SearchConfig:
    """What is searched and how.

    Attributes:
        name: "optuna".
        metric: column of metrics.csv, one of ``FIGURES``; its last value is a trial's.
        direction: "maximize" or "minimize".
        trials: how many there shall be in all.
        sampler: "tpe" or "random".
        pruner: "median", "halving" or "none".
        startup_trials: trials before the sampler and the median pruner trust what they have seen.
        seed: of the sampler.
        storage: database of the trials; ``None`` for a journal in the study's directory.
        space: key, nested or dotted, to ``{low, high, log, step}`` or ``{choices}``.
    """

    name: str
    metric: str
    direction: Literal["maximize", "minimize"]
    trials: Count
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "halving", "none"]
    startup_trials: Natural
    seed: Seed
    storage: str | None
    space: dict[str, Any]

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("search.space must name at least one key")
        if self.metric not in FIGURES:
            raise UserError(
                f"search.metric={self.metric} is no figure of an epoch{did_you_mean(self.metric, FIGURES)}"
            )


def settings(request: Request) -> SearchConfig:
    """Return what a request says of its search.

    Raises:
        UserError: if it also says what to run.
    """
    if request.ablation is not None or request.sweeps or len(request.seeds) > 1:
        raise UserError(
            "search=optuna chooses the values itself: drop ablation=, lists of values and of seeds"
        )
    config: SearchConfig = validate(SearchConfig, request.search or {})
    distributions(config.space)
    return config


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of every dotted key in a search space.

    Raises:
        UserError: for an axis that is neither a range nor a list of choices.
    """
    return dict(_walk(space, ""))


def _walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, BaseDistribution]]:
    for key, value in node.items():
        name = f"{path}{key}"
        if not isinstance(value, Mapping):
            raise UserError(f"search.space.{name}={value}: give low and high, or choices")
        if "choices" in value or "low" in value or "high" in value:
            yield name, _distribution(name, value)
        else:
            yield from _walk(value, f"{name}.")


def _distribution(name: str, axis: Mapping[str, Any]) -> BaseDistribution:
    try:
        if "choices" in axis:
            (choices,) = (list(axis[key]) for key in axis)
            return CategoricalDistribution(choices)
        low, high = axis["low"], axis["high"]
        whole = isinstance(low, int) and isinstance(high, int)
        kind = IntDistribution if whole else FloatDistribution
        more = {key: value for key, value in axis.items() if key not in ("low", "high") and value is not None}
        return kind(low, high, **more)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"search.space.{name}: {{low, high, log, step}} or {{choices}}: {error}") from error


def _storage(config: SearchConfig, directory: Path) -> BaseStorage:
    """Return where the trials are kept."""
    if config.storage is None:
        return JournalStorage(JournalFileBackend(str(directory / "optuna.journal")))
    try:
        return RDBStorage(config.storage)
    except Exception as error:  # of the database's own driver
        raise UserError(f"search.storage={config.storage}: {str(error).strip().splitlines()[0]}") from error


def _sampler(config: SearchConfig, drawn: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of the next draw: a search that goes on must not draw again what it drew at first."""
    seed = config.seed + 1_000_003 * drawn
    if config.sampler == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=config.startup_trials, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def _pruner(config: SearchConfig) -> optuna.pruners.BasePruner:
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials)
    return (
        optuna.pruners.SuccessiveHalvingPruner() if config.pruner == "halving" else optuna.pruners.NopPruner()
    )


class Search:
    """A source of jobs that asks Optuna and tells it what came of them.

    Args:
        config: of the search.
        request: what the user typed, whose fixed overrides every trial has.
        ledger: of the search, locked.
    """

    def __init__(self, config: SearchConfig, request: Request, ledger: Ledger) -> None:
        self.config, self.request, self.ledger = config, request, ledger
        self.space = distributions(config.space)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = _storage(config, ledger.path)
        self.study = optuna.create_study(
            storage=storage,
            study_name=ledger.path.name,
            direction=config.direction,
            sampler=_sampler(config, 0),
            pruner=_pruner(config),
            load_if_exists=True,
        )
        self._me = f"{platform.node()}:{ledger.path}"
        study_id = storage.get_study_id_from_name(self.study.study_name)
        left = filter(self._is_mine, self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
        ids = [storage.get_trial_id_from_study_id_trial_number(study_id, trial.number) for trial in left]
        self._left = [Trial(self.study, trial_id) for trial_id in ids]
        self._open = {trial.number: trial for trial in self._left}  # asked for, not told
        self._reported: dict[int, int] = {}

    def _is_mine(self, trial: FrozenTrial) -> bool:
        """Whether an open trial is this study's, and not of a driver elsewhere that shares its database."""
        known = any(trial.number in job.trials for job in self.ledger.jobs.values())
        return known or self.config.storage is None or trial.user_attrs.get(DRIVER) == self._me

    def next(self) -> Job | None:
        """Return the job of a trial that was cut short, or else of a new one, until there are enough."""
        while (trial := self._take()) is not None:
            job = self._job(trial)
            if job is None or job.status == "running":
                continue
            if job.status == "finished":  # an earlier trial had the same values: the run would be the same
                self.ended(job, interrupted=False)
                continue
            return job
        return None

    def _take(self) -> Trial | None:
        if self._left:
            return self._left.pop(0)
        drawn = len(self.study.get_trials(deepcopy=False))
        if drawn >= self.config.trials:
            return None
        self.study.sampler = _sampler(self.config, drawn)
        trial = self.study.ask(self.space)
        trial.set_user_attr(DRIVER, self._me)
        self._open[trial.number] = trial
        return trial

    def _job(self, trial: Trial) -> Job | None:
        """Compose a trial's job and enter it in the ledger; values that make no run fail the trial."""
        overrides = [f"{key}={_text(trial.params[key])}" for key in self.space if key in trial.params]
        point = PlannedPoint(f"trial {trial.number}", [*self.request.fixed, *overrides])
        try:
            if len(overrides) < len(self.space):
                raise UserError("its values were not drawn before the driver ended")
            config, _ = check_run(compose_run([*point.overrides, f"seed={self.request.seeds[0]}"]))
        except UserError as error:
            self._fail(trial, str(error))
            return None
        known = self.ledger.jobs.get(config.hash)
        point.label = known.label if known else point.label
        job = enter(self.ledger, point, self.request.seeds[0], config)
        self.ledger.points[point.label] = point
        if trial.number not in job.trials:
            job.trials.append(trial.number)
        self.ledger.save()
        return job

    def watch(self, job: Job) -> str | None:
        """Report every new epoch to Optuna; return a reason if it wants the trial stopped."""
        for step, value in enumerate(self._values(job)):
            for trial in self._open_trials(job):
                if step < self._reported.get(trial.number, 0) or math.isnan(value):
                    continue
                self._reported[trial.number] = step + 1
                if step not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                    trial.report(value, step)
                if trial.should_prune():
                    return f"pruned in epoch {step + 1} at {self.config.metric} {value:g}"
        return None

    def ended(self, job: Job, *, interrupted: bool) -> None:
        """Tell Optuna; a trial that only its driver interrupted stays open, to go on with."""
        values = self._values(job)
        for trial in self._open_trials(job):
            if interrupted:
                self._left.append(trial)
            elif job.status == "pruned":
                self._tell(trial, state=TrialState.PRUNED)
            elif job.status != "finished":
                self._fail(trial, job.reason or job.status)
            elif not values or not math.isfinite(values[-1]):
                self._fail(trial, f"metrics.csv has no finite {self.config.metric}")
            else:
                self._tell(trial, values[-1])

    def _open_trials(self, job: Job) -> list[Trial]:
        return [self._open[number] for number in job.trials if number in self._open]

    def _values(self, job: Job) -> list[float]:
        """Return the metric after every epoch so far."""
        rows = self.ledger.directory(job).metrics()
        return [float(row[self.config.metric]) for row in rows if row.get(self.config.metric)]

    def _fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self._tell(trial, state=TrialState.FAIL)
        say(f"trial {trial.number}: failed: {reason}")

    def _tell(self, trial: Trial, value: float | None = None, state: TrialState | None = None) -> None:
        self.study.tell(trial, value, state)
        del self._open[trial.number]

    def conclude(self) -> int:
        """List the best trials; a failed one is a finding, but there must be one that is not."""
        trials = self.study.get_trials(deepcopy=False)
        counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
        say(f"trials    {len(trials)}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
        ranked = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        ranked.sort(key=lambda trial: trial.value or 0.0, reverse=self.config.direction == "maximize")
        for trial in ranked[:SHOWN]:
            chosen = " ".join(f"{key}={_text(value)}" for key, value in trial.params.items())
            best = "best" if trial is ranked[0] else ""
            say(f"{best:10}trial {trial.number}: {self.config.metric} {trial.value:g} with {chosen}")
        return OK if ranked else FAILED


def _text(value: Any) -> str:
    """Return a value as an override says it."""
    if value is None:
        return "null"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w.-]*", value):
        return "'" + value.replace("'", r"\'") + "'"
    return repr(value) if isinstance(value, float) else str(value)
