"""The commands on image files, and what they share: work in several processes, in order, with a progress bar."""

import argparse
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TypeVar

from senet.errors import UserError

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of cores that this process has, after sharing with the other ranks on this machine."""
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, machine // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def add_source(parser: argparse.ArgumentParser, also: str = "") -> None:
    """Declare which images a command is for; see ``senet.data.sets.stored_images``."""
    text = f"folder with train/ and val/ or with the classes alone, file of labels (data=csv){also}"
    parser.add_argument("source", type=Path, help=text)
    parser.add_argument("--images", type=Path, help="folder that a file's paths are relative to (its own)")


def work(
    function: Callable[[T], R],
    items: Sequence[T],
    label: str,
    workers: int | None = None,
    chunk: int = 1,
    total: int | None = None,
    size: Callable[[R], int] = lambda result: 1,
) -> Iterator[R]:
    """Yield ``function(item)`` for every item in order; an exception in a worker is raised here.

    A progress bar is drawn on a terminal.

    Args:
        function: what to do; it and the items are pickled where processes are not forked.
        items: what to do it with.
        label: of the progress bar.
        workers: processes; ``None`` takes all cores, 0 or 1 works in this process.
        chunk: items handed to a worker at once.
        total: images in all; ``None`` if every item is one.
        size: images of one result.
    """
    from tqdm import tqdm

    count = min(cores() if workers is None else workers, len(items))
    method = "fork" if sys.platform == "linux" else "spawn"
    # Not multiprocessing.Pool: it waits for ever for a worker that was killed, and now and then for its own end.
    pool = ProcessPoolExecutor(count, multiprocessing.get_context(method), _quiet) if count > 1 else None
    hidden = not sys.stderr.isatty()
    bar = tqdm(
        desc=label,
        total=total or len(items),
        unit=" images",
        unit_scale=True,
        dynamic_ncols=True,
        leave=False,
        disable=hidden,
    )
    with pool or nullcontext(), bar:
        try:
            for result in _ahead(pool, function, items, chunk, 2 * count) if pool else map(function, items):
                bar.update(size(result))
                yield result
        except BrokenProcessPool as error:
            raise UserError(
                f"{label}: a worker process was killed, most likely for want of memory; "
                "run the same command again with fewer workers"
            ) from error


def _ahead(
    pool: ProcessPoolExecutor, function: Callable[[T], R], items: Sequence[T], chunk: int, most: int
) -> Iterator[R]:
    """Yield the results in order, ``most`` chunks ahead of whoever takes them: memory does not grow with the items."""
    chunks = (items[first : first + chunk] for first in range(0, len(items), chunk))
    asked = (pool.submit(_each, function, part) for part in chunks)
    waiting = deque(islice(asked, most))
    try:
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(islice(asked, 1))
    finally:
        for future in waiting:
            future.cancel()


def _each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    return [function(item) for item in items]


def _quiet() -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
