"""ImageNet's archives in miniature: the same structure, a few tiny images."""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from senet.data import prepare
from senet.data.folder import scan
from senet.data.packed import PackedRecords
from senet.errors import UserError

WNIDS = ["n01440764", "n01443537", "n02084071"]  # the last is an inner node of the hierarchy
ORDER = {1: "n01443537", 2: "n01440764"}  # the kit numbers classes in another order than their names
TRUTH = [2, 1, 1, 2, 1]


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(file: Path | io.BytesIO, members: dict[str, bytes], mode: str = "w") -> None:
    options = {"fileobj": file} if isinstance(file, io.BytesIO) else {"name": file}
    with tarfile.open(mode=mode, **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    inner = {}
    for number, wnid in enumerate(WNIDS[:2]):
        buffer = io.BytesIO()
        tar(buffer, {f"{wnid}_{i}.JPEG": jpeg(10 * number + i) for i in (3, 10, 7)})
        inner[f"{wnid}.tar"] = buffer.getvalue()
    tar(tmp_path / "train.tar", inner)
    tar(tmp_path / "val.tar", {f"ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(100 + i) for i in range(5)})
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(1, ORDER[1], 0), (2, ORDER[2], 0), (3, WNIDS[2], 2)]
    mat = io.BytesIO()
    savemat(mat, {"synsets": np.array(rows, dtype=fields)})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": mat.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "\n".join(
            map(str, TRUTH)
        ).encode(),
    }
    tar(tmp_path / "devkit.tar.gz", kit, "w:gz")
    return tmp_path


def run(archives: Path, out: str, *more: str, val: str = "val.tar") -> Path:
    parser = argparse.ArgumentParser()
    prepare.configure(parser)
    arguments = ["imagenet", str(archives / out), "--train", str(archives / "train.tar")]
    arguments += ["--val", str(archives / val), "--workers", "1", *more]
    assert prepare.run(parser.parse_args(arguments)) == 0
    return archives / out


def contents(tree: Path) -> dict[str, bytes]:
    records = scan(tree)
    return {records.name(i): records.read(i) for i in range(len(records))}


def expected_val() -> dict[str, bytes]:
    return {f"{ORDER[t]}/ILSVRC2012_val_{i + 1:08d}.JPEG": jpeg(100 + i) for i, t in enumerate(TRUTH)}


def test_archives_become_the_tree(archives: Path) -> None:
    out = run(archives, "tree", "--devkit", str(archives / "devkit.tar.gz"))
    train = {
        f"{wnid}/{wnid}_{i}.JPEG": jpeg(10 * number + i)
        for number, wnid in enumerate(WNIDS[:2])
        for i in (3, 10, 7)
    }
    assert contents(out / "train") == train
    assert contents(out / "val") == expected_val()


def test_archives_become_the_same_pack(archives: Path) -> None:
    kit = ("--devkit", str(archives / "devkit.tar.gz"))
    out = run(archives, "pack", "--pack", *kit)
    tree = run(archives, "tree", *kit)
    for split in ("train", "val"):
        records = PackedRecords(out, split)
        packed = {records.name(i): records.read(i) for i in range(len(records))}
        assert packed == contents(tree / split)
        assert records.labels.equal(scan(tree / split).labels)


def test_a_stopped_preparation_mends_what_is_missing(archives: Path) -> None:
    kit = ("--devkit", str(archives / "devkit.tar.gz"))
    out = run(archives, "tree", *kit)
    whole = contents(out / "train")
    first, second = sorted((out / "train").rglob("*.JPEG"))[:2]
    first.unlink()
    second.write_bytes(b"half")
    assert contents(run(archives, "tree", *kit) / "train") == whole


def test_flat_folder_with_a_label_file(archives: Path) -> None:
    with tarfile.open(archives / "val.tar") as archive:
        archive.extractall(archives / "flat", filter="data")
    lines = [f"ILSVRC2012_val_{i + 1:08d},{ORDER[t]} 1 2 3 4" for i, t in enumerate(TRUTH)]
    labels = archives / "labels.csv"
    labels.write_text("\n".join(["ImageId,PredictionString", *lines]))
    out = run(archives, "tree", "--labels", str(labels), val="flat")
    assert contents(out / "val") == expected_val()
    again = run(archives, "again", val="tree/val")  # class folders need no labels
    assert contents(again / "val") == expected_val()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ILSVRC2012_val_00000001.JPEG 65", "class numbers"),
        ("ILSVRC2012_val_00000001.JPEG n01440764", "has no label"),
        ("", "is flat"),
    ],
)
def test_labels_that_do_not_fit_are_refused(archives: Path, text: str, message: str) -> None:
    (archives / "labels").write_text(text)
    with pytest.raises(UserError, match=message):
        run(archives, "tree", "--labels", str(archives / "labels"))


def test_other_files_are_refused(archives: Path) -> None:
    with pytest.raises(UserError, match="development kit"):
        run(archives, "tree", "--devkit", str(archives / "val.tar"))
    with pytest.raises(UserError, match="no class archive"):
        prepare.train_records(archives / "val.tar")
    with pytest.raises(UserError, match="neither"):
        prepare.train_records(archives / "devkit.tar.gz")
