"""The same work on many items in several processes, in order, with a progress bar."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return the number of cores that this process has, after sharing with the other ranks on this machine."""
    machine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, machine // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def progress(total: int, label: str, unit: str = " images") -> Any:
    """Return a progress bar on the terminal; nothing is drawn elsewhere."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=True,
        disable=not sys.stderr.isatty(),
    )


def work(
    function: Callable[[T], R], items: Sequence[T], workers: int | None = None, chunk: int = 1
) -> Iterator[R]:
    """Yield ``function(item)`` for every item in order; an exception in a worker is raised here.

    Args:
        function: what to do; it and the items are pickled where processes are not forked.
        items: what to do it with.
        workers: processes; ``None`` takes all cores, 0 or 1 works in this process.
        chunk: items handed to a worker at once.
    """
    count = min(cores() if workers is None else workers, len(items))
    method = "fork" if sys.platform == "linux" else "spawn"
    pool = multiprocessing.get_context(method).Pool(count, _quiet) if count > 1 else None
    with pool if pool is not None else nullcontext():
        yield from pool.imap(function, items, chunk) if pool is not None else map(function, items)


def _quiet() -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
