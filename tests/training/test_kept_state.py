"""Nothing is lost and nothing is mixed: damaged checkpoints, full disks, what fails beside the training."""

import builtins
import csv
import errno
import io
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from pytorch_lightning.callbacks import Timer

from senet import UserError, files as senet_files
from senet.files import once
from senet.ledger import Ledger
from senet.rundir import RunDir
from senet.training.callbacks.checkpoints import Checkpoints
from senet.training.callbacks.checks import FiniteLossGuard
from senet.training.evaluation import EvaluationModule
from senet.training.loggers import CsvTable
from senet.weights import read_checkpoint

TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=48", "data.val_images=13",
        "data.batch_size=16", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "augment.pad=1",
        "schedule=step")  # fmt: skip
"""Three epochs of three steps."""
FOLDER = ("data=imagefolder", "data.preprocessing.size=8", "data.preprocessing.resize=null", "augment.crop=pad",
          "augment.pad=1", "data.batch_size=8", "trainer.max_epochs=1", "schedule=step")  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def checkpoint(run: Path, which: str = "last") -> Path:
    return run / "checkpoints" / f"{which}.ckpt"


def step(run: Path, which: str = "last") -> int:
    return read_checkpoint(checkpoint(run, which)).step


def assert_same_run(a: Path, b: Path) -> None:
    ours, theirs = (read_checkpoint(checkpoint(run)).state_dict for run in (a, b))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("metrics.csv", "steps.csv", "predictions/last_raw.csv", "predictions/best_raw.csv"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


# Checkpoints ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(train):
    whole, broken = train(*TINY), train(*TINY)
    assert (step(broken), step(broken, "previous")) == (9, 6)
    flip(checkpoint(broken))
    train(resume=broken)
    log = (broken / "log.txt").read_text()
    assert "last.ckpt cannot be read" in log
    assert f"going on from {checkpoint(broken, 'previous')}" in log
    assert "continuing at step 6" in log
    assert (step(broken), step(broken, "previous")) == (9, 6)
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_a_validation_before_its_checkpoint_is_written_anew(train, monkeypatch):
    """Killed between the row of a validation and the checkpoint, a run goes on from one in the middle of the epoch."""
    often = (*TINY, "checkpoint.every_n_steps=5")
    whole = train(*often)
    save = Checkpoints._save

    def killed(self, trainer, module, name):
        if trainer.global_step == 6:
            raise RuntimeError("killed")
        save(self, trainer, module, name)

    monkeypatch.setattr(Checkpoints, "_save", killed)
    cut = train(*often, expect=1)
    monkeypatch.undo()
    assert step(cut) == 5
    assert [row["step"] for row in rows(cut / "metrics.csv")] == ["2", "5"]  # after 3 and 6 steps
    train(resume=cut)
    assert_same_run(whole, cut)


def test_a_damaged_checkpoint_is_never_kept_as_the_one_before(train, monkeypatch):
    broken = train(*TINY, "trainer.max_epochs=2")
    flip(checkpoint(broken))
    monkeypatch.setattr(CsvTable, "append", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "bad disk")))
    train("trainer.max_epochs=3", resume=broken, expect=1)  # saved once, at the step after
    assert (step(broken), step(broken, "previous")) == (5, 3)


def test_without_a_whole_checkpoint_nothing_is_trained(train):
    run = train(*TINY, "trainer.max_epochs=2")
    for which in ("last", "previous", "best"):
        checkpoint(run, which).write_bytes(checkpoint(run, which).read_bytes()[:-1000])
    train(resume=run, expect=2)
    error = RunDir(run).record()["error"]
    assert error.startswith("no checkpoint of the run can be read: ")
    assert "\n" not in error
    assert RunDir(run).record()["status"] == "failed"


@pytest.mark.slow
def test_a_run_killed_between_its_first_best_and_last_goes_on_from_best(train, monkeypatch):
    whole, save = train(*TINY), Checkpoints._save

    def killed(self, trainer, module, name):
        if name == "last":
            raise RuntimeError("killed")
        save(self, trainer, module, name)

    monkeypatch.setattr(Checkpoints, "_save", killed)
    cut = train(*TINY, expect=1)
    monkeypatch.undo()
    assert not checkpoint(cut).exists()
    train(resume=cut)
    assert f"going on from {checkpoint(cut, 'best')}" in (cut / "log.txt").read_text()
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_what_a_kill_left_half_written_is_removed(train):
    run = train(*TINY, "trainer.max_epochs=1")
    left = [run / ".run.json.77.part", run / "checkpoints" / ".last.ckpt.77.part",
            run / "predictions" / ".last_raw.csv.77.part"]  # fmt: skip
    for part in left:
        part.write_text("half")
    train("trainer.max_epochs=2", resume=run)
    assert not [part for part in left if part.exists()]


