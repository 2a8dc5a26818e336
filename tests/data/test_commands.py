"""``senet check``, ``senet pack`` and ``senet prepare`` as they are typed."""

import shutil
import tarfile
from pathlib import Path

import pytest

from senet.cli import main
from senet.data.files.folder import scan
from senet.data.files.packed import PackedRecords


def test_check_says_what_it_found_and_fails_on_errors(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "tree"
    shutil.copytree(image_tree, root)
    assert main(["check", str(root), "--workers", "1"]) == 0
    assert "22 images" in capsys.readouterr().out
    assert (root / ".senet" / "check.html").is_file()
    (root / "val" / "dog" / "1.jpg").write_bytes(b"")
    assert main(["check", str(root), "--out", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "zero-byte" in capsys.readouterr().out
    assert (tmp_path / "out" / "manifest.csv").is_file()
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_pack_then_check_the_pack(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pack"
    assert main(["pack", str(image_tree), str(out), "--short-side", "20", "--workers", "1"]) == 0
    assert f"train.py data=packed data.root={out}" in capsys.readouterr().out
    assert len(PackedRecords(out, "train")) == 16
    assert PackedRecords(out, "val").read(2) == scan(image_tree / "val").read(2)
    assert main(["check", str(out)]) == 0
    shard = out / "val" / "00000.bin"
    data = bytearray(shard.read_bytes())
    data[300] ^= 1
    shard.write_bytes(data)
    assert main(["check", str(out)]) == 1
    assert "damaged    val/cat/0.jpg" in capsys.readouterr().out
    assert main(["pack", str(image_tree), str(out), "--quality", "99"]) == 2
    assert "--quality 99" in capsys.readouterr().err


def test_prepare_makes_a_tree_of_archives(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wnids = {"cat": "n02121620", "dog": "n02084071"}
    with tarfile.open(tmp_path / "train.tar", "w") as train:
        for name, wnid in wnids.items():
            inner = tmp_path / f"{wnid}.tar"
            with tarfile.open(inner, "w") as archive:
                for index in range(3):
                    archive.add(image_tree / "train" / name / f"{index}.jpg", f"{wnid}_{index}.JPEG")
            train.add(inner, inner.name)
    for name, wnid in wnids.items():
        shutil.copytree(image_tree / "val" / name, tmp_path / "val" / wnid)
    out = tmp_path / "out"
    arguments = ["prepare", "imagenet", str(out), "--train", str(tmp_path / "train.tar"), "--workers", "1"]
    assert main([*arguments, "--val", str(tmp_path / "val")]) == 0
    for split, count in (("train", 3), ("val", 3)):
        made = scan(out / split)
        assert made.classes == sorted(wnids.values())
        assert len(made) == 2 * count
        assert made.read(0) == (image_tree / split / "dog" / "0.jpg").read_bytes()
    assert main([*arguments, "--val", str(tmp_path / "nowhere.tar")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
