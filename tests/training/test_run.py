"""A run from start to end, in this process: what its directory holds, resume, averages, guards."""

import csv
import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from senet.rundir import RunDir
from senet.training.callbacks.checks import FiniteLossGuard
from senet.training.callbacks.progress import in_lines
from senet.training.entry import resume_run
from senet.training.loggers import CsvFiles
from senet.training.module import ClassificationModule
from senet.weights import read_checkpoint

QUICK = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=96", "data.val_images=39",
         "data.batch_size=16", "trainer.max_epochs=2", "trainer.log_every_n_steps=2", "augment.pad=1")  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / f"{name}.ckpt").state_dict


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [key for key in a if not torch.equal(a[key], b[key])]
    assert not different


@pytest.mark.slow
def test_directory_holds_everything(train):
    run = train(*QUICK, "ema.decay=0.9")
    record, summary = RunDir(run).record(), json.loads((run / "summary.json").read_text())
    assert record["status"] == "finished"
    assert record["environment"]["packages"]["torch"] == version("torch")
    assert record["overrides"] == [*QUICK, "ema.decay=0.9"]
    assert summary["config_hash"] == record["config_hash"]
    assert summary["parameters"] == sum(
        v.numel() for k, v in weights(run).items()
        if k.startswith("model.") and "running" not in k and "num_batches" not in k
    )  # fmt: skip
    assert summary["se_widths"]["SE_4_3"] == [64, 4]
    assert summary["samples_seen"] == 2 * 96
    table = rows(run / "metrics.csv")
    assert [r["epoch"] for r in table] == ["0", "1"]
    assert summary["last"]["val/top1"] == pytest.approx(float(table[-1]["val/top1"]))
    for weights_of in ("val", "val_ema"):  # top-5 is of the epoch that was best, not of another
        best = max(table, key=lambda row: float(row[f"{weights_of}/top1"]))
        for figure in ("top1", "top5"):
            assert summary["best"][f"{weights_of}/{figure}"] == pytest.approx(
                float(best[f"{weights_of}/{figure}"])
            )
    assert [r["step"] for r in rows(run / "steps.csv")] == ["2", "4", "6", "8", "10", "12"]
    for name in ("last_raw", "last_ema", "best_raw", "best_ema"):
        predictions = rows(run / "predictions" / f"{name}.csv")
        assert [int(r["id"]) for r in predictions] == list(range(39))
    last = rows(run / "predictions" / "last_raw.csv")
    share = 100 * sum(int(r["correct"]) for r in last) / 39
    assert share == pytest.approx(summary["last"]["val/top1"])
    assert (run / "curves.png").stat().st_size > 10_000
    log = (run / "log.txt").read_text()
    assert "epoch   2/2" in log
    assert f"page      {run / 'report.html'}" in log
    wrong = 39 - sum(int(r["correct"]) for r in rows(run / "predictions" / "last_ema.csv"))
    assert len(list((run / "mistakes").iterdir())) == min(24, wrong)
    assert (run.parent / "latest").resolve() == run
    assert not list(run.rglob(".*.part"))


def test_epoch_lines_fit_a_terminal():
    parts = [
        "epoch  90/100",
        "loss 2.123 val 1.988",
        "top-1 33.33 top-5 98.61",
        "average 84.00",
        "12,345/s",
        "2.1 h left",
    ]
    lines = in_lines(parts).split("\n")
    assert max(map(len, lines)) <= 80
    assert " ".join(lines).split() == " ".join(parts).split()
    assert in_lines(parts[:3]) == "  ".join(parts[:3])


@pytest.mark.slow
def test_two_runs_never_share_a_directory(train):
    first, second = train(*QUICK, "debug=one_batch"), train(*QUICK, "debug=one_batch")
    assert first != second
    assert_equal(weights(first), weights(second))  # the seed decides everything


@pytest.mark.slow
def test_last_epoch_rate_is_the_schedules(train):
    run = train(*QUICK, "recipe=cifar", "data.batch_size=16", "trainer.max_epochs=4", "augment.pad=1")
    rates = [float(r["lr"]) for r in rows(run / "metrics.csv")]
    # lr 0.1 at batch 128, so 0.0125 at 16; one epoch at a tenth, then divided at 1/2 and 3/4.
    assert rates == pytest.approx([0.00125, 0.0125, 0.00125, 0.000125])


