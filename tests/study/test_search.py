"""Optuna's ask and tell, with an executor that runs nothing: counts, pruning, failures, going on."""

import math
import shlex
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import TrialState
from study_fakes import FakeExecutor, ledger_of

from senet import UserError
from senet.integrations import optuna_search
from senet.integrations.optuna_search import distributions
from senet.rundir import RunDir
from senet.study import commands

SEARCH = ("search=optuna", "search.pruner=none")


def quality(config: dict) -> list[float]:
    """Best at lr 0.1, whatever else."""
    best = 90 - 10 * abs(math.log10(config["optimizer"]["lr"] / 0.1))
    return [best - 20, best - 10, best]


def optuna_study(tmp_path: Path) -> optuna.Study:
    path = ledger_of(tmp_path)["path"]
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(path / "optuna.journal"))
    )
    return optuna.load_study(study_name=path.name, storage=storage)


@pytest.mark.slow
def test_every_trial_runs_what_optuna_drew(study, tmp_path: Path):
    assert study(FakeExecutor(quality), *SEARCH, "search.trials=8", "launcher.slots=2x1") == 0
    trials = optuna_study(tmp_path).get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 8
    ledger = ledger_of(tmp_path)
    runs = {n: RunDir(ledger["path"] / job["run"]) for job in ledger["jobs"].values() for n in job["trials"]}
    assert runs.keys() == set(range(8))
    for trial in trials:
        config = runs[trial.number].config()
        drawn = {"optimizer.lr": config["optimizer"]["lr"], "se.reduction": config["se"]["reduction"],
                 "optimizer.weight_decay": config["optimizer"]["weight_decay"]}  # fmt: skip
        assert drawn == trial.params
        assert trial.value == pytest.approx(quality(config)[-1])
        assert list(trial.intermediate_values) == [0, 1, 2]


def test_more_trials_go_on_and_draw_anew(study, tmp_path: Path):
    study(FakeExecutor(quality), *SEARCH, "search.trials=3", "search.sampler=random")
    first = [t.params for t in optuna_study(tmp_path).get_trials()]
    again = FakeExecutor(quality)
    study(again, *SEARCH, "search.trials=3", "search.sampler=random")
    assert again.started == []
    study(again, *SEARCH, "search.trials=5", "search.sampler=random")
    params = [t.params for t in optuna_study(tmp_path).get_trials()]
    assert len(again.started) == 2
    assert params[:3] == first
    assert len({p["optimizer.lr"] for p in params}) == 5


@pytest.mark.slow
def test_pruned_trials_are_stopped(study, tmp_path: Path):
    """Five trials warm up; then every trial whose curve lies below their median is stopped."""
    seen = iter([50.0] * 5 + [10.0, 60.0])
    executor = FakeExecutor(lambda config: [next(seen)] * 50)
    assert study(executor, "search=optuna", "search.trials=7") == 0
    states = [t.state for t in optuna_study(tmp_path).get_trials()]
    assert states == [TrialState.COMPLETE] * 5 + [TrialState.PRUNED, TrialState.COMPLETE]
    assert len(executor.stopped) == 1
    job = next(job for job in ledger_of(tmp_path)["jobs"].values() if job["trials"] == [5])
    assert job["status"] == "pruned"
    assert "val/top1 10" in job["reason"]


@pytest.mark.slow
def test_nan_failed_and_impossible_trials_are_failed_with_a_reason(study, tmp_path: Path):
    calls = iter(range(99))

    def curve(config: dict) -> list[float] | int:
        call = next(calls)
        if call == 0:
            raise ValueError("the loss became nan at step 7")
        return {1: -9, 2: [math.nan]}.get(call, [70.0])

    axis = "search.space.se.reduction.choices=[64,100]"  # 100 is more than the widest stage has
    assert study(FakeExecutor(curve), *SEARCH, "search.trials=12", axis) == 0
    trials = optuna_study(tmp_path).get_trials()
    assert len(trials) == 12
    reasons = [t.user_attrs.get("reason", "") for t in trials if t.state == TrialState.FAIL]
    assert any("the loss became nan at step 7" in r for r in reasons)
    assert any("SIGKILL" in r for r in reasons)
    assert any("no finite val/top1" in r for r in reasons)
    assert any("se.reduction=100" in r for r in reasons)
    assert all(t.state in (TrialState.FAIL, TrialState.COMPLETE) for t in trials)
    assert all((t.state == TrialState.FAIL) for t in trials if t.params["se.reduction"] == 100)


def test_a_killed_driver_loses_no_trial(study, tmp_path: Path):
    """The trial drawn when the driver died is run by the next one; the number of trials is right."""
    with pytest.raises(KeyboardInterrupt):
        study(FakeExecutor(quality, die_at=2), *SEARCH, "search.trials=4")
    states = [t.state for t in optuna_study(tmp_path).get_trials()]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING]
    open_params = optuna_study(tmp_path).get_trials()[2].params
    rest = FakeExecutor(quality)
    assert study(rest, *SEARCH, "search.trials=4") == 0
    trials = optuna_study(tmp_path).get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 4
    assert trials[2].params == open_params
    assert len(rest.started) == 2