def test_what_a_kill_left_of_a_study_or_in_the_cache_is_removed(tmp_path):
    left = [tmp_path / name for name in (".study.json.77.part", ".x[1].77.part", ".y.77.part")]
    for part in left:
        part.write_text("half")
    once(tmp_path / "x[1]", lambda file: file.write_text("whole") and None)
    assert [part.exists() for part in left] == [True, False, True]  # who makes y may be at it
    with Ledger.locked(tmp_path):
        assert not any(part.exists() for part in left)


# What fails beside the training ---------------------------------------------------------------------------


def fail_once(monkeypatch, owner: type, method: str, when) -> None:
    original, failed = getattr(owner, method), []

    def failing(self, *arguments):
        if not failed and when(*arguments):
            failed.append(True)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/the/file")
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, failing)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "method", "when", "saved_at", "what"),
    [
        (EvaluationModule, "write_predictions", lambda run, label: True, 4, "writing the predictions (last)"),
        (CsvTable, "append", lambda row: row["step"] == 4, 5, "the logger CsvFiles"),
    ],
)
def test_what_fails_beside_the_training_costs_no_step(
    train, monkeypatch, owner, method, when, saved_at, what
):
    whole = train(*TINY)
    fail_once(monkeypatch, owner, method, when)
    run = train(*TINY, expect=1)
    record = RunDir(run).record()
    assert record["status"] == "failed"
    assert record["error"].startswith(
        f"{what} failed: /the/file: No space left on device; the training so far"
    )
    assert step(run) == saved_at
    monkeypatch.undo()
    train(resume=run)
    ours, theirs = (read_checkpoint(checkpoint(r)).state_dict for r in (whole, run))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_last_step_is_saved_though_its_predictions_are_not(train, monkeypatch):
    fail_once(monkeypatch, EvaluationModule, "write_predictions", lambda run, label: True)
    run = train(*TINY, "trainer.max_epochs=1", expect=1)
    assert step(run) == 3
    assert RunDir(run).record()["status"] == "failed"


def test_pictures_cost_nothing(train, monkeypatch):
    def broken(run: RunDir) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr("senet.analysis.run_page.draw_curves", broken)
    run = train(*TINY, "trainer.max_epochs=1")
    assert RunDir(run).record()["status"] == "finished"
    assert "it could not be drawn (RuntimeError: no font)" in (run / "log.txt").read_text()


# Disks ----------------------------------------------------------------------------------------------------


def at_step(monkeypatch, step: int, happens) -> None:
    """Let something happen to a run after a step."""
    original = Checkpoints.on_train_batch_end

    def train_batch_end(self, trainer, module, *arguments):
        original(self, trainer, module, *arguments)
        if trainer.global_step == step:
            happens(self.run)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", train_batch_end)


@pytest.mark.parametrize(("at", "options"), [(3, ()), (2, ("+trainer.val_check_interval=2",))])
def test_a_stop_waits_for_the_validation_of_its_step(train, monkeypatch, at, options):
    """Cut short, it would be left out by the resumed run, and with it a row, a loss for the plateau and the best."""
    several = (*TINY, "data.eval_batch_size=4", *options)
    whole = train(*several)
    look = FiniteLossGuard.on_train_batch_end

    def stop(self, trainer, *arguments):
        look(self, trainer, *arguments)
        if trainer.global_step == at:
            signal.raise_signal(signal.SIGUSR1)

    monkeypatch.setattr(FiniteLossGuard, "on_train_batch_end", stop)  # the first of the callbacks
    cut = train(*several, expect=128 + signal.SIGUSR1)
    monkeypatch.undo()
    assert [row["step"] for row in rows(cut / "metrics.csv")] == [str(at - 1)]
    assert (step(cut), step(cut, "best")) == (at, at)
    train(resume=cut)
    assert_same_run(whole, cut)


@pytest.mark.slow
def test_a_disk_that_is_full_when_a_checkpoint_is_written(train, monkeypatch):
    whole, saved = train(*TINY), []
    synchronise = senet_files._to_disk

    def full(path: Path) -> None:
        if path.name.startswith(".last.ckpt."):
            saved.append(path)
            if len(saved) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        synchronise(path)

    monkeypatch.setattr(senet_files, "_to_disk", full)
    run = train(*TINY, expect=1)
    record = RunDir(run).record()
    assert record["status"] == "failed"
    assert "No space left on device" in record["error"]
    assert step(run) == 3
    assert not list(run.rglob("*.part"))
    train(resume=run)
    assert_same_run(whole, run)


