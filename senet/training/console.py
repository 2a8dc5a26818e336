"""The console is ours: our own lines on stdout, everything libraries say in the run's log file."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from senet.terminal import fitted

OK, FAILED, MISUSED = 0, 1, 2
"""Exit statuses: success, a failure, a mistake of the user's."""

log = logging.getLogger("senet")
LIBRARIES = ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")


def rank() -> int:
    """Return this process's rank over all machines; some systems set RANK for processes that are no ranks of ours."""
    return int(os.environ.get("RANK", 0)) if under_torchrun() else 0


def under_torchrun() -> bool:
    """Whether this process is one of several ranks that a launcher, ours or another, has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class _Terminal(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return fitted(super().format(record))


def setup_console() -> None:
    """Print our own messages of rank 0; keep libraries and warnings off the terminal."""
    log.handlers.clear()
    log.setLevel(logging.INFO)
    log.propagate = False
    if rank() == 0:
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no UTF-8
            sys.stdout.reconfigure(errors="backslashreplace")
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(_Terminal("%(message)s"))
        log.addHandler(handler)
    root = logging.getLogger()
    root.handlers[:] = [logging.NullHandler()]
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.raiseExceptions = False  # a full disk under the log is no reason for a traceback
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    # Native code (gloo, NCCL, libtorch) writes to stderr by itself.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Append our messages and the libraries', with times, to the run's log."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="surrogateescape")
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
        with suppress(OSError):
            handler.close()


def say(message: str) -> None:
    """Tell the user something."""
    log.info(message)


def say_from_handler(message: str) -> None:
    """Tell the user something from a signal handler.

    It may have interrupted a write to stdout, whose buffer refuses to be entered twice: logging would lose the line.
    """
    with suppress(OSError):
        os.write(1, f"{message}\n".encode())