@pytest.mark.slow
def test_trials_can_lie_in_a_database(study, tmp_path: Path):
    """A driver that died left a trial open there too; the next one goes on with it."""
    storage = f"search.storage=sqlite:///{tmp_path}/trials.db"
    with pytest.raises(KeyboardInterrupt):
        study(FakeExecutor(quality, die_at=1), *SEARCH, "search.trials=2", storage)
    assert study(FakeExecutor(quality), *SEARCH, "search.trials=2", storage) == 0
    name = ledger_of(tmp_path)["name"]
    trials = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path}/trials.db").get_trials()
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    with pytest.raises(UserError, match=r"search\.storage=sqlite:////nowhere/trials\.db: "):
        study(FakeExecutor(quality), *SEARCH, "search.storage=sqlite:////nowhere/trials.db")


@pytest.mark.slow
def test_drivers_that_share_a_database_leave_each_others_trials_alone(study, tmp_path: Path, monkeypatch):
    """One dies with a trial open; another, elsewhere, does the rest of them; then the first one finishes its own."""
    address = f"sqlite:///{tmp_path}/trials.db"
    typed = (*SEARCH, "search.trials=5", f"search.storage={address}")
    with pytest.raises(KeyboardInterrupt):
        study(FakeExecutor(quality, die_at=1), *typed)
    name = ledger_of(tmp_path)["name"]
    seeding = optuna_search._sampler

    def third_driver_asks(config, drawn: int):
        """A third one draws between this one's look at the number of trials and its own draw."""
        if drawn == 3:
            optuna.load_study(study_name=name, storage=address).ask()
        return seeding(config, drawn)

    monkeypatch.setattr(optuna_search, "_sampler", third_driver_asks)
    other = FakeExecutor(quality)
    assert study(other, *typed, f"runs_dir={tmp_path}/elsewhere") == 0
    assert len(other.started) == 2
    states = [t.state for t in optuna.load_study(study_name=name, storage=address).get_trials()]
    done, running = TrialState.COMPLETE, TrialState.RUNNING
    assert states == [done, running, done, running, done]
    first = FakeExecutor(quality)
    assert study(first, *typed) == 0
    assert len(first.started) == 1
    states = [t.state for t in optuna.load_study(study_name=name, storage=address).get_trials()]
    assert states == [done, done, done, running, done]


def test_what_is_drawn_is_what_hydra_reads():
    parser = OverridesParser.create()
    for value in (None, True, 3, 1e-5, 0.1, "sigmoid", "3x3", "a b", "it's", "a,b", "1", "x=y", [2, 3]):
        override = parser.parse_override(f"key={optuna_search._text(value)}")
        assert not override.is_sweep_override()
        read = override.value()
        assert type(read) is type(value) or isinstance(read, str)
        assert str(read) == str(value)


def test_a_figure_that_there_is_not_is_said_before_anything_runs(study, tmp_path: Path):
    with pytest.raises(UserError, match=r'search\.metric=val/top2 is no figure .*did you mean "val/top'):
        study(FakeExecutor(quality), *SEARCH, "search.metric=val/top2")


def test_a_search_goes_on_with_its_own_command_and_its_failures_are_findings(study, tmp_path: Path, caplog):
    caplog.set_level("INFO", logger="senet")
    rates = iter([0, 1])

    def curve(config: dict) -> list[float] | int:
        return quality(config) if next(rates) else 1

    assert study(FakeExecutor(curve), *SEARCH, "search.trials=2", "name='a b'") == 0
    assert "trials    2: 1 complete, 1 fail" in caplog.text
    assert "study retry" not in caplog.text  # which a search refuses
    ledger = ledger_of(tmp_path)
    with pytest.raises(UserError, match="a search goes on with its command") as refused:
        commands.retry(ledger["path"], [])
    assert shlex.split(str(refused.value).partition("train.py ")[2]) == ledger["command"]


def test_equal_draws_share_one_run(study, tmp_path: Path):
    overrides = ("~search.space.optimizer", "search.space.se.reduction.choices=[4,8]", "search.trials=6")
    executor = FakeExecutor(lambda config: [float(config["se"]["reduction"])])
    assert study(executor, *SEARCH, *overrides) == 0
    trials = optuna_study(tmp_path).get_trials()
    assert [t.value for t in trials] == [float(t.params["se.reduction"]) for t in trials]
    assert len(executor.started) == len({t.params["se.reduction"] for t in trials}) == 2


def test_space():
    space = distributions(
        {
            "optimizer": {"lr": {"low": 0.1, "high": 1.0, "log": True}},
            "data.batch_size": {"low": 8, "high": 32, "step": 8},
        }
    )
    assert space["optimizer.lr"] == optuna.distributions.FloatDistribution(0.1, 1.0, log=True)
    assert space["data.batch_size"] == optuna.distributions.IntDistribution(8, 32, step=8)
    for wrong in (
        {"lr": 3},
        {"lr": {"low": 1.0}},
        {"lr": {"choices": [1], "low": 2}},
        {"lr": {"low": 2, "high": 1}},
    ):
        with pytest.raises(UserError, match=r"search\.space\.lr"):
            distributions(wrong)
