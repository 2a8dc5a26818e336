"""Studies with real processes: two ranks per job, a killed driver, jobs that end badly, a search, wandb."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import wandb
from study_fakes import ROOT, ledger_of, statuses

from senet.integrations.wandb_logger import open_logger
from senet.rundir import RunDir
from senet.study import commands
from senet.training.entry import new_run
from senet.training.jobs import run_processes
from senet.training.sections import WandbConfig
from senet.weights import read_checkpoint

pytestmark = pytest.mark.slow
TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=64", "data.val_images=16",
        "trainer.accelerator=cpu", "augment.pad=1", "optimizer.lr=0.01")  # fmt: skip


def start(tmp_path: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "train.py", f"runs_dir={tmp_path}/runs", *overrides],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(found: Callable[[], object], process: subprocess.Popen, seconds: float = 1200) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if value := found():
                return value
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    process.kill()
    raise AssertionError(process.communicate()[0])


def finish(process: subprocess.Popen, seconds: float = 1200) -> str:
    output, _ = process.communicate(timeout=seconds)
    return output


def processes_of(path: Path) -> list[int]:
    """Return the processes whose command line names a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(path).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_killed_driver_and_the_same_command_again(command, compose, tmp_path: Path):
    """Two jobs of two ranks; the driver is killed with -9 inside the first. Nothing is lost, trained twice, or left."""
    overrides = (
        *TINY,
        "data.batch_size=16",
        "trainer.devices=2",
        "trainer.max_epochs=10",  # far longer than the second in which ranks see that their driver is gone
        "ranks.check_every_n_steps=1",
    )
    sweep = ("-m", "se.reduction=2,8", *overrides)
    driver = start(tmp_path, *sweep)
    until(lambda: list((tmp_path / "runs").glob("studies/se*/2*/checkpoints/last.ckpt")), driver)
    driver.kill()
    finish(driver)
    assert "running" in statuses(tmp_path).values()
    path = ledger_of(tmp_path)["path"]
    result = command("train.py", f"runs_dir={tmp_path}/runs", *sweep)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    jobs = list(ledger_of(tmp_path)["jobs"].values())
    assert {job["label"]: (job["status"], job["attempts"]) for job in jobs} == {
        "se.reduction=2": ("finished", 2),
        "se.reduction=8": ("finished", 1),
    }
    assert len(list(path.glob("2*"))) == 2
    assert processes_of(path) == []
    for job in jobs:
        run = RunDir(path / job["run"])
        assert run.config()["se"]["reduction"] == int(job["label"][-1])
        summary = json.loads(run.summary_file.read_text())
        assert (summary["devices"], summary["steps"]) == (2, 20)
        assert summary["config_hash"] == job["hash"]
        with (run.path / "metrics.csv").open() as file:
            assert [int(row["epoch"]) for row in csv.DictReader(file)] == list(range(10))
    # The interrupted run is what it would have been alone and undisturbed.
    values = compose(f"runs_dir={tmp_path}/alone", "se.reduction=2", *overrides)
    values.pop("resume")
    alone, config = new_run(values, [])
    assert run_processes("train", alone, config) == 0
    ours = read_checkpoint(path / jobs[0]["run"] / "checkpoints" / "last.ckpt")
    theirs = read_checkpoint(alone.checkpoints / "last.ckpt")
    assert ours.record["results"] == theirs.record["results"]
    assert all((theirs.state_dict[key] == value).all() for key, value in ours.state_dict.items())


