"""Other libraries' loggers beside our files: what a run that is resumed, or begun anew, leaves in each."""

import re
import struct
from pathlib import Path

import pytest

from senet import UserError
from senet.rundir import RunDir

TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=32", "data.val_images=16", "augment.pad=1",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "data.batch_size=8", "optimizer.lr=0.01")  # fmt: skip


def records(file: Path) -> list:
    """Return the records of a ``.wandb`` file: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block that holds no header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


@pytest.mark.slow
def test_the_parts_of_an_offline_wandb_run_are_one_run(train, tmp_path: Path):
    """``wandb sync`` puts a part whose record says ``resume`` behind what is there; any other replaces it."""
    run = train("logger=wandb", "logger.wandb.offline=true", "trainer.max_epochs=1", *TINY)
    train("trainer.max_epochs=2", resume=run)
    parts = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    said = [next(r.run for r in records(part) if r.WhichOneof("record_type") == "run") for part in parts]
    assert len(said) == 2
    assert said[0].run_id == said[1].run_id == run.name.replace("_", "-")
    assert [one.resume for one in said] == [True, True]


@pytest.mark.slow
def test_tensorboard_hides_what_was_logged_after_the_checkpoint(train):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train("logger=tensorboard", "trainer.max_epochs=2", *TINY)
    rows = RunDir(run).steps_file.read_text().splitlines()
    RunDir(run).checkpoint("last").unlink()
    RunDir(run).checkpoint("previous").rename(RunDir(run).checkpoint("last"))  # of the epoch before
    train("trainer.max_epochs=2", resume=run)
    assert RunDir(run).steps_file.read_text().splitlines() == rows
    events = accumulator.EventAccumulator(str(run / "tensorboard")).Reload()
    steps = [event.step for event in events.Scalars("train/step_loss")]
    assert steps == [int(row.partition(",")[0]) for row in rows[1:]]


@pytest.mark.slow
def test_an_mlflow_run_goes_on_and_one_that_is_gone_begins_anew(train, tmp_path: Path, monkeypatch, caplog):
    mlflow = pytest.importorskip("mlflow")
    run = train("logger=mlflow", "trainer.max_epochs=1", *TINY)
    client = mlflow.MlflowClient(f"sqlite:///{run}/mlflow.db")
    first = RunDir(run).record()["mlflow_run_id"]
    train("trainer.max_epochs=2", resume=run)
    assert RunDir(run).record()["mlflow_run_id"] == first
    assert client.get_run(first).info.status == "FINISHED"
    assert len(client.get_metric_history(first, "val/loss")) == 2
    client.delete_run(first)
    train("trainer.max_epochs=3", resume=run)
    assert f"MLflow has no run {first} any more" in caplog.text
    # Another server, or an empty one: a study removes what an attempt without a checkpoint left before the next.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    train("trainer.max_epochs=4", resume=run)
    last = RunDir(run).record()["mlflow_run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db")
    assert client.get_run(last).info.status == "FINISHED"
    assert len(client.get_metric_history(last, "val/loss")) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("wandb.project=a/b", "Invalid project name 'a/b'"),
        (f"wandb.tags=[{'x' * 70}]", "between 1 and 64 characters"),
        ("mlflow.tracking_uri=nonsense://x", "logger=mlflow, nonsense://x: .*unsupported URI"),
    ],
)
def test_what_a_logger_refuses_is_one_line(settings: str, words: str, compose, tmp_path: Path):
    from senet.plugins import integration
    from senet.training.config import RunConfig

    name = settings.partition(".")[0]
    pytest.importorskip(name)
    offline = ("logger.wandb.offline=true",) if name == "wandb" else ()
    config = RunConfig.of(
        {k: v for k, v in compose(f"logger={name}", f"logger.{settings}", *offline).items() if k != "resume"}
    )
    run = RunDir.create(tmp_path, "run", {}, {"title": "a run"})
    with pytest.raises(UserError, match=words) as caught:
        integration(f"{name}_logger").open_logger(getattr(config.logger, name), run, config.values)
    assert "\n" not in str(caught.value)
    assert re.match("logger=", str(caught.value))
