"""Packs at an address: the samples of the local pack, each file fetched once, and nothing kept that is not whole."""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path

import pytest

from senet.data import AugmentConfig, PackedConfig, Preprocessing
from senet.data.files.folder import scan
from senet.data.files.packed import PackedRecords, open_folder, shard_file
from senet.data.module import ImageData
from senet.data.tools import pack
from senet.data.tools.pack import PackOptions
from senet.errors import UserError
from senet.files import once

KEYS = {"preprocessing": Preprocessing(size=16, resize=20), "batch_size": 4, "workers": 0}


@pytest.fixture
def packed(image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pack whose training split has four shards."""
    monkeypatch.setattr(pack, "SHARD_IMAGES", 5)
    splits = {split: scan(image_tree / split) for split in ("train", "val")}
    pack.pack(splits, tmp_path / "pack", PackOptions(), 1)
    return tmp_path / "pack"


class Served:
    """A pack behind a loopback HTTP server; counts what is asked for; can cut an answer short, stall, never end."""

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.cut = ""
        self.stalled: threading.Event | None = None
        self.endless = False
        served = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                served.asked.append(self.path)
                if served.stalled:
                    served.stalled.wait(60)
                if served.endless:
                    self.send_response(200)
                    self.end_headers()
                    with suppress(ConnectionError):
                        for _ in range(10**4):
                            self.wfile.write(bytes(10**6))
                    return
                if not served.cut or not self.path.endswith(served.cut):
                    super().do_GET()
                    return
                data = (root / self.path[1:]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def served(packed: Path) -> Iterator[Served]:
    found = Served(packed)
    yield found
    found.server.shutdown()
    found.server.server_close()


def kept(folder: Path) -> set[str]:
    """The files of a cache, but for the locks."""
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


@pytest.mark.parametrize("workers", [0, 2])
def test_training_is_that_of_the_local_pack_and_fetches_once(
    served: Served, packed: Path, tmp_path: Path, workers: int
) -> None:
    keys = KEYS | {"workers": workers}
    config = PackedConfig(root=served.url + "/", cache=str(tmp_path / "kept"), **keys)
    local = ImageData(PackedConfig(root=str(packed), **keys), AugmentConfig(), 0)
    remote = ImageData(config, AugmentConfig(), 0)
    assert sorted(served.asked) == ["/pack.json", "/train/index.npz", "/val/index.npz"]
    for loaders in (
        (local.train_dataloader(), remote.train_dataloader()),
        (local.val_dataloader(), remote.val_dataloader()),
    ):
        for one, other in zip(*loaders, strict=True):
            assert one.ids.equal(other.ids)
            assert one.images.equal(other.images)
    assert remote.manifest_id == local.manifest_id
    assert remote.val.name_of(0) == local.val.name_of(0)
    assert len(served.asked) == len(set(served.asked)) == 3 + 4 + 2
    served.asked.clear()
    again = ImageData(config, AugmentConfig(), 0)
    assert sum(len(batch.ids) for batch in again.train_dataloader()) == 16
    assert served.asked == []


def test_a_cut_off_download_is_an_error_and_never_kept(served: Served, packed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "kept"
    config = PackedConfig(root=served.url, cache=str(cache), on_bad_image="skip", **KEYS)
    for cut in ("pack.json", "index.npz"):
        served.cut = cut
        with pytest.raises(UserError, match=f"{cut} cannot be fetched"):
            ImageData(config, AugmentConfig(), 0)
        assert cut not in kept(cache)
    served.cut = "train/00001.bin"
    data = ImageData(config, AugmentConfig(), 0)
    # A shard that cannot be fetched is no bad image, so it is not skipped.
    with pytest.raises(UserError, match=r"00001\.bin cannot be fetched"):
        list(data.train_dataloader())
    assert not any(name.endswith(".part") for name in kept(cache))
    served.cut = ""
    data = ImageData(config, AugmentConfig(), 0)
    assert sum(len(batch.ids) for batch in data.train_dataloader()) == 16
    assert "00001.bin" in kept(cache)


def test_a_download_is_bounded_in_bytes_and_time(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = PackedRecords(served.url, "train", str(tmp_path / "kept"))
    served.endless = True  # ten gigabytes, or the few that the index promises
    with pytest.raises(
        UserError, match=r"00000\.bin cannot be fetched \(ValueError: it is larger than the pack says"
    ):
        records.read(0)
    served.endless, served.stalled = False, threading.Event()
    monkeypatch.setattr("senet.integrations.object_storage.SILENCE", 0.5)
    with pytest.raises(UserError, match=r"00000\.bin cannot be fetched \(\w*Timeout"):
        records.read(0)
    served.stalled.set()
    assert "00000.bin" not in kept(tmp_path / "kept")
    served.stalled = None
    assert len(records.read(0)) > 100


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_another_shard_than_the_indexs_is_refused(packed: Path, tmp_path: Path, workers: int) -> None:
    shard = shard_file(packed / "train", 2)
    data = bytearray(shard.read_bytes())
    config = PackedConfig(
        root=packed.as_uri(), cache=str(tmp_path / "kept"), on_bad_image="skip", **KEYS | {"workers": workers}
    )
    for wrong, message in (
        (data[:-1], "00002.bin should have"),
        (data[:700] + b"x" + data[701:], "00002.bin is not"),
    ):
        shard.write_bytes(wrong)
        with pytest.raises(UserError, match=message):
            list(ImageData(config, AugmentConfig(), 0).train_dataloader())
        assert "00002.bin" not in {path.name for path in (tmp_path / "kept").glob("*/train/*.bin")}


@pytest.mark.slow
def test_mistakes_are_named(served: Served, packed: Path, tmp_path: Path) -> None:
    port = served.server.server_address[1]
    for root, message in (
        (f"{served.url}/train", "is not a pack"),
        (tmp_path.as_uri(), "is not a pack"),
        ("nosuch://bucket/pack", "Protocol not known: nosuch"),
        ("http://127.0.0.1:9/pack", "cannot be fetched"),
    ):
        with pytest.raises(UserError, match=message):
            PackedRecords(root, "train", str(tmp_path / "kept"))
    assert kept(tmp_path / "kept") == set()
    (packed / "pack.json").write_text("<html>sign in first</html>")
    with pytest.raises(UserError, match="is not a pack"):
        PackedRecords(f"http://127.0.0.1:{port}", "train", str(tmp_path / "kept"))
    (packed / "pack.json").write_text('{"plan": {}}')
    with pytest.raises(UserError, match="not finished"):
        PackedRecords(served.url, "train", str(tmp_path / "kept"))
    assert kept(tmp_path / "kept") == set()
    with pytest.raises(UserError, match=r"data\.cache=x keeps copies"):
        PackedConfig(root="here", cache="x")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", absent)
    with pytest.raises(UserError, match=r"data\.root=s3://b/p needs another package: Install s3fs"):
        PackedRecords("s3://b/p", "train")


def test_a_full_disk_is_named(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("senet.files.os.replace", full)
    with pytest.raises(UserError, match=r"No space left on device.*set data\.cache"):
        PackedRecords(packed.as_uri(), "train")


def test_the_default_cache_is_the_users(packed: Path, tmp_path: Path) -> None:
    records = PackedRecords(packed.as_uri(), "train")
    shutil.rmtree(packed / "val")
    records.read(0)
    assert kept(tmp_path / "cache" / "senet" / "packs") == {"pack.json", "index.npz", "00000.bin"}


def make(calls: Path, file: Path) -> None:
    with calls.open("a") as log:
        log.write("made\n")
    file.write_text("half ")
    threading.Event().wait(0.2)
    with file.open("a") as whole:
        whole.write("whole")


def ask(calls: Path, file: Path, answer: Callable[[str], None]) -> None:
    answer(once(file, partial(make, calls)).read_text())


def test_of_many_processes_one_makes_the_file(tmp_path: Path) -> None:
    context = get_context("fork")
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=ask, args=(tmp_path / "calls", tmp_path / "c" / "file", answers.put))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert [answers.get() for _ in processes] == ["half whole"] * 4
    for process in processes:
        process.join()
    assert (tmp_path / "calls").read_text() == "made\n"


def test_a_maker_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails(file: Path) -> None:
        file.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "file", fails)
    assert kept(tmp_path) == set()
    assert once(tmp_path / "file", lambda file: file.write_text("whole")).read_text() == "whole"


def test_copies_may_lie_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_folder("https://nowhere/pack", "~/copies").cache.parent == tmp_path / "copies"
