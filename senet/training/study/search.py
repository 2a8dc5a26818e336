"""Search with Optuna's ask and tell. Only the driver knows Optuna; a trial's ranks know their configuration."""

import csv
import math
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
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from senet.errors import UserError, did_you_mean
from senet.training import launch
from senet.training.config import config_hash, validate
from senet.training.console import say
from senet.training.entry import check_run
from senet.training.rundir import RunDir
from senet.training.study.commands import INTERRUPTED, execute, open_ledger
from senet.training.study.ledger import Job, Ledger, Point
from senet.training.study.plan import Request, compose_run, enter

SHOWN = 5
"""Best trials that are listed at the end."""


@dataclass(frozen=True)
class SearchConfig:
    """What is searched and how.

    Attributes:
        name: "optuna".
        metric: column of metrics.csv; its last value is a trial's.
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
    trials: int
    sampler: str
    pruner: str
    startup_trials: int
    seed: int
    storage: str | None
    space: dict[str, Any]

    def __post_init__(self) -> None:
        valid = {"sampler": ("tpe", "random"), "pruner": ("median", "halving", "none")}
        for key, choices in valid.items():
            if getattr(self, key) not in choices:
                raise UserError(
                    f'search.{key}="{getattr(self, key)}"{did_you_mean(getattr(self, key), choices)}'
                )
        if self.trials < 1 or not self.space:
            raise UserError("search.trials must be 1 or more, and search.space name at least one key")


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


def open_study(config: SearchConfig, directory: Path) -> optuna.Study:
    """Return the search's Optuna study, known or new."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage: BaseStorage | str | None = config.storage
    if storage is None:
        directory.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(directory / "optuna.journal")))
    pruners: dict[str, optuna.pruners.BasePruner] = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=config.startup_trials),
        "halving": optuna.pruners.SuccessiveHalvingPruner(),
        "none": optuna.pruners.NopPruner(),
    }
    return optuna.create_study(
        storage=storage,
        study_name=directory.name,
        direction=config.direction,
        sampler=_sampler(config, 0),
        pruner=pruners[config.pruner],
        load_if_exists=True,
    )


def _sampler(config: SearchConfig, drawn: int) -> optuna.samplers.BaseSampler:
    """Return the sampler of the next draw: a search that goes on must not draw again what it drew at first."""
    seed = config.seed + 1_000_003 * drawn
    if config.sampler == "tpe":
        return optuna.samplers.TPESampler(n_startup_trials=config.startup_trials, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


class Search:
    """A source of jobs that asks Optuna and tells it what came of them.

    Args:
        study: Optuna's.
        config: of the search.
        request: what the user typed, whose fixed overrides every trial has.
        ledger: of the search, locked.
    """

    def __init__(self, study: optuna.Study, config: SearchConfig, request: Request, ledger: Ledger) -> None:
        self.study, self.config, self.request, self.ledger = study, config, request, ledger
        self.space = distributions(config.space)
        left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        self._left = [Trial(study, trial._trial_id) for trial in left]
        self._reported: dict[int, int] = {}

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
        return self.study.ask(self.space)

    def _job(self, trial: Trial) -> Job | None:
        """Compose a trial's job and enter it in the ledger; values that make no run fail the trial."""
        overrides = [f"{key}={_text(trial.params[key])}" for key in self.space if key in trial.params]
        point = Point(f"trial {trial.number}", [*self.request.fixed, *overrides])
        try:
            if len(overrides) < len(self.space):
                raise UserError("its values were not drawn before the driver ended")
            values = compose_run([*point.overrides, f"seed={self.request.seeds[0]}"])
            config, _ = check_run(values)
        except UserError as error:
            self._fail(trial.number, str(error))
            return None
        known = self.ledger.jobs.get(config_hash(values))
        point.label = known.label if known else point.label
        job = enter(self.ledger, point, self.request.seeds[0], values, config)
        self.ledger.points[point.label] = point
        if trial.number not in job.trials:
            job.trials.append(trial.number)
        self.ledger.save()
        return job

    def watch(self, job: Job) -> str | None:
        """Report every new epoch to Optuna; return a reason if it wants the trial stopped."""
        for step, value in enumerate(values_of(self.ledger.directory(job), self.config.metric)):
            for number in job.trials:
                if step < self._reported.get(number, 0) or math.isnan(value):
                    continue
                self._reported[number] = step + 1
                trial = self._trial(number)
                if step not in self.study.get_trials(deepcopy=False)[number].intermediate_values:
                    trial.report(value, step)
                if trial.should_prune():
                    return f"pruned in epoch {step + 1} at {self.config.metric} {value:g}"
        return None

    def _trial(self, number: int) -> Trial:
        return Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)

    def ended(self, job: Job, *, interrupted: bool) -> None:
        """Tell Optuna; a trial that only its driver interrupted stays open, to go on with."""
        if interrupted:
            self._left += [self._trial(number) for number in job.trials if self._open(number)]
            return
        values = values_of(self.ledger.directory(job), self.config.metric)
        for number in job.trials:
            if not self._open(number):
                continue
            if job.status == "pruned":
                self.study.tell(number, state=TrialState.PRUNED)
            elif job.status != "finished":
                self._fail(number, job.reason or job.status)
            elif not values or not math.isfinite(values[-1]):
                self._fail(number, f"metrics.csv has no finite {self.config.metric}")
            else:
                self.study.tell(number, values[-1])

    def _open(self, number: int) -> bool:
        return not self.study.get_trials(deepcopy=False)[number].state.is_finished()

    def _fail(self, number: int, reason: str) -> None:
        self._trial(number).set_user_attr("reason", reason)
        self.study.tell(number, state=TrialState.FAIL)
        say(f"trial {number}: failed: {reason}")


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else str(value)


def values_of(run: RunDir, metric: str) -> list[float]:
    """Return a metric after every epoch so far."""
    file = run.path / "metrics.csv"
    if not file.is_file():
        return []
    with file.open(newline="") as table:
        return [float(row[metric]) for row in csv.DictReader(table) if row.get(metric)]


def search(request: Request, typed: list[str]) -> int:
    """Run a search, or go on with it, until it has its number of trials; return the exit status."""
    if request.ablation is not None or request.sweeps or len(request.seeds) > 1:
        raise UserError(
            "search=optuna chooses the values itself: drop ablation=, lists of values and of seeds"
        )
    config: SearchConfig = validate(SearchConfig, request.base["search"])
    ledger = open_ledger(request, typed)
    ledger.head["search"] = request.base["search"]
    with ledger.lock():
        ledger.save()
        study = open_study(config, ledger.path)
        status = execute(ledger, request.launcher, [], Search(study, config, request, ledger))
    trials = study.get_trials(deepcopy=False)
    counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState}
    say(f"trials    {len(trials)}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n))
    if not counts["complete"]:
        return max(status, launch.FAILED)
    ranked = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    ranked.sort(key=lambda trial: trial.value or 0.0, reverse=config.direction == "maximize")
    for trial in ranked[:SHOWN]:
        chosen = " ".join(f"{key}={_text(value)}" for key, value in trial.params.items())
        best = "best" if trial is ranked[0] else ""
        say(f"{best:10}trial {trial.number}: {config.metric} {trial.value:g} with {chosen}")
    return status if status == INTERRUPTED else launch.OK  # a failed trial is a finding
