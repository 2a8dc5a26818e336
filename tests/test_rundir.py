"""What a run directory's files say comes back as it was written, whole or not at all."""

import csv
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from senet.errors import UserError, in_a_line
from senet.files import atomically
from senet.rundir import Predictions, RunDir, link_latest


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "runs", "name", {"seed": 3}, {"status": "starting"})


def test_predictions_come_back(run: RunDir):
    table = Predictions(
        np.array([0, 1, 2]),
        ["cat/a,b.jpg", 'cat/"c".jpg', "dog/\udce9.jpg"],  # the last is no UTF-8 on the disk
        np.array(["cat", "cat", "dog"]),
        np.array(["cat", "dog", "dog"]),
        np.array([1.0, 0.0, 1.0]),
        np.array([0.5, 0.25, 0.125]),
        np.array([1.5, 2.25, 0.0]),
    )
    run.write_predictions("last", "raw", table)
    read = run.predictions("last", "raw")
    assert read.images == table.images
    for ours, theirs in zip(table, read, strict=True):
        assert np.array_equal(ours, theirs)
    assert read.right.tolist() == [True, False, True]


def test_a_column_that_a_file_lacks_is_not_made_up(run: RunDir):
    """Runs of before top5 was recorded."""
    row = {
        "id": 0,
        "image": "cat/a.jpg",
        "label": "cat",
        "predicted": "cat",
        "correct": 1,
        "confidence": 1,
        "loss": 0,
    }
    with run.predictions_file("last", "raw").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    assert np.isnan(run.predictions("last", "raw").top5).all()
    run.predictions_file("last", "ema").write_text("epoch,loss\n1,2\n")
    with pytest.raises(ValueError, match=r"last_ema\.csv holds no predictions"):
        run.predictions("last", "ema")


def test_predictions_of_an_archive_that_are_damaged_are_said_to_be(run: RunDir):
    """Cut short, changed, and what is left where a repository keeps large files elsewhere."""
    whole = bytearray(
        gzip.compress(b"id,image,label,predicted,correct,confidence,loss\n" + b"0,a,a,a,1,1,0\n" * 999)
    )
    changed = whole.copy()
    changed[len(whole) // 2] ^= 255
    file = run.predictions_file("last", "raw").with_name("last_raw.csv.gz")
    for damaged in (whole[:-20], changed, b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last_raw\.csv\.gz cannot be read"):
            run.predictions("last", "raw")
    file.write_bytes(whole)
    assert len(run.predictions("last", "raw").ids) == 999


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("before")

    def fail() -> None:
        with atomically(file) as temporary:
            temporary.write_text("half of")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_where_there_was_no_room_is_said(tmp_path: Path):
    def fill() -> None:
        with atomically(tmp_path / "last.ckpt") as temporary:
            temporary.symlink_to("/dev/full")
            temporary.write_bytes(b"weights")

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert in_a_line(caught.value) == f"{tmp_path}/last.ckpt: No space left on device"


def test_latest_follows(run: RunDir):
    other = RunDir.create(run.path.parent, "other", {}, {})
    for path in (run.path, other.path):
        link_latest(path)
        assert (path.parent / "latest").resolve() == path


def test_one_process_holds_a_run(run: RunDir):
    run.hold()
    run.hold()  # for this process it is free
    script = "import sys; from pathlib import Path; from senet.rundir import RunDir; RunDir(Path(sys.argv[1])).hold()"
    other = [sys.executable, "-c", script, str(run.path)]
    result = subprocess.run(other, capture_output=True, text=True, timeout=12000)
    assert result.returncode == 1
    assert f"UserError: {run.path} is still running (process {os.getpid()})" in result.stderr


def test_a_configuration_cannot_grow_without_bound(run: RunDir):
    """A billion laughs: nine levels of nine references, in YAML and in OmegaConf's own way."""
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 10))
    sums = "".join(f"l{i}: {f'${{l{i - 1}}}' * 9}\n" for i in range(1, 10))
    for text in (
        "l0: &l0 [lol]\n" + levels,
        "l0: lol\n" + sums,
        "a: " + "[" * 100_000,
        "a: \xff",
        "a: !!python/name:os.system",
    ):
        run.config_file.write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"config\.yaml cannot be read") as caught:
            run.config()
        assert "\n" not in str(caught.value)
    run.record_file.write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        run.record()
