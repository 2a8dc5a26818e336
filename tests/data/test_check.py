"""Every kind of damage is found, under its name, and nothing else is."""

import json
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from senet.data import AugmentConfig, FolderConfig
from senet.data.module import ImageData
from senet.data.tools.check import ERRORS, NOTES, check, run
from senet.errors import UserError


@pytest.fixture
def damaged(image_tree: Path, tmp_path: Path, photo: Image.Image) -> Path:
    root = tmp_path / "t"
    shutil.copytree(image_tree, root)
    cat, dog = root / "train" / "cat", root / "train" / "dog"
    data = (cat / "0.jpg").read_bytes()
    (cat / "half.jpg").write_bytes(data[: len(data) // 2])
    (cat / "end.jpg").write_bytes(data[:-2] + b"")
    (cat / "zero.jpg").write_bytes(b"")
    (cat / "text.jpg").write_bytes(b"<html>404</html>")
    (cat / "head.jpg").write_bytes(b"\xff\xd8\xff")
    photo.save(cat / "png.jpeg", "PNG")
    photo.convert("CMYK").save(cat / "cmyk.jpg", quality=71)
    photo.convert("L").save(cat / "grey.jpg", quality=72)
    alpha = photo.convert("RGBA")
    alpha.putalpha(9)
    alpha.save(cat / "alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 8
    photo.save(cat / "turned.jpg", exif=exif)
    (cat / "notes.txt").write_text("x")
    Image.new("1", (13000, 13000)).save(cat / "bomb.png")
    Image.new("F", (8, 8)).save(cat / "float.tif")
    photo.save(cat / "film.gif", save_all=True, append_images=[photo.rotate(90)])
    shutil.copy(cat / "1.jpg", cat / "1 copy.jpg")
    shutil.copy(dog / "2.jpg", root / "val" / "dog" / "leak.jpg")
    shutil.copy(cat / "3.jpg", dog / "cat3.jpg")
    for name in ("train/empty", "train/Dog", "train/onlytrain", "val/onlyval"):
        (root / name).mkdir()
    for index, name in enumerate(("train/Dog", "train/onlytrain", "val/onlyval")):
        photo.rotate(index + 1).save(root / name / "0.jpg")
    return root


EXPECTED = {
    "truncated": ["train/cat/end.jpg", "train/cat/half.jpg"],
    "zero-byte": ["train/cat/zero.jpg"],
    "unreadable": ["train/cat/head.jpg", "train/cat/text.jpg"],
    "wrong-format": ["train/cat/png.jpeg"],
    "cmyk": ["train/cat/cmyk.jpg"],
    "too-large": ["train/cat/bomb.png"],
    "unknown-range": ["train/cat/float.tif"],
    "animated": ["train/cat/film.gif"],
    "grey": ["train/cat/grey.jpg"],
    "alpha": ["train/cat/alpha.png"],
    "exif-rotated": ["train/cat/turned.jpg"],
    "not-an-image": ["train/cat/notes.txt"],
    "duplicate": ["train/cat/1 copy.jpg", "train/cat/1.jpg"],
    "duplicate-across-splits": ["train/dog/2.jpg", "val/dog/leak.jpg"],
    "duplicate-across-classes": ["train/cat/3.jpg", "train/dog/cat3.jpg"],
    "empty-class": ["train/empty"],
    "colliding-classes": ["train/Dog", "train/dog"],
    "missing-in-val": ["Dog", "onlytrain"],
    "missing-in-train": ["onlyval"],
}


@pytest.mark.parametrize("workers", [1, 2])
def test_every_kind_is_found_and_nothing_else(damaged: Path, tmp_path: Path, workers: int) -> None:
    report = check(damaged, tmp_path / "out", workers)
    assert report["problems"] == EXPECTED
    assert EXPECTED.keys() == ERRORS.keys() | NOTES.keys()
    assert json.loads((tmp_path / "out" / "check.json").read_text()) == report
    page = (tmp_path / "out" / "check.html").read_text()
    assert all(path in page for paths in EXPECTED.values() for path in paths)
    # Those that can be read are shown: two of each kind of duplicate, and one of seven other kinds.
    assert page.count('src="data:image/') == 12
    assert ">64 to 127</th>" in page
    rows = (tmp_path / "out" / "manifest.csv").read_text().splitlines()
    assert len(rows) == report["images"] + 1


def test_a_sound_tree_has_no_errors_and_its_id_goes_to_the_run(
    image_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "t"
    shutil.copytree(image_tree, root)
    config = FolderConfig(root=str(root))
    unchecked = ImageData(config, AugmentConfig(), 0).manifest_id["train"]
    assert unchecked.startswith("names:")
    assert run(Namespace(source=root, images=None, out=None, workers=1)) == 0
    assert "22 images" in capsys.readouterr().out
    first = ImageData(config, AugmentConfig(), 0).manifest_id
    assert first["train"].startswith("content:")
    image = root / "train" / "cat" / "0.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert ImageData(config, AugmentConfig(), 0).manifest_id == first | {"train": unchecked}
    run(Namespace(source=root, images=None, out=None, workers=1))
    second = ImageData(config, AugmentConfig(), 0).manifest_id
    assert second["train"] != first["train"]
    assert second["val"] == first["val"]
    (root / "train" / "cat" / "1.jpg").unlink()
    assert ImageData(config, AugmentConfig(), 0).manifest_id["train"].startswith("names:")


def test_where_the_report_cannot_go_is_said_before_anything_is_decoded(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("senet.data.tools.check.work", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UserError, match="file/out cannot be written: choose another place with --out"):
        check(image_tree, tmp_path / "file" / "out")
    with pytest.raises(UserError, match="there is no such folder"):
        check(tmp_path / "nowhere", tmp_path / "nowhere" / ".senet")
    assert not (tmp_path / "nowhere").exists()


def test_errors_make_the_exit_status(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Namespace(source=damaged, images=None, out=None, workers=1)) == 1
    assert "ERROR" in capsys.readouterr().out
