"""ImageNet's archives in miniature: the same structure, a few tiny images."""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from senet.data.files.folder import scan
from senet.data.files.packed import PackedRecords
from senet.errors import UserError
from senet.integrations import imagenet_archives as prepare

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


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


ONE = archive(member("a.JPEG", jpeg(1)))


@pytest.mark.parametrize("name", ["n01.tar", "a/../../n01.tar", "/etc/n01.tar", "n00/../../n01.tar"])
def test_a_class_stays_in_its_folder(archives: Path, name: str) -> None:
    inner = archive(
        member("/tmp/../../a.JPEG", jpeg(1)), member("._a.JPEG", b"a Mac's"), member("notes.txt", b"x")
    )
    (archives / "train.tar").write_bytes(archive(member(name, inner)))
    (archives / "val.tar").write_bytes(archive(member("v.JPEG", jpeg(2))))
    (archives / "labels").write_text("v.JPEG n01\n")
    before = {path for path in archives.rglob("*") if path.is_file()}
    out = run(archives, "tree", "--labels", str(archives / "labels"))
    written = {path for path in archives.rglob("*") if path.is_file()} - before
    assert written == {out / "train" / "n01" / "a.JPEG", out / "val" / "n01" / "v.JPEG"}


@pytest.mark.parametrize(
    ("outer", "message"),
    [
        (archive(member("...tar", ONE)), "gives a class no name"),
        (archive(member("..tar", ONE)), "gives a class no name"),
        (archive(member("x/.tar", ONE)), "gives a class no name"),
        (archive(member("n01.tar", kind=tarfile.SYMTYPE, link="/etc/passwd")), "no class archive"),
        (archive(member("n01.tar", ONE), member("n02.tar", kind=tarfile.LNKTYPE, link="n01.tar")), "no class archive"),
        (archive(member("n01.tar", ONE), member("x/n01.tar", ONE)), "there twice"),
        (archive(member("n01.tar", archive())), "holds no image"),
        (archive(member("n01.tar", b"not a tar")), "is damaged"),
        (archive(member("n01.tar", ONE[:700])), "is damaged"),
        (archive(member("n01.tar", ONE))[:700], "is damaged"),
        (archive(member("n01.tar", ONE), member("n02.tar", ONE))[: 512 + len(ONE)], "no header and no end"),
        (archive(member("n01.tar", ONE)).replace(b"n01.tar", b"m01.tar"), "neither"),
    ],
)  # fmt: skip
def test_hostile_and_damaged_archives_are_one_line(archives: Path, outer: bytes, message: str) -> None:
    (archives / "train.tar").write_bytes(outer)
    with pytest.raises(UserError, match=message) as caught:
        prepare.train_records(archives / "train.tar")
    assert "\n" not in str(caught.value)


def test_a_broken_header_is_not_the_end(archives: Path) -> None:
    """Python's tarfile takes it for the end, and the classes behind it would be missing without a word."""
    data = bytearray((archives / "train.tar").read_bytes())
    second = data.index(WNIDS[1].encode() + b".tar")
    data[second] ^= 1
    (archives / "train.tar").write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        prepare.train_records(archives / "train.tar")


def test_every_cut_of_an_archive_is_noticed(archives: Path) -> None:
    whole = (archives / "train.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    for length in range(0, end, 997):
        (archives / "train.tar").write_bytes(whole[:length])
        with pytest.raises(UserError):
            prepare.train_records(archives / "train.tar")
