"""Names of any bytes come back from every file of a run as they are on the disk."""

import csv
import ctypes
import os
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from senet.data.files.folder import scan
from senet.files import write_text
from senet.processes import processes
from senet.rundir import RunDir
from senet.weights import read_checkpoint

NAMES = (b"caf\xe9", "caf\u00e9".encode(), "cafe\u0301".encode(), b"two\nlines", b"back\r", b"tab\t", b"com,ma",
         b'"quoted"', b"semi;colon", b" space ", b"=1+1", b"percent %s {x} $y", "\u96ea".encode())  # fmt: skip
CLASSES = (b"caf\xe9", b'a\nb,"c"')


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A tree of odd names, 13 images of each class in each split."""
    root = tmp_path / "odd"
    for split in (b"train", b"val"):
        for label, name in enumerate(CLASSES):
            folder = os.path.join(os.fsencode(root), split, name)
            os.makedirs(folder)
            for index, file in enumerate(NAMES):
                path = os.fsdecode(os.path.join(folder, file + b".png"))
                Image.new("RGB", (8, 8), (9 * index, 200 * label, 90)).save(path, "PNG")
    return root


def names_under(split: Path) -> list[str]:
    return sorted(f"{split.name}/{os.path.relpath(file, split)}" for file in split.glob("*/*"))


@pytest.mark.slow
def test_every_file_of_a_run_keeps_them(train, evaluate, odd, tmp_path):
    broken = Path(os.fsdecode(os.path.join(os.fsencode(odd), b"train", CLASSES[1], NAMES[0] + b".png")))
    broken.write_bytes(b"no image")
    run = RunDir(
        train(
            "data=imagefolder", f"data.root={odd}", "data.preprocessing.size=8", "data.preprocessing.resize=null",
            "data.in_memory=false", "data.on_bad_image=skip", "data.workers=0", "augment.crop=pad", "augment.pad=1",
            "data.batch_size=13", "trainer.max_epochs=1",
        )
    )  # fmt: skip
    classes = sorted(os.fsdecode(name) for name in CLASSES)
    assert read_checkpoint(run.checkpoint("last")).classes == classes
    for table in (
        run.predictions("last", "raw"),
        RunDir(evaluate(f"run={run.path}")["directory"]).predictions("eval", "raw"),
    ):
        assert sorted(table.images) == names_under(odd / "val")
        assert all(
            name.split("/")[1] == label for name, label in zip(table.images, table.labels, strict=True)
        )
    with run.skipped_file.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        (row,) = csv.reader(file)
    assert row[2] == os.path.relpath(broken, odd / "train")
    train("trainer.max_epochs=2", resume=run.path)


def test_the_index_keeps_them(odd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for folder in (*odd.rglob("*"), odd):
        os.utime(folder, (1e9, 1e9), follow_symlinks=False)
    for records in (scan(odd / "val"), scan(odd / "val")):
        assert sorted(f"val/{records.name(i)}" for i in range(len(records))) == names_under(odd / "val")
    assert list((tmp_path / "cache").rglob("*.npz"))


def test_held_out_images_and_settings_keep_them(tmp_path):
    names = [os.fsdecode(name) for name in NAMES]
    run = RunDir.create(tmp_path, "x", {"data": {"root": names}}, {"overrides": names})
    run.write_held_out(names)
    assert run.held_out() == names
    assert run.config()["data"]["root"] == names
    assert run.record()["overrides"] == names
    write_text(tmp_path / "text", "\n".join(names))
    assert (tmp_path / "text").read_bytes() == b"\n".join(NAMES)


def test_a_process_whose_name_is_cut_within_a_letter_is_listed():
    child = get_context("fork").Process(target=_cut_name)
    child.start()
    try:
        while Path(f"/proc/{child.pid}/comm").read_bytes() != b"donnees-train\xc3\n":
            time.sleep(0.01)
        assert child.pid in processes()
    finally:
        child.kill()
        child.join()


def _cut_name() -> None:
    ctypes.CDLL(None).prctl(15, b"donnees-train\xc3", 0, 0, 0)
    time.sleep(600)