def test_a_row_holds_the_loss_of_its_steps_last_batch(train, monkeypatch):
    """Also where a step accumulates the gradients of several batches, the last of an epoch of fewer."""
    losses = []
    original = ClassificationModule.training_step

    def record(self, batch, batch_idx):
        loss = original(self, batch, batch_idx)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(ClassificationModule, "training_step", record)
    one = ("trainer.log_every_n_steps=1", "trainer.max_epochs=1")
    run = train(*QUICK, *one, "trainer.accumulate_grad_batches=4")
    assert [float(row["train/step_loss"]) for row in rows(run / "steps.csv")] == pytest.approx(
        [losses[3], losses[5]], abs=1e-6
    )
    assert float(rows(run / "metrics.csv")[0]["train/loss"]) == pytest.approx(sum(losses) / 6, abs=1e-6)


def test_a_tiny_rate_is_not_recorded_as_none(tmp_path: Path):
    files = CsvFiles(RunDir.create(tmp_path, "run", {}, {}), 0)
    files.log_metrics({"epoch": 0, "val/loss": 1 / 3, "lr": 3.1234567e-8}, step=1)
    assert rows(files.epochs.path) == [
        {"step": "1", "epoch": "0", "val/loss": "0.333333", "lr": "3.12346e-08"}
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("ema.decay=0.9",), ("mixing.mixup=0.2", "trainer.accumulate_grad_batches=2")]
)
def test_killed_in_mid_epoch_and_resumed_is_bit_exact(train, monkeypatch, options):
    whole = train(*QUICK, *options, "checkpoint.every_n_steps=2")
    original = FiniteLossGuard.on_train_batch_end

    def crash(self, trainer, module, outputs, batch, batch_idx):
        original(self, trainer, module, outputs, batch, batch_idx)
        if trainer.current_epoch == 1 and batch_idx == 4:
            raise RuntimeError("power cut")

    monkeypatch.setattr(FiniteLossGuard, "on_train_batch_end", crash)
    broken = train(*QUICK, *options, "checkpoint.every_n_steps=2", expect=1)
    record = RunDir(broken).record()
    assert record["status"] == "failed"
    assert "power cut" in record["error"]
    assert not (broken / "summary.json").exists()
    monkeypatch.undo()
    assert train(resume=broken) == broken
    assert_equal(weights(whole), weights(broken))
    for name in ("metrics.csv", "steps.csv"):
        assert rows(whole / name) == rows(broken / name)
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (whole, broken))
    for key in ("best", "last", "train_loss", "samples_seen", "steps"):
        assert ours[key] == theirs[key]


def test_nothing_is_saved_amid_a_step(train, monkeypatch):
    """A checkpoint does not hold the gradients of the batches that a step has accumulated so far."""
    options = (
        *QUICK,
        "trainer.accumulate_grad_batches=3",
        "checkpoint.every_n_steps=1",
        "trainer.max_epochs=1",
    )
    whole = train(*options)
    original, batches = FiniteLossGuard.on_train_batch_end, []

    def crash(self, *arguments):
        original(self, *arguments)
        batches.append(1)
        if len(batches) in (2, 2 + 5):  # amid the first step; in the second attempt amid the second
            raise RuntimeError("power cut")

    monkeypatch.setattr(FiniteLossGuard, "on_train_batch_end", crash)
    broken = RunDir(train(*options, expect=1))
    assert not broken.checkpoint("last").exists()
    broken.start_over()
    train(resume=broken.path, expect=1)
    assert read_checkpoint(broken.checkpoint("last")).step == 1
    train(resume=broken.path)
    assert_equal(weights(whole), weights(broken.path))


@pytest.mark.slow
def test_finished_run_can_be_extended_but_not_changed(train):
    from senet import UserError

    run = train(*QUICK, "schedule=step")
    train("trainer.max_epochs=3", resume=run)
    assert len(rows(run / "metrics.csv")) == 3
    with pytest.raises(UserError, match="continues the run as it was"):
        resume_run(run, ["optimizer.lr=3"])
    with pytest.raises(UserError, match="is not a run directory"):
        resume_run(run / "nothing", [])


@pytest.mark.slow
def test_running_run_is_not_resumed(train, command):
    run = train(*QUICK, "debug=one_batch")  # this process holds it as long as it lives
    result = command("train.py", f"resume={run}")
    assert result.returncode == 2
    assert result.stderr == f"error: {run} is still running (process {os.getpid()})\n"


