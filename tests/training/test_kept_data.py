"""A run goes on with the data it had; weights of other classes follow their names or say so."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from senet import UserError
from senet.rundir import RunDir
from senet.weights import read_checkpoint

TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=48", "data.val_images=13",
        "data.batch_size=16", "trainer.max_epochs=3", "trainer.log_every_n_steps=1", "augment.pad=1",
        "schedule=step")  # fmt: skip
FOLDER = ("data=imagefolder", "data.preprocessing.size=8", "data.preprocessing.resize=null", "augment.crop=pad",
          "augment.pad=1", "data.batch_size=8", "trainer.max_epochs=1", "schedule=step")  # fmt: skip


def checkpoint(run: Path) -> Path:
    return run / "checkpoints" / "last.ckpt"


def rename_class(root: Path) -> None:
    for split in ("train", "val"):
        (root / split / "cat").rename(root / split / "zebra")


def remove_image(root: Path) -> None:
    (root / "train" / "dog" / "3.jpg").unlink()


def rename_image(root: Path) -> None:
    (root / "val" / "dog" / "1.jpg").rename(root / "val" / "dog" / "other.jpg")


def replace_image(root: Path) -> None:
    shutil.copy(root / "train" / "cat" / "1.jpg", root / "train" / "dog" / "1.jpg")


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["true", "false"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rename_class, "class 1 was cat and is dog"),
        (remove_image, "there were 16 training images and are 15"),
        (rename_image, "other validation images lie there"),
        (replace_image, "training images"),
    ],
)
def test_a_run_is_resumed_with_its_data_alone(train, tree, change, said, memory):
    if memory == "true" and change is rename_image:
        pytest.skip("the pixels are the same, and in the same order")
    run = train(*FOLDER, f"data.root={tree}", f"data.in_memory={memory}")
    before = checkpoint(run).read_bytes()
    change(tree)
    train("trainer.max_epochs=2", resume=run, expect=2)
    error = RunDir(run).record()["error"]
    assert said in error
    assert "model.weights=RUN" in error
    assert checkpoint(run).read_bytes() == before
    if change is rename_class:
        again = train(*FOLDER, f"data.root={tree}", f"model.weights={run}")
        assert "cat for zebra" in (again / "log.txt").read_text()


@pytest.mark.slow
def test_data_may_move_and_be_checked_in_between(train, tree):
    from senet.data.tools.check import check

    run = train(*FOLDER, f"data.root={tree}", "data.in_memory=false")
    moved = tree.rename(tree.with_name("moved"))
    check(moved, moved / ".senet", 1)
    train("trainer.max_epochs=2", f"data.root={moved}", resume=run)
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


@pytest.mark.slow
def test_weights_that_a_run_began_with_are_not_needed_again(train, tmp_path):
    start = train(*TINY, "trainer.max_epochs=1")
    run = train(*TINY, "trainer.max_epochs=1", f"model.weights={start}")
    shutil.rmtree(start)
    train("trainer.max_epochs=2", resume=run)
    assert read_checkpoint(checkpoint(run)).step == 6


# Classes of weights ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_classifier_of_other_classes_is_named_and_can_be_replaced(train, tree):
    start = train(*FOLDER, f"data.root={tree}")
    for split in ("train", "val"):
        (tree / split / "cat").rename(tree / split / "rose")
        (tree / split / "dog").rename(tree / split / "aster")
    kept = train(*FOLDER, f"data.root={tree}", f"model.weights={start}", "optimizer.lr=1e-30")
    assert (
        "classifier kept, of other classes: cat for aster, dog for rose; model.new_classifier=true starts"
        in (kept / "log.txt").read_text()
    )
    new = train(*FOLDER, f"data.root={tree}", f"model.weights={start}", "model.new_classifier=true")
    assert "the classifier starts anew" in (new / "log.txt").read_text()
    before, after, anew = (read_checkpoint(checkpoint(run)).state_dict for run in (start, kept, new))
    assert torch.equal(before["model.head.fc.weight"], after["model.head.fc.weight"])
    assert float(anew["model.head.fc.bias"].abs().max()) < float(before["model.head.fc.bias"].abs().max())


@pytest.mark.slow
def test_rows_follow_the_names_of_their_classes(train, tree):
    """A renamed class moves in the order; the others keep their rows."""
    shutil.copytree(tree / "train" / "cat", tree / "train" / "bee")
    shutil.copytree(tree / "val" / "cat", tree / "val" / "bee")
    start = train(*FOLDER, f"data.root={tree}")  # bee, cat, dog
    for split in ("train", "val"):
        (tree / split / "bee").rename(tree / split / "zebra")
    run = train(
        *FOLDER, f"data.root={tree}", f"model.weights={start}", "optimizer.lr=1e-30"
    )  # cat, dog, zebra
    assert "bee for zebra" in (run / "log.txt").read_text()
    before, after = (read_checkpoint(checkpoint(r)).state_dict["model.head.fc.weight"] for r in (start, run))
    assert torch.equal(before[[1, 2, 0]], after)


def test_a_new_classifier_needs_weights(train):
    with pytest.raises(
        UserError, match=r"model\.new_classifier=true has no effect here: it needs model\.weights"
    ):
        train(*TINY, "model.new_classifier=true")
