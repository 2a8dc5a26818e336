"""Every mistake: one clear line, an exit status other than 0, and no run directory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from senet import UserError
from senet.rundir import RunDir
from senet.training import entry

MISTAKES = [
    ("trainer.max_epoch=3", 'trainer.max_epoch; did you mean "trainer.max_epochs"'),
    ("optimizer.lrr=0.3", 'did you mean "optimizer.lr"'),
    ("schedule=step schedule.milestone=[0.3]", 'did you mean "schedule.milestones"'),
    ("trainer={max_epoch:3}", 'trainer.max_epoch; did you mean "trainer.max_epochs"'),
    ("search=optuna search.space={optimizer.lr:{low:0.1}}", "one by one, search.space.optimizer.lr=VALUE"),
    ("sed=3", 'did you mean "seed"'),
    ("data=imagefoldr", 'did you mean "imagefolder"'),
    ("model=se_resnet5", "model=se_resnet5: there is no such choice"),
    ("+ema.decy=0.9", 'ema.decy; did you mean "ema.decay"'),
    ("trainer.max_time='00:01:00:00'", "add it with +trainer.max_time=VALUE"),
    ("data.sampling=null data.sampling.fold=3", "there is no key data.sampling.fold"),
    ("+trainer.max_epoch=3", 'did you mean "trainer.max_epochs"'),
    ("+trainer.callbacks=3", "decided by the run"),
    ("trainer.max_epochs=abc", "trainer.max_epochs='abc'"),
    ("seed=a", "seed='a'"),
    ("model=resnet20 se.reduction=8", "has no SE block"),
    ("se.reduction=0", "se.reduction=0 must be a whole number of 1 or more"),
    ("se.reduction=100", "the same network as reduction=64"),
    ("model=se_resnet50 data=synthetic model.stride_on=3X3", "stride_on"),
    ("model=se_inception_v3", "images of 75 pixels or more"),
    ("data=imagefolder", "data.root is not set"),
    ("data=imagefolder data.root=/nonexistent", "there is no such folder"),
    ("trainer.accelerator=gpu", "no CUDA device"),
    ("trainer.precision=16-mixed", "needs a GPU"),
    ("trainer.devices=0", "a whole number of 1 or more"),
    ("trainer.devices=x", "must be a number"),
    ("data.batch_size=0", "batch_size"),
    ("data.batch_size=2000", "do not fill one global batch"),
    ("data.batch_size=8 trainer.limit_train_batches=1e-4", "trainer: You requested to check 0.0001 of the"),
    (
        "data.batch_size=8 +trainer.val_check_interval=999",
        "trainer: `val_check_interval` (999) must be less than",
    ),
    ("augment.crop=random_resized", "not on a data set held in memory"),
    ("data.preprocessing.size=300 data.preprocessing.resize=256", "must be at least size"),
]


@pytest.mark.parametrize(("overrides", "words"), MISTAKES, ids=[o for o, _ in MISTAKES])
def test_one_clear_line(overrides: str, words: str, compose, tmp_path: Path, monkeypatch, capsys):
    typed = overrides.split()
    monkeypatch.setattr("sys.argv", [str(Path(__file__).parents[2] / "train.py"), *typed])
    try:
        values = compose(f"runs_dir={tmp_path}/runs", *typed)
        values.pop("resume")
        run, config = entry.new_run(values, typed)
    except (HydraException, OmegaConfBaseException) as error:
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()
        message = entry.explain(error)
    except UserError as error:
        message = str(error)
    else:  # what only the data can tell
        with pytest.raises(SystemExit) as stopped:
            entry._start("train", run, config)
        assert stopped.value.code == 2
        assert not run.path.exists()
        assert words in capsys.readouterr().err
        return
    assert words in message
    assert "\n" not in message
    assert not (tmp_path / "runs").exists() or not os.listdir(tmp_path / "runs")


@pytest.mark.slow
def test_from_the_command_line(command: Callable, tmp_path: Path):
    result = command("train.py", "optimizer.lrr=0.3", f"runs_dir={tmp_path}/runs")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == 'error: there is no key optimizer.lrr; did you mean "optimizer.lr"?\n'
    result = command("eval.py", f"run={tmp_path}/none", "data.workers=0")
    assert result.returncode == 2
    assert (
        "no data set was chosen; root=, size=, batch_size= and workers= change the run's own" in result.stderr
    )
    result = command("eval.py", f"run={tmp_path}/none")
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}/none is not a run directory: it has no config.yaml and run.json"
    ]


def test_an_evaluation_knows_its_own_keys(compose):
    for overrides, words in (
        ("wich=best", 'did you mean "which"'),
        ("data.workers=0", "no data set was chosen"),
    ):
        with pytest.raises(HydraException) as caught:
            compose(overrides, name="eval")
        assert words in entry.explain(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [{"num_nodes": "x"}, {"devices": {"gpu": 1}}, {"accelerator": 7}, None])
def test_how_many_processes_is_checked_before_anything_is_made(trainer):
    with pytest.raises(UserError, match=r"^trainer[a-z_.]*=.* must be"):
        entry._on_rank_zero(trainer, lambda: pytest.fail("made"))


def test_a_resumed_run_is_looked_at_on_the_machines_it_had(tmp_path: Path):
    run = RunDir.create(tmp_path, "run", {"trainer": {"devices": 2, "num_nodes": 2, "max_epochs": 3}}, {})
    typed = [f"resume={run.path}", "trainer.max_epochs=5"]
    found, changes = entry.continued(run.path, typed)
    assert found["trainer"] == {"devices": 2, "num_nodes": 2, "max_epochs": 5}
    assert changes == ["trainer.max_epochs=5"]


def test_empty_class_and_corrupt_image(train, image_tree: Path, tmp_path: Path):
    import shutil

    root = tmp_path / "tree"
    shutil.copytree(image_tree, root)
    (root / "train" / "cat" / "3.jpg").write_bytes(b"not an image")
    small = ("data=imagefolder", f"data.root={root}", "data.preprocessing.size=32", "data.preprocessing.resize=36",
             "data.batch_size=4", "trainer.max_epochs=1", "data.workers=1")  # fmt: skip
    path = train(*small, expect=2)
    record = entry.RunDir(path).record()
    assert record["status"] == "failed"
    assert "cat/3.jpg cannot be decoded (UnidentifiedImageError" in record["error"]
    assert not (path / "summary.json").exists()
    for image in (root / "val" / "dog").iterdir():
        image.unlink()
    path = train(*small, expect=2)
    assert "val/dog holds no image" in entry.RunDir(path).record()["error"]
