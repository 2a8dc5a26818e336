"""Unreadable images through whole runs: named, listed, counted; never replaced, never miscounted."""

import json
import shutil
from pathlib import Path

import pytest

from senet.rundir import RunDir

KEYS = (
    "data=imagefolder",
    "model=se_resnet20",
    "data.preprocessing.size=32",
    "data.preprocessing.resize=36",
    "data.batch_size=4",
    "data.workers=0",
    "trainer.max_epochs=2",
)


@pytest.fixture
def broken(image_tree: Path, tmp_path: Path) -> Path:
    root = tmp_path / "broken"
    shutil.copytree(image_tree, root)
    (root / "train" / "cat" / "3.jpg").write_bytes(b"")
    return root


def test_skip_finishes_and_lists(train, broken: Path) -> None:
    run = train(*KEYS, f"data.root={broken}", "data.on_bad_image=skip")
    rows = (run / "skipped_images.csv").read_text().splitlines()
    assert [row.split(",")[2] for row in rows] == ["cat/3.jpg"] * 2  # once in either epoch
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"]["skipped_images"] == 1
    assert summary["samples_seen"] == 32
    assert set(summary["data"]["manifest"]) == {"train", "val"}
    assert summary["data"]["timings"]["decode_ms"] > 0


def test_fail_stops_naming_the_file(train, broken: Path) -> None:
    with pytest.raises(AssertionError, match=r"cat/3\.jpg cannot be decoded"):
        train(*KEYS, f"data.root={broken}")


def test_evaluation_counts_an_unreadable_image_as_wrong(train, broken: Path, image_tree: Path) -> None:
    shutil.copy(image_tree / "train" / "cat" / "3.jpg", broken / "train" / "cat" / "3.jpg")
    (broken / "val" / "dog" / "1.jpg").write_bytes(b"nothing")
    with pytest.raises(AssertionError, match=r"dog/1\.jpg cannot be decoded"):
        train(*KEYS, f"data.root={broken}")
    run = train(*KEYS, f"data.root={broken}", "data.eval_on_bad_image=count")
    last = json.loads((run / "summary.json").read_text())["last"]
    rows = (run / "predictions" / "last_raw.csv").read_text().splitlines()[1:]
    right = sum(int(row.split(",")[4]) for row in rows)
    assert last["val/count"] == 6
    assert last["val/unreadable"] == 1
    assert len(rows) == 5
    assert last["val/top1"] == pytest.approx(100 * right / 6)


def test_no_validation_image_at_all(train, tree):
    for image in (tree / "val").rglob("*.jpg"):
        image.write_bytes(b"no image")
    run = train("data=imagefolder", f"data.root={tree}", "data.preprocessing.size=8", "data.preprocessing.resize=8",
                "data.in_memory=false", "data.workers=0", "data.batch_size=8", "data.eval_on_bad_image=count",
                "model=se_resnet20", "trainer.max_epochs=1", expect=2)  # fmt: skip
    assert "none of the validation images can be read" in RunDir(run).record()["error"]