def test_a_full_disk_has_room_for_the_last_words(tmp_path, monkeypatch):
    run = RunDir.create(tmp_path, "x", {"a": 1}, {"status": "running"})
    run.hold()
    reserve, write = run.path / ".reserve", senet_files.write_text

    def full(path: Path, text: str) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, text)

    monkeypatch.setattr(senet_files, "write_text", full)
    run.update(status="failed", error="no room")
    assert run.record()["status"] == "failed"


def test_a_run_directory_that_is_removed(train, monkeypatch, capsys):
    at_step(monkeypatch, 4, lambda run: shutil.rmtree(run.path))
    with pytest.raises(UserError, match=r"run\.json cannot be read"):  # it is gone
        train(*TINY, expect=0)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("was removed while it was trained in")


@pytest.mark.slow
def test_a_run_directory_that_can_no_longer_be_written(train, monkeypatch, capsys):
    whole, read_only = train(*TINY), []

    def refuse(original, writes):
        def refusing(path, *arguments, **options):
            if writes(*arguments, **options) and any(str(path).startswith(str(run)) for run in read_only):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, *arguments, **options)

        return refusing

    opened = refuse(open, lambda mode="r", *_, **__: bool({*"wax+"} & {*mode}))
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", opened)
    for name in ("replace", "link", "unlink"):
        monkeypatch.setattr(os, name, refuse(getattr(os, name), lambda *_: True))
    at_step(monkeypatch, 4, lambda run: read_only.append(run.path))
    run = train(*TINY, expect=1)
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Read-only file system" in said
    assert said.count("\n") == 1
    assert step(run) == 3
    monkeypatch.undo()
    train(resume=run)
    assert_same_run(whole, run)


@pytest.mark.slow
def test_images_that_vanish(train, monkeypatch, tree):
    files = (*FOLDER, f"data.root={tree}", "data.in_memory=false", "trainer.max_epochs=3",
             "trainer.log_every_n_steps=1")  # fmt: skip
    away = tree.with_name("away")
    whole = train(*files)
    at_step(monkeypatch, 3, lambda run: tree.rename(away))  # in the second epoch of two steps
    run = train(*files, expect=2)
    error = RunDir(run).record()["error"]
    assert "No such file or directory" in error
    assert "\n" not in error
    assert step(run) == 2
    monkeypatch.undo()
    train(resume=run, expect=2)
    assert RunDir(run).record()["error"].startswith(f"data.root={tree}")
    away.rename(tree)
    train(resume=run)
    assert_same_run(whole, run)


# The end, and the newest run --------------------------------------------------------------------------------


@pytest.mark.slow
def test_when_the_time_is_up_the_last_state_is_evaluated_and_saved(train, monkeypatch):
    """The clock is ours: the time is up at the fourth of nine steps, in the middle of an epoch."""
    look, steps = FiniteLossGuard.on_train_batch_end, [0]

    def count(self, trainer, *arguments):
        look(self, trainer, *arguments)
        steps.append(trainer.global_step)

    monkeypatch.setattr(FiniteLossGuard, "on_train_batch_end", count)
    monkeypatch.setattr(Timer, "time_elapsed", lambda *_: 1e9 if steps[-1] >= 4 else 0.0)
    run = train(*TINY, "+trainer.max_time=00:01:00:00")
    summary = json.loads((run / "summary.json").read_text())
    assert RunDir(run).record()["status"] == "finished"
    assert step(run) == summary["steps"] == 4
    assert summary["last"]["val/count"] == 13
    assert len(rows(run / "predictions" / "last_raw.csv")) == 13
    assert [float(row["samples"]) for row in rows(run / "metrics.csv")] == [48, 64]
    monkeypatch.undo()
    train("trainer.max_time=null", resume=run)
    assert read_checkpoint(checkpoint(run)).record["samples_seen"] == 9 * 16


def test_latest_is_the_newest_run_that_trained(train, evaluate, tmp_path):
    first = train(*TINY, "trainer.max_epochs=1")
    latest = first.parent / "latest"
    refused = train(*FOLDER, "data.root=/nowhere", expect=2)
    assert latest.resolve() == first != refused
    second = train(*TINY, "trainer.max_epochs=1", f"model.weights={latest}")
    assert str(checkpoint(first, "best")) in (second / "log.txt").read_text()
    assert latest.resolve() == second
    assert evaluate(f"run={latest}")["checkpoint"] == str(checkpoint(second, "best"))
