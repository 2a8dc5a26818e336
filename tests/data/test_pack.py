"""Packs: what is stored, that an interrupted pack goes on, and that damage is found."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from senet.data import AugmentConfig, FolderConfig, PackedConfig, Preprocessing
from senet.data.files.folder import ImageTree, scan
from senet.data.files.packed import PackedRecords, shard_file
from senet.data.module import ImageData
from senet.data.tools import pack
from senet.data.tools.pack import PackOptions
from senet.errors import UserError


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack, "SHARD_IMAGES", 5)


def splits(root: Path) -> dict[str, ImageTree]:
    return {"train": scan(root / "train"), "val": scan(root / "val")}


def write(root: Path, out: Path, workers: int = 1, **options: object) -> str:
    return pack.pack(splits(root), out, PackOptions(**options), workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_pack_without_resizing_holds_the_files(image_tree: Path, tmp_path: Path, workers: int) -> None:
    write(image_tree, tmp_path / "p", workers)
    for split, tree in splits(image_tree).items():
        packed = PackedRecords(tmp_path / "p", split)
        assert len(packed) == len(tree)
        assert packed.classes == tree.classes
        assert packed.labels.equal(tree.labels)
        for index in (*range(len(tree)), 0):
            assert packed.read(index) == tree.read(index)
            assert packed.name(index) == tree.name(index)
        assert packed.damaged() == []


def test_large_images_are_resized_and_validation_keeps_its_files(image_tree: Path, tmp_path: Path) -> None:
    write(image_tree, tmp_path / "p", short_side=20, quality=95)
    train, val = PackedRecords(tmp_path / "p", "train"), PackedRecords(tmp_path / "p", "val")
    stored = Image.open(io.BytesIO(train.read(3)))
    assert stored.format == "JPEG"
    assert stored.size == (24, 20)  # 48 x 40 at half the side
    original = Image.open(io.BytesIO(scan(image_tree / "train").read(3)))
    expected = np.asarray(original.resize((24, 20), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(np.asarray(stored).astype(int) - expected).mean() < 12  # noise, through a JPEG
    assert val.read(1) == scan(image_tree / "val").read(1)


def test_training_reads_from_a_pack_what_it_reads_from_the_folder(image_tree: Path, tmp_path: Path) -> None:
    write(image_tree, tmp_path / "p")
    keys = {"preprocessing": Preprocessing(size=16, resize=20), "batch_size": 4, "workers": 0}
    folder = ImageData(FolderConfig(root=str(image_tree), **keys), AugmentConfig(), 0)
    packed = ImageData(PackedConfig(root=str(tmp_path / "p"), **keys), AugmentConfig(), 0)
    for one, other in zip(folder.train_dataloader(), packed.train_dataloader(), strict=True):
        assert one.ids.equal(other.ids)
        assert one.images.equal(other.images)
    assert packed.val.name_of(0) == folder.val.name_of(0)
    assert packed.manifest_id["train"].startswith("content:")


def test_an_interrupted_pack_goes_on_and_ends_alike(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(image_tree, tmp_path / "whole", short_side=20)
    done = []
    original = pack.repack

    def dies(data: bytes, *options: object) -> bytes:
        if len(done) == 12:
            raise KeyboardInterrupt
        done.append(data)
        return original(data, *options)

    monkeypatch.setattr(pack, "repack", dies)
    with pytest.raises(KeyboardInterrupt):
        write(image_tree, tmp_path / "p", short_side=20)
    with pytest.raises(UserError, match="not finished"):
        PackedRecords(tmp_path / "p", "train")
    again = []
    monkeypatch.setattr(pack, "repack", lambda data, *options: again.append(data) or original(data, *options))
    with pytest.raises(UserError, match="other options"):
        write(image_tree, tmp_path / "p", short_side=24)
    assert write(image_tree, tmp_path / "p", short_side=20) == whole
    assert len(again) == 22 - 10  # two whole shards of five were there
    assert write(image_tree, tmp_path / "p", short_side=20) == whole
    assert len(again) == 12


def test_what_a_power_cut_left_of_a_shards_sums_is_written_anew(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write(image_tree, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(pack, "_write_index", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write(image_tree, tmp_path / "p")
    sums = tmp_path / "p" / "train" / "00000.npz"
    sums.write_bytes(sums.read_bytes()[:20])
    (tmp_path / "p" / "train" / "00001.npz").write_bytes(b"")
    assert write(image_tree, tmp_path / "p") == whole


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"plan": 7}'])
def test_a_folder_of_something_else_is_left_alone(image_tree: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "pack.json").write_text(text)
    with pytest.raises(UserError, match="choose another folder"):
        write(image_tree, tmp_path)
    assert (tmp_path / "pack.json").read_text() == text


def test_damage_is_found(image_tree: Path, tmp_path: Path) -> None:
    write(image_tree, tmp_path / "p")
    shard = shard_file(tmp_path / "p" / "train", 1)
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    damaged = PackedRecords(tmp_path / "p", "train").damaged()
    assert len(damaged) == 1
    assert 5 <= damaged[0] < 10
    shard.write_bytes(data[:-1])
    with pytest.raises(UserError, match="should have"):
        PackedRecords(tmp_path / "p", "train")


def test_an_undecodable_image_is_named(image_tree: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(image_tree, tmp_path / "t")
    (tmp_path / "t" / "train" / "dog" / "4.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match=r"dog/4\.jpg"):
        write(tmp_path / "t", tmp_path / "p", workers=2)


def test_a_folder_is_not_a_pack(image_tree: Path) -> None:
    with pytest.raises(UserError, match="senet pack"):
        PackedRecords(image_tree, "train")


def test_records_go_to_worker_processes(image_tree: Path, tmp_path: Path) -> None:
    import pickle

    write(image_tree, tmp_path / "p")
    records = PackedRecords(tmp_path / "p", "train")
    records.read(0)
    assert pickle.loads(pickle.dumps(records)).read(7) == records.read(7)
    assert torch.equal(records.labels, scan(image_tree / "train").labels)


HOSTILE = {
    "offsets": (lambda a: a + 10**9, "overlap"),
    "lengths": (lambda a: np.where(np.arange(len(a)) == 1, a + 5, a), "overlap"),
    "shards": (lambda a: a[::-1].copy(), "out of order"),
    "labels": (lambda a: a + 7, "label of no class"),
    "names_ends": (lambda a: a[::-1].copy(), "names without an end"),
    "names_buffer": (lambda a: a[:5], "names without an end"),
    "digests": (lambda a: a[:3], "another size or kind"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_that_points_elsewhere_is_refused(image_tree: Path, tmp_path: Path, name: str) -> None:
    write(image_tree, tmp_path / "p")
    index = tmp_path / "p" / "train" / "index.npz"
    with np.load(index) as stored:
        arrays = dict(stored)
    change, message = HOSTILE[name]
    for wrong, words in (
        (change(arrays[name]), message),
        (-arrays[name].astype(np.int64) - 1, ""),
        (arrays[name].astype(np.float64), "kind"),
        (np.array(3), "kind"),
    ):
        np.savez(index, **arrays | {name: wrong})
        with pytest.raises(UserError, match=f"index of the pack is damaged .*{words}"):
            PackedRecords(tmp_path / "p", "train")
    np.savez(index, **{key: value for key, value in arrays.items() if key != name})
    with pytest.raises(UserError, match=f"index of the pack is damaged .*{name}"):
        PackedRecords(tmp_path / "p", "train")


def test_an_index_cannot_grow_in_memory(image_tree: Path, tmp_path: Path) -> None:
    write(image_tree, tmp_path / "p")
    index = tmp_path / "p" / "train" / "index.npz"
    with np.load(index) as stored:
        arrays = dict(stored)
    np.savez_compressed(index, **arrays | {"names_buffer": np.zeros(10**8, np.uint8)})
    assert index.stat().st_size < 10**6
    with pytest.raises(UserError, match="it is compressed"):
        PackedRecords(tmp_path / "p", "train")


@pytest.mark.parametrize(
    "text",
    ["[]", "3", '{"id": "x"}', '{"id": 1, "classes": {}, "splits": {}}', '{"id": 1, "classes": [2], "splits": {}}',
     "[" * 10**6, "\xff"],
)  # fmt: skip
def test_a_list_that_is_none_is_refused(image_tree: Path, tmp_path: Path, text: str) -> None:
    write(image_tree, tmp_path / "p")
    (tmp_path / "p" / "pack.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"not a pack|not finished"):
        PackedRecords(tmp_path / "p", "train")
