"""The console is ours: our own lines on stdout, everything libraries say in the run's log file."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("senet")
LIBRARIES = ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")


def setup_console(rank: int = 0) -> None:
    """Print our own messages of rank 0; keep libraries and warnings off the terminal."""
    log.handlers.clear()
    log.setLevel(logging.INFO)
    log.propagate = False
    if rank == 0:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
    root = logging.getLogger()
    root.handlers[:] = [logging.NullHandler()]
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    # Native code (gloo, NCCL, libtorch) writes to stderr by itself.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append our messages and the libraries', with times, to the run's log."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        root.removeHandler(handler)
        handler.close()


def say(message: str) -> None:
    """Tell the user something."""
    log.info(message)