@pytest.mark.slow
def test_average_equals_its_definition(train, monkeypatch):
    """Raw weights after every step, averaged here, give the stored average."""
    history = []
    original = FiniteLossGuard.on_train_batch_end

    def record(self, trainer, module, outputs, batch, batch_idx):
        original(self, trainer, module, outputs, batch, batch_idx)
        history.append(module.model.head.fc.weight.detach().double().clone())

    monkeypatch.setattr(FiniteLossGuard, "on_train_batch_end", record)
    run = train(*QUICK, "ema.decay=0.8", "ema.warmup=false")
    average = history[0]
    for value in history[1:]:
        average = 0.8 * average + 0.2 * value
    stored = weights(run)
    torch.testing.assert_close(stored["ema.module.head.fc.weight"].double(), average, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(stored["model.head.fc.weight"].double(), history[-1])
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert checkpoint.choose("auto") == "ema"
    for which, prefix in (("raw", "model."), ("ema", "ema.module.")):
        network = checkpoint.network(which)
        assert torch.equal(network.head.fc.weight, stored[f"{prefix}head.fc.weight"])


def test_loss_that_is_not_finite_names_the_batch(train):
    run = train(*QUICK, "optimizer.lr=1e18", "optimizer.lr_batch=null", "schedule.warmup_epochs=0", expect=2)
    record = RunDir(run).record()
    assert "the loss became" in record["error"]
    assert "synthetic/" in record["error"]
    assert not list((run / "checkpoints").iterdir())  # nothing from after the failure


@pytest.mark.slow
def test_overfitting_one_batch(train):
    run = train(
        *QUICK, "debug=overfit", "trainer.max_epochs=30", "optimizer.lr_batch=null", "optimizer.lr=0.05"
    )
    assert float(rows(run / "metrics.csv")[-1]["train/loss"]) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("compile=true",), ("trainer.precision=bf16-mixed",), ("channels_last=false",)]
)
def test_ways_to_run_keep_the_keys_and_the_learning(train, options):
    plain = train(*QUICK)
    other = train(*QUICK, *options)
    assert weights(plain).keys() == weights(other).keys()
    a, b = (float(rows(r / "metrics.csv")[-1]["train/loss"]) for r in (plain, other))
    assert a == pytest.approx(b, rel=0.1)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"), 18),
        (("trainer.max_epochs=5", "trainer.max_steps=8"), 8),
        (("+trainer.val_check_interval=5",), 12),
    ],
)
def test_the_end_is_validated_and_saved(train, options, steps):
    run = train(*QUICK, *options)
    assert read_checkpoint(run / "checkpoints" / "last.ckpt").step == steps
    assert int(rows(run / "metrics.csv")[-1]["step"]) in (steps - 1, steps)
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == steps
    assert summary["last"]["val/count"] == 39


@pytest.mark.slow
def test_a_run_cut_by_steps_goes_on_where_it_was(train):
    whole = train(*QUICK, "schedule=step")
    cut = train(*QUICK, "schedule=step", "trainer.max_steps=9", "schedule.milestones=[0.99]")
    assert read_checkpoint(cut / "checkpoints" / "last.ckpt").step == 9
    train("trainer.max_steps=12", resume=cut)
    assert read_checkpoint(cut / "checkpoints" / "last.ckpt").record["samples_seen"] == 2 * 96
    assert rows(cut / "metrics.csv")[-1]["samples"] == rows(whole / "metrics.csv")[-1]["samples"]


@pytest.mark.slow
def test_without_validation_the_end_is_saved(train):
    run = train(*QUICK, "trainer.limit_val_batches=0")
    assert read_checkpoint(run / "checkpoints" / "last.ckpt").step == 12
    assert RunDir(run).record()["status"] == "finished"
    train("trainer.max_epochs=3", resume=run)
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (checkpoint.step, checkpoint.record["samples_seen"]) == (18, 3 * 96)


@pytest.mark.parametrize("rate", ["1e5", "1e30"])
def test_a_model_that_died_is_not_finished(train, rate):
    """One step an epoch: no loss of a step shows it, the validation or the weights do."""
    run = train(*QUICK, f"optimizer.lr={rate}", "optimizer.lr_batch=null", "schedule.warmup_epochs=0",
                "trainer.limit_train_batches=1", expect=2)  # fmt: skip
    error = RunDir(run).record()["error"]
    assert "became" in error or "not finite" in error
    assert not list((run / "checkpoints").iterdir())
    assert "there is no checkpoint from before it" in error
