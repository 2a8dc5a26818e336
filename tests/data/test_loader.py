"""Which samples come when: exact orders, exact resume, every evaluation sample once, and the same pixels."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from senet.data import AugmentConfig, Batch, Preprocessing
from senet.data.augment import ImageAugmentation
from senet.data.datasets import BadImages, FileDataset, MemoryDataset, read_bad_images
from senet.data.files.decoders import build_decoder
from senet.data.files.folder import ImageTree, scan
from senet.data.loader import PREFETCH, EvalLoader, TrainLoader
from senet.data.sampling import EpochSizes
from senet.errors import UserError
from senet.processes import processes

PRE = Preprocessing(size=16, resize=20)
SIZES = EpochSizes(((1, 24), (3, 12)), 16)


def memory(samples: int) -> MemoryDataset:
    images = torch.zeros(samples, 1, 2, 2, dtype=torch.uint8)
    return MemoryDataset(images, torch.arange(samples) % 3, ["a", "b", "c"], str)


def files(tree: ImageTree) -> FileDataset:
    augment = ImageAugmentation(AugmentConfig(rand_augment=(2, 9), erase=0.5), PRE)
    return FileDataset(tree, PRE, build_decoder("fast", "RGB"), augment, seed=5)


def flat(batches: Iterable[Iterable[int]]) -> list[int]:
    return [index for batch in batches for index in batch]


def ids(batches: Iterable[Batch]) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


def epoch(loader: TrainLoader, number: int) -> list[list[int]]:
    loader.set_epoch(number)
    return ids(loader)


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ() -> None:
    loader = TrainLoader(memory(24), 4, seed=1)
    first, second = flat(epoch(loader, 0)), flat(epoch(loader, 1))
    assert sorted(first) == sorted(second) == list(range(24))
    assert first != second
    assert first != flat(epoch(TrainLoader(memory(24), 4, seed=2), 0))
    assert first == flat(epoch(loader, 0))


def test_the_incomplete_batch_is_left_out() -> None:
    loader = TrainLoader(memory(23), 4, seed=1)
    assert [len(batch) for batch in epoch(loader, 0)] == [4] * 5
    assert len(loader) == 5


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_see_what_one_process_sees(world: int) -> None:
    whole = epoch(TrainLoader(memory(25), 4 * world, seed=3), 7)
    ranks = [epoch(TrainLoader(memory(25), 4, seed=3, rank=r, world_size=world), 7) for r in range(world)]
    for step, batch in enumerate(whole):
        for rank in range(world):
            assert ranks[rank][step] == batch[rank::world]


@pytest.mark.slow
def test_workers_change_neither_order_nor_pixels(tree: ImageTree) -> None:
    runs = [list(TrainLoader(files(tree), 4, seed=5, workers=workers)) for workers in (0, 1, 2)]
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            assert one.ids.equal(other.ids)
            assert one.images.equal(other.images)
            assert one.labels.equal(other.labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_that_are_kept_stay_as_they_were(tree: ImageTree, workers: int) -> None:
    """Workers hand batches over in memory that they use again: many batches, of two sizes, some not fetched."""
    expected, loader = (
        TrainLoader(
            FileDataset(
                tree, PRE, build_decoder("fast", "RGB"), ImageAugmentation(AugmentConfig(), PRE), 5, SIZES
            ),
            1,
            seed=5,
            workers=number,
        )
        for number in (0, workers)
    )
    for number in range(4):
        expected.set_epoch(number)
        loader.set_epoch(number)
        batches = 7 if number == 2 else len(tree)
        assert len(tree) > 2 * (PREFETCH + 1)
        kept = list(islice(loader, batches))
        for one, other in zip(islice(expected, batches), kept, strict=True):
            assert one.images.shape[-1] == SIZES(number)
            assert one.images.equal(other.images)


@pytest.mark.slow
@pytest.mark.skipif(
    os.getuid() != 0 or shutil.which("unshare") is None, reason="needs root to mount a small /dev/shm"
)
def test_too_little_shared_memory_is_said_at_once() -> None:
    code = "from senet.data.loader import Ring; Ring(None, 2, 4, 10_000_000)"
    script = f"mount -t tmpfs -o size=16m none /dev/shm && exec {sys.executable} -c '{code}'"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=1200
    )
    if "permission denied" in result.stderr.lower():
        pytest.skip("not allowed to mount")
    assert "UserError: data.workers=2 need 95 MiB of shared memory" in result.stderr, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stop", [1, 3])
def test_resume_gives_exactly_the_rest_and_the_next_epoch(tree: ImageTree, workers: int, stop: int) -> None:
    undisturbed = TrainLoader(files(tree), 4, seed=5)
    expected = [list(undisturbed)]
    undisturbed.set_epoch(1)
    expected.append(list(undisturbed))

    killed = TrainLoader(files(tree), 4, seed=5, workers=workers)
    list(islice(killed, stop))
    resumed = TrainLoader(files(tree), 4, seed=5, workers=2 - workers)
    resumed.load_state_dict(killed.state_dict())
    resumed.set_epoch(0)
    assert len(resumed) == 4  # as Lightning counts: those before the resume included
    rest = list(resumed)
    resumed.set_epoch(1)
    for mine, theirs in ((rest, expected[0][stop:]), (list(resumed), expected[1])):
        assert ids(mine) == ids(theirs)
        assert all(a.images.equal(b.images) for a, b in zip(mine, theirs, strict=True))


def test_resume_over_one_two_and_again_one_rank() -> None:
    data = memory(48)
    expected = flat(epoch(TrainLoader(data, 8, seed=4), 0))
    first = TrainLoader(data, 8, seed=4)
    seen = flat(ids(islice(first, 1)))
    pair = [TrainLoader(data, 4, seed=4, rank=rank, world_size=2) for rank in range(2)]
    for loader in pair:
        loader.load_state_dict(first.state_dict())
    for left, right in islice(zip(*map(iter, pair), strict=True), 3):
        seen += [index for both in zip(left.ids.tolist(), right.ids.tolist(), strict=True) for index in both]
    assert pair[0].state_dict() == pair[1].state_dict()
    last = TrainLoader(data, 8, seed=4)
    last.load_state_dict(pair[1].state_dict())
    seen += flat(ids(last))
    assert seen == expected


def test_a_state_at_the_end_of_an_epoch_leaves_nothing_of_it() -> None:
    loader = TrainLoader(memory(16), 4, seed=1)
    list(loader)
    again = TrainLoader(memory(16), 4, seed=1)
    again.load_state_dict(loader.state_dict())
    again.set_epoch(0)
    assert ids(again) == []
    assert epoch(again, 1) == epoch(loader, 1)


@pytest.mark.parametrize(("samples", "world"), [(13, 1), (13, 2), (13, 3), (2, 3)])
def test_evaluation_covers_every_sample_once(samples: int, world: int) -> None:
    loaders = [EvalLoader(memory(samples), 4, rank=r, world_size=world) for r in range(world)]
    batches = [ids(loader) for loader in loaders]
    assert sorted(flat(flat(batches))) == list(range(samples))
    # A rank without images still takes part: Lightning would leave it out.
    assert [max(1, len(b)) for b in batches] == [len(loader) for loader in loaders]


@pytest.fixture
def broken_tree(tree: ImageTree, tmp_path: Path) -> tuple[ImageTree, set[int]]:
    """The tree with images 3 and 10 cut off and emptied."""
    for index in range(len(tree)):
        copy = tmp_path / "broken" / tree.name(index)
        copy.parent.mkdir(parents=True, exist_ok=True)
        data = tree.read(index)
        copy.write_bytes({3: data[: len(data) // 2], 10: b""}.get(index, data))
    return ImageTree(tmp_path / "broken", tree.names, tree.labels, tree.classes), {3, 10}


@pytest.mark.parametrize("workers", [0, 2])
def test_fail_names_the_file(broken_tree: tuple[ImageTree, set[int]], workers: int) -> None:
    tree, bad = broken_tree
    names = {tree.name(index) for index in bad}
    with pytest.raises(UserError, match="cannot be decoded") as error:
        list(TrainLoader(files(tree), 4, seed=5, workers=workers))
    assert any(name in str(error.value) for name in names)


def test_skip_leaves_out_lists_and_never_substitutes(
    broken_tree: tuple[ImageTree, set[int]], tmp_path: Path
) -> None:
    tree, bad = broken_tree
    bad_images = BadImages(tmp_path / "skipped.csv")
    loader = TrainLoader(files(tree), 4, seed=5, workers=2, on_bad_image="skip", bad_images=bad_images)
    batches = list(loader)
    assert len(batches) == len(loader) == 4
    seen = flat(ids(batches))
    assert sorted(seen) == sorted(set(range(16)) - bad)
    assert all(batch.labels.tolist() == [int(tree.labels[i]) for i in batch.ids] for batch in batches)
    assert bad_images.images == bad
    assert set(read_bad_images(tmp_path / "skipped.csv")) == {tree.name(index) for index in bad}


@pytest.mark.slow
def test_a_list_of_bad_images_that_does_not_fit_is_no_half_row(tmp_path: Path) -> None:
    """A file system that is nearly full takes a part of a write and says so only to whoever counts."""
    code = """
