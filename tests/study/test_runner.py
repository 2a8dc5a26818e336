"""How a driver keeps its ledger, whatever happens to its jobs or to itself. Nothing is trained."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from study_fakes import FakeExecutor, flat, ledger_of, statuses

from senet import UserError, cli
from senet.ledger import Job, Ledger
from senet.rundir import RunDir
from senet.study import commands
from senet.study.executors import GONE
from senet.study.runner import close


def test_failures_do_not_end_a_study_and_are_told(study, tmp_path: Path, caplog):
    def curve(config: dict) -> list[float] | int:
        r = config["se"]["reduction"]
        if r == 2:
            raise ValueError("the loss became nan at step 7")
        return {4: -9, 8: 137, 16: 3}.get(r, [70.0])

    assert study(FakeExecutor(curve), "se.reduction=2,4,8,16,32") == 1
    jobs = {job["label"]: job for job in ledger_of(tmp_path)["jobs"].values()}
    assert jobs["se.reduction=2"]["status"] == "failed"
    assert jobs["se.reduction=2"]["reason"] == "the loss became nan at step 7"
    assert jobs["se.reduction=4"]["status"] == jobs["se.reduction=8"]["status"] == "killed"
    assert "SIGKILL" in jobs["se.reduction=8"]["reason"]
    assert jobs["se.reduction=16"]["reason"].startswith("its process ended with status 3")
    assert jobs["se.reduction=32"]["status"] == "finished"
    path = ledger_of(tmp_path)["path"]
    assert commands.status(path) == 1
    healed = FakeExecutor(flat)
    assert study(healed, call=lambda: commands.retry(path, ["launcher.slots=2x1"])) == 0
    assert len(healed.started) == 4
    assert {job["attempts"] for job in ledger_of(tmp_path)["jobs"].values()} == {1, 2}
    assert commands.status(path) == 0


def test_a_directory_that_vanishes_before_its_job_starts_costs_that_job_alone(study, tmp_path: Path):
    executor = FakeExecutor(flat)
    submit = executor.submit

    def removing(run: Path, slot: object) -> str:
        for other in set(run.parent.glob("2*")) - {run, *executor.started}:
            if "reduction4" in other.name:
                shutil.rmtree(other)
        return submit(run, slot)

    executor.submit = removing  # type: ignore[method-assign]
    assert study(executor, "se.reduction=2,4,8", "seed=0") == 1
    jobs = {job["label"]: job for job in ledger_of(tmp_path)["jobs"].values()}
    assert [jobs[f"se.reduction={r}"]["status"] for r in (2, 4, 8)] == ["finished", "failed", "finished"]
    assert jobs["se.reduction=4"]["reason"].startswith("it could not be started: ")
    assert study(FakeExecutor(flat), "se.reduction=2,4,8", "seed=0") == 0


def test_a_damaged_record_costs_that_run_alone(study, tmp_path: Path, caplog):
    caplog.set_level("INFO", logger="senet")
    assert study(FakeExecutor(lambda config: 3), "se.reduction=2,4", "seed=0") == 1
    path = ledger_of(tmp_path)["path"]
    (damaged,) = path.glob("2*reduction2*/run.json")
    for text in ("{", "{}"):
        damaged.write_text(text)
        assert commands.status(path) == 1
        assert study(FakeExecutor(flat), call=lambda: commands.retry(path, [])) == (text == "{")
    assert set(statuses(tmp_path).values()) == {"finished"}


def test_a_hangup_is_not_taken_for_the_end_of_the_driver(tmp_path: Path):
    run = RunDir.create(tmp_path, "name", {}, {"status": "starting"})
    job = Job("hash", "point", 0, [], run.path.name)
    for status, words in {-signal.SIGHUP: "SIGHUP", GONE: "with the process that ran the study"}.items():
        close(job, run, status)
        assert words in (job.reason or "")


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["last", "previous"])
def test_a_driver_that_dies_leaves_a_whole_ledger(study, tmp_path: Path, kept: str):
    """The run under way is continued from its checkpoint; the table is that of an undisturbed study."""
    overrides = ("se.reduction=2,4,8", "seed=0,1")
    with pytest.raises(KeyboardInterrupt):
        study(FakeExecutor(flat, die_at=3), *overrides)
    before = list(statuses(tmp_path).values())
    assert before.count("finished") == 3
    path = ledger_of(tmp_path)["path"]
    # As if it had been killed while a fourth ran: the process is gone, its checkpoint is of the first epoch.
    ledger = Ledger.open(path)
    job = next(job for job in ledger.jobs.values() if job.status != "finished")
    job.status, job.handle, job.attempts = "running", "999", 1
    ledger.directory(job).update(status="running")
    ledger.directory(job).checkpoint(kept).write_text("1")
    ledger.save()
    rest = FakeExecutor(flat)
    assert study(rest, *overrides) == 0
    assert [run.name for run in rest.started].count(job.run) == 1
    assert len(rest.started) == 3
    rows = (path / job.run / "metrics.csv").read_text().splitlines()
    assert rows[1:] == [f"1,1,{60.0 + job.seed}"]  # only the second epoch was left
    assert set(statuses(tmp_path).values()) == {"finished"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_stop_asked_for_while_a_job_starts_stops_that_job(study, tmp_path: Path, number, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)  # nohup would have one ignored
    executor = FakeExecutor(flat)
    submit = executor.submit

    def interrupted(run: Path, slot: object) -> str:
        handle = submit(run, slot)
        os.kill(os.getpid(), number)
        return handle

    executor.submit = interrupted  # type: ignore[method-assign]
    assert study(executor, "se.reduction=2,4", "seed=0", "launcher.slots=1x1") != 0
    assert executor.stopped == ["1"]
    assert len(executor.started) == 1


def test_an_extension_that_was_stopped_goes_on_as_it_says(study, tmp_path: Path, caplog):
    """The study's own command has other seeds."""
    caplog.set_level("INFO", logger="senet")
    assert study(FakeExecutor(flat), "se.reduction=2,4", "seed=0") == 0
    path = ledger_of(tmp_path)["path"]
    executor = FakeExecutor(flat)
    executor.poll = lambda handle: os.kill(os.getpid(), signal.SIGTERM) or FakeExecutor.poll(executor, handle)  # type: ignore[method-assign]
    assert study(executor, call=lambda: commands.extend(path, ["seed=1"])) == commands.INTERRUPTED
    assert list(statuses(tmp_path).values()).count("finished") < 4
    command = shlex.split(caplog.text.rpartition("stopped; continue with: ")[2].splitlines()[0])
    assert command[0] == "senet"
    assert study(FakeExecutor(flat), call=lambda: cli.main(command[1:])) == 0
    assert list(statuses(tmp_path).values()) == ["finished"] * 4


def test_only_one_driver_at_a_time(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "ablation=squeeze") == 0
    path = ledger_of(tmp_path)["path"]
    code = "import sys, pathlib, senet.files as f; f.hold(pathlib.Path(sys.argv[1])); print(1); input()"
    command = [sys.executable, "-c", code, str(path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline()  # it holds the study
        with pytest.raises(UserError, match=f"process {other.pid} is running this study"):
            study(FakeExecutor(flat), "ablation=squeeze")
        other.kill()
    assert study(FakeExecutor(flat), "ablation=squeeze") == 0


@pytest.mark.slow
def test_a_run_directory_that_was_removed_is_made_again(study, tmp_path: Path):
    assert study(FakeExecutor(flat), "ablation=squeeze") == 0
    ledger = ledger_of(tmp_path)
    job = next(iter(ledger["jobs"].values()))
    shutil.rmtree(ledger["path"] / job["run"])
    assert commands.status(ledger["path"]) == 1
    with pytest.raises(UserError, match="run the study's command again"):
        commands.retry(ledger["path"], [])
    again = FakeExecutor(flat)
    assert study(again, "ablation=squeeze") == 0
    assert len(again.started) == 1
