"""Folders: what is found, what is refused, and that the cached index never outlives a change."""

import os
import shutil
import time
from pathlib import Path

import pytest

from senet.data import FolderConfig
from senet.data.files import Names, folder
from senet.data.files.folder import cache_file, find_split, list_images, scan
from senet.errors import UserError


def make(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def settle(root: Path) -> None:
    """Let every folder look as if it was changed long ago."""
    for path, _, _ in os.walk(root):
        os.utime(path, (time.time() - 60,) * 2)


def names(tree: folder.ImageTree) -> list[str]:
    return [tree.name(index) for index in range(len(tree))]


def test_images_are_sorted_by_class_then_name_and_other_files_are_left(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b/2.jpg",
        "b/10.JPEG",
        "a/sub/1.png",
        "a/notes.txt",
        "a/0.jpg",
        ".hidden/1.jpg",
        "loose.jpg",
    )
    tree = scan(tmp_path)
    assert names(tree) == ["a/0.jpg", "a/sub/1.png", "b/10.JPEG", "b/2.jpg"]
    assert tree.labels.tolist() == [0, 0, 1, 1]
    assert tree.classes == ["a", "b"]
    assert tree.read(0) == b"x"


def test_validation_labels_follow_the_training_classes(tmp_path: Path) -> None:
    make(tmp_path, "c/1.jpg", "a/1.jpg")
    assert scan(tmp_path, ["a", "b", "c"]).labels.tolist() == [0, 2]


def test_names_survive_any_encoding(tmp_path: Path) -> None:
    raw = os.fsdecode(b"caf\xe9/\xff.jpg")
    try:
        make(tmp_path, raw, "日本/é.jpg")
    except OSError:
        pytest.skip("this file system wants valid names")
    tree = scan(tmp_path)
    assert sorted(names(tree)) == sorted([raw, "日本/é.jpg"])
    assert tree.read(0) == b"x"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["loose.jpg"], "no class folders"),
        (["a/1.jpg", "b/readme.txt"], "b holds no image"),
        (["a/1.jpg", "z/1.jpg"], "has other classes than"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, files: list[str], message: str) -> None:
    make(tmp_path, *files)
    with pytest.raises(UserError, match=message):
        scan(tmp_path, ["a", "b"] if "z/1.jpg" in files else None)


@pytest.mark.parametrize("names", [("val",), ("training", "validation"), ("a", "Valid")])
def test_splits_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        make(tmp_path, f"{name}/a/1.jpg", f"{name}/b/1.jpg")
    with pytest.raises(UserError, match=f"has no train/|{names[-1]}/, which are no classes"):
        FolderConfig(root=str(tmp_path), val_fraction=0.5).folder("train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        find_split(tmp_path / "nowhere", ("train",))
    with pytest.raises(UserError, match="val/ or test/"):
        find_split(tmp_path, ("val", "test"))


def test_the_index_is_read_and_noticed_changes_list_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "t", "a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    walks = []
    monkeypatch.setattr(folder, "list_images", lambda split: walks.append(split) or list_images(split))
    scan(root)
    assert not cache_file(root).exists()  # the folders were changed just now
    settle(root)
    first = names(scan(root))
    assert len(walks) == 2
    assert names(scan(root)) == first
    assert len(walks) == 2
    make(root, "a/deep/4.jpg")
    assert names(scan(root)) == ["a/1.jpg", "a/deep/2.jpg", "a/deep/4.jpg", "b/3.jpg"]
    settle(root)
    scan(root)
    shutil.rmtree(root / "b")
    assert scan(root).classes == ["a"]
    settle(root)
    make(root, "c/1.jpg")
    assert scan(root).classes == ["a", "c"]


def test_an_index_of_a_pillow_that_read_less_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make(tmp_path / "t", "a/1.jpg", "a/2.png")
    settle(root)
    with monkeypatch.context() as before:
        before.setattr(folder, "extensions", lambda: frozenset({".jpg"}))
        assert names(scan(root)) == ["a/1.jpg"]
        assert cache_file(root).exists()
    assert names(scan(root)) == ["a/1.jpg", "a/2.png"]


def test_a_damaged_index_is_not_trusted(tmp_path: Path) -> None:
    root = make(tmp_path / "t", "a/1.jpg")
    settle(root)
    scan(root)
    cache_file(root).write_bytes(cache_file(root).read_bytes()[:100])
    assert names(scan(root)) == ["a/1.jpg"]


def test_names_are_compact_and_exact() -> None:
    words = [f"n{i:08d}/n{i:08d}_{i}.JPEG" for i in range(1000)] + ["", "ü"]
    stored = Names.of(words)
    assert [stored[i] for i in range(len(stored))] == words
    assert len(Names.of(iter([]))) == 0
    assert stored.buffer.nbytes + stored.ends.nbytes < 45 * len(words)
