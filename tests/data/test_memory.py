"""Data that lives in memory from the start: CIFAR in torchvision's format, the digits and their split."""

import hashlib
import io
import pickle
import tarfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
import torchvision.datasets
from sklearn.datasets import load_digits

from senet.data import AugmentConfig, CifarConfig, DigitsConfig, Preprocessing
from senet.data.datasets import MemoryDataset
from senet.data.module import ImageData
from senet.errors import UserError

PRE = Preprocessing(size=32, resize=None)
NAMES = {
    "cifar10": ("CIFAR10", "labels", "label_names"),
    "cifar100": ("CIFAR100", "fine_labels", "fine_label_names"),
}


def test_images_that_are_no_squares_are_fitted() -> None:
    images = torch.zeros(2, 3, 48, 32, dtype=torch.uint8)
    data = MemoryDataset(images, torch.zeros(2, dtype=torch.long), ["a"], str)
    assert data.fit(PRE, "own").images.shape == (2, 3, 32, 32)


def write_archive(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Write an archive like the official one, with few images; return images (N, 3, 32, 32) and labels by split."""
    attribute, labels, label_names = NAMES[name]
    cls = getattr(torchvision.datasets, attribute)
    classes = 10 if name == "cifar10" else 100
    generator = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    truth = {}
    for split, entries in (("train", cls.train_list), ("test", cls.test_list)):
        images, found = [], []
        for file, _ in entries:
            pixels = generator.integers(0, 256, (classes, 3 * 32 * 32), dtype=np.uint8)
            numbers = generator.permutation(classes).tolist()
            files[file] = pickle.dumps({"data": pixels, labels: numbers}, protocol=2)
            images.append(pixels)
            found += numbers
        truth[split] = (np.concatenate(images).reshape(-1, 3, 32, 32), found)
    files[cls.meta["filename"]] = pickle.dumps({label_names: [f"c{i}" for i in range(classes)]}, protocol=2)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for file, data in files.items():
            info = tarfile.TarInfo(f"{cls.base_folder}/{file}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    root.mkdir()
    (root / cls.filename).write_bytes(buffer.getvalue())
    md5 = {file: hashlib.md5(data).hexdigest() for file, data in files.items()}
    monkeypatch.setattr(cls, "tgz_md5", hashlib.md5(buffer.getvalue()).hexdigest())
    monkeypatch.setattr(cls, "train_list", [[file, md5[file]] for file, _ in cls.train_list])
    monkeypatch.setattr(cls, "test_list", [[file, md5[file]] for file, _ in cls.test_list])
    monkeypatch.setattr(cls, "meta", cls.meta | {"md5": md5[cls.meta["filename"]]})
    return truth


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_from_the_official_archive(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = write_archive(tmp_path / "data", name, monkeypatch)
    config = CifarConfig(root=str(tmp_path / "data"), name=name)
    for opened, split in (("train", "train"), ("val", "test")):
        found = config.open(opened, PRE, None)
        assert isinstance(found, MemoryDataset)
        images, labels = truth[split]
        assert np.array_equal(found.images.numpy(), images)
        assert found.labels.tolist() == labels
        assert found.classes == [f"c{i}" for i in range(len(set(labels)))]
        assert found.name_of(7) == f"{name}/{split}/7"
    data = ImageData(
        CifarConfig(root=str(tmp_path / "data"), name=name, preprocessing=PRE), AugmentConfig(crop="pad"), 0
    )
    batch = next(iter(data.val_dataloader()))
    assert batch.images.equal(torch.from_numpy(truth["test"][0][: len(batch.ids)]))


@pytest.mark.slow
def test_cifar_is_fetched_once_by_processes_that_start_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path / "there", "cifar10", monkeypatch)
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            time.sleep(1)  # so that who does not wait asks, too
            super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "there"))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", address)
        CifarConfig(root=str(tmp_path / "alone"), name="cifar10").open("train", PRE, None)
        alone = len(asked)
        config = CifarConfig(root=str(tmp_path / "here"), name="cifar10")
        ranks = [get_context("fork").Process(target=config.open, args=("train", PRE, None)) for _ in range(3)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        server.shutdown()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert len(asked) == 2 * alone


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("download", [True, False])
def test_cifar_that_cannot_be_had_says_where_to_put_it(
    name: str, download: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        getattr(torchvision.datasets, NAMES[name][0]), "url", "http://127.0.0.1:9/cifar.tar.gz"
    )
    with pytest.raises(
        UserError, match=f"{name}: not found under data.root={tmp_path}.*official python archive"
    ):
        CifarConfig(root=str(tmp_path), name=name, download=download).open("train", PRE, None)


def test_a_damaged_cifar_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "data", "cifar10", monkeypatch)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar.tar.gz")
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UserError, match="cifar10: not found"):
        CifarConfig(root=str(tmp_path / "data"), name="cifar10").open("train", PRE, None)


def test_the_digits_split_is_stratified_and_always_the_same() -> None:
    bunch = load_digits()
    ids, labels, images = {}, {}, {}
    for train in (True, False):
        found = DigitsConfig().open("train" if train else "val", PRE, None)
        ids[train] = [int(found.name_of(i).removeprefix("digits/")) for i in range(len(found))]
        labels[train], images[train] = found.labels.numpy(), found.images.numpy()
        assert np.array_equal(labels[train], bunch.target[ids[train]])
        assert np.abs(images[train][:, 0] / 255 - bunch.images[ids[train]] / 16).max() <= 0.5 / 255 + 1e-9
    assert sorted(ids[True] + ids[False]) == list(range(1797))
    assert (len(ids[True]), len(ids[False])) == (1437, 360)
    expected = np.bincount(bunch.target) * 360 / 1797
    assert np.abs(np.bincount(labels[False]) - expected).max() < 1
    # The held-out digits of every figure that was ever reported.
    assert hashlib.sha256(np.array(ids[False], dtype="<i4").tobytes()).hexdigest()[:16] == "0d494aca5d2a8043"