def test_jobs_that_end_badly_do_not_end_the_study(tmp_path: Path, caplog):
    """One is killed, one gives NaN; the last one finishes. With the causes gone, a retry completes it."""
    base = [o for o in TINY if not o.startswith("optimizer.lr")]
    noisy = ("trainer.max_epochs=2", "schedule.warmup_epochs=0")
    driver = start(tmp_path, "-m", "optimizer.lr=0.01,0.02,0.04", *base, *noisy)

    def job(rate: str) -> dict:
        return next(j for j in ledger_of(tmp_path)["jobs"].values() if j["label"] == f"optimizer.lr={rate}")

    until(lambda: job("0.01")["handle"], driver)
    study = ledger_of(tmp_path)["path"]
    config = RunDir(study / job("0.02")["run"]).config_file
    whole = config.read_text()
    assert "lr: 0.02" in whole
    config.write_text(whole.replace("lr: 0.02", "lr: 1.0e+30"))
    os.kill(int(job("0.01")["handle"]), signal.SIGKILL)
    output = finish(driver)
    assert driver.returncode == 1, output
    assert job("0.01")["status"] == "killed"
    assert "SIGKILL" in job("0.01")["reason"]
    assert job("0.02")["status"] == "failed"
    assert "the loss became" in job("0.02")["reason"]
    assert job("0.04")["status"] == "finished"
    for rate in ("0.01", "0.02"):
        assert f"{job(rate)['status']}: optimizer.lr={rate}, seed 0: {job(rate)['reason']}" in output
    assert "2 of 3 runs are missing" in output

    config.write_text(whole)
    caplog.set_level("INFO", logger="senet")
    assert commands.retry(study, []) == 0
    assert "3 points, 3 finished runs" in caplog.text
    for rate, attempts in {"0.01": 2, "0.02": 2, "0.04": 1}.items():
        ended = job(rate)
        assert (ended["status"], ended["reason"], ended["attempts"]) == ("finished", None, attempts)


def test_interrupt_stops_the_jobs_in_order(tmp_path: Path):
    driver = start(tmp_path, "-m", "seed=0,1", *TINY, "trainer.max_epochs=500", "launcher.slots=2x1")
    until(lambda: len(list((tmp_path / "runs").glob("studies/se*/2*/checkpoints/last.ckpt"))) == 2, driver)
    driver.send_signal(signal.SIGINT)
    output = finish(driver, 90)
    assert driver.returncode == 130, output
    assert f"continue with: senet study retry {ledger_of(tmp_path)['path']}\n" in output
    jobs = ledger_of(tmp_path)["jobs"].values()
    assert {(job["status"], job["reason"]) for job in jobs} == {("killed", "stopped, with a checkpoint")}
    assert processes_of(tmp_path) == []


def test_search_with_two_ranks_and_a_wandb_run_for_each_trial(command, tmp_path: Path):
    overrides = (
        *TINY[:-1],
        "trainer.devices=2",
        "trainer.max_epochs=1",
        "logger=wandb",
        "logger.wandb.offline=true",
    )
    result = command("train.py", f"runs_dir={tmp_path}/runs", "search=optuna", "search.trials=2", *overrides)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "trials    2: 2 complete" in result.stdout
    ledger = ledger_of(tmp_path)
    rates = set()
    for job in ledger["jobs"].values():
        run = RunDir(ledger["path"] / job["run"])
        assert json.loads(run.summary_file.read_text())["devices"] == 2
        (offline,) = (run.path / "wandb").glob("offline-run-*")
        assert offline.name.endswith(run.path.name.replace("_", "-"))
        assert "wandb:" not in run.output_file.read_text()  # nothing but our own lines
        assert run.config()["logger"]["wandb"]["group"] is None
        rates.add(run.config()["optimizer"]["lr"])
    assert len(rates) == 2


@pytest.mark.parametrize(("record", "asked", "group"), [
    ({"study": "reduction-1"}, None, "reduction-1"), ({}, None, "se_resnet20-digits"), ({"study": "x"}, "mine", "mine"),
])  # fmt: skip
def test_runs_of_a_study_are_a_group_of_wandb(tmp_path: Path, monkeypatch, record, asked, group):
    given = {}
    monkeypatch.setattr(wandb, "init", lambda **settings: given.update(settings) or Mock())
    run = RunDir.create(tmp_path, "x", {}, {"title": "title", **record})
    open_logger(WandbConfig(group=asked), run, {"name": "se_resnet20-digits"})
    assert (given["group"], given["name"], given["dir"]) == (group, "title", run.path)