import resource, signal, sys
from pathlib import Path
from senet.data.datasets import BadImage, BadImages
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    BadImages(Path(sys.argv[1])).add([BadImage(0, 1, "cat/1.jpg", "x" * 200)])
except OSError as error:
    print(error.filename, error.strerror)
"""
    file = tmp_path / "skipped.csv"
    result = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=True)
    assert result.stdout == f"{file} File too large\n"


def test_a_batch_without_a_readable_image_is_an_error(broken_tree: tuple[ImageTree, set[int]]) -> None:
    tree, _ = broken_tree
    with pytest.raises(UserError, match="none of the 1 images"):
        list(TrainLoader(files(tree), 1, seed=5, on_bad_image="skip"))


def test_evaluation_counts_what_it_leaves_out(broken_tree: tuple[ImageTree, set[int]]) -> None:
    tree, bad = broken_tree
    dataset = FileDataset(tree, PRE, build_decoder("reference", "RGB"))
    with pytest.raises(UserError, match="cannot be decoded"):
        list(EvalLoader(dataset, 1))
    loader = EvalLoader(dataset, 1, on_bad_image="count")
    assert len(ids(loader)) + len(loader.bad_images.images) == len(tree)
    assert loader.bad_images.images == bad


def test_timings_add_up(tree: ImageTree) -> None:
    loader = TrainLoader(files(tree), 4, seed=5)
    batches = iter(loader)
    next(batches)
    torch.randn(300, 300).svd()  # the consumer's work is not waiting
    list(batches)
    timings = loader.timings
    assert timings.images == 16
    work = timings.stages["read"] + timings.stages["decode"] + timings.stages["augment"]
    assert 0 < work <= timings.waited < timings.elapsed
    timings.elapsed = timings.waited = 4.0
    assert timings.hint(workers=1, cores=4) is None  # too short to tell
    timings.elapsed, timings.waited = 100.0, 60.0
    assert "60 % of the time; data.workers=2 would help (now 1)" in str(timings.hint(workers=1, cores=4))
    timings.reset()
    assert timings.hint(workers=1, cores=4) is None


@pytest.mark.slow
def test_a_batch_of_a_worker_that_was_stopped_is_not_waited_for(tree: ImageTree, monkeypatch) -> None:
    """It lies in the queue; a tensor in it would be asked of the worker, which is no wait that a DataLoader bounds."""
    fetch, fetched = FileDataset.fetch, []

    def stop_at_the_third(self: FileDataset, *args: object) -> Batch:
        fetched.append(1)
        if len(fetched) == 3:
            os.kill(os.getpid(), signal.SIGSTOP)
        return fetch(self, *args)

    monkeypatch.setattr(FileDataset, "fetch", stop_at_the_third)
    monkeypatch.setattr("senet.data.loader.PATIENCE", 2.0)
    others = active_children()  # of a test before, on their way out
    loader = TrainLoader(files(tree), 4, seed=5, workers=1)
    batches = iter(loader)
    next(batches)
    (worker,) = {*active_children()} - {*others}
    while processes()[worker.pid].state != "T":
        time.sleep(0.01)
    with pytest.raises(UserError, match="one was stopped"):
        list(batches)
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    del loader, batches
    gc.collect()


def test_a_worker_ends_for_its_parent_alone(tree: ImageTree) -> None:
    """What SLURM and containers send to every process must not cost the run its next batches."""
    others = active_children()  # of a test before, on their way out
    loader = TrainLoader(files(tree), 4, seed=5, workers=2)
    batches = iter(loader)
    first = next(batches).ids.tolist()
    workers = {*active_children()} - {*others}
    assert len(workers) == 2
    for worker in workers:
        for name in ("TERM", "INT", "HUP", "USR1", "USR2"):
            subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert [first, *ids(batches)] == ids(TrainLoader(files(tree), 4, seed=5))
    for worker in workers:
        worker.terminate()
        worker.join(60)
        assert worker.exitcode == 0
    del loader, batches
    gc.collect()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asleep", "stopped"])
def test_workers_that_hang_are_ended_with_the_cause(image_tree: Path, monkeypatch, how: str):
    """Without a bound the run would wait for ever, and at its end for the workers."""

    def hang(self: FileDataset, *args: object) -> None:
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(600)

    monkeypatch.setattr("senet.data.loader.PATIENCE", 1.0)
    monkeypatch.setattr(FileDataset, "fetch", hang)
    loader = TrainLoader(files(scan(image_tree / "train")), 4, seed=0, workers=2)
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(
        UserError, match=r"not delivered a batch for 1 s: .* the batch train/(cat|dog)/\d\.jpg, "
    ):
        next(iter(loader))
    for worker in active_children():
        worker.join(60)
        assert worker.exitcode is not None
    del loader
    gc.collect()  # torch forgets the workers with their loader
    signal.signal(signal.SIGCHLD, handler)
