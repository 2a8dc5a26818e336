"""Files that appear whole or not at all, and files that are made once and kept in this user's cache."""

import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from senet.errors import UserError


@contextmanager
def atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` to write to, and rename it when all is written and on the disk.

    No reader ever sees half of a file, after a power cut neither; where writing fails, what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with no_room_for(path):
            yield temporary
            if not temporary.is_symlink():
                _to_disk(temporary)
        os.replace(temporary, path)
        with suppress(OSError):  # not every file system lets a folder be synchronised
            _to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def no_room_for(path: Path) -> Iterator[None]:
    """Name the file where a disk or a quota is full: the system says it of a write, which knows no name."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            error.filename = os.fspath(path)
        raise


def _to_disk(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_parts(folder: Path, name: str = "") -> None:
    """Remove what processes that were killed in ``atomically`` left in a folder, of one file or of all.

    No other process may be writing there.
    """
    for part in folder.glob(f".{escape(name) or '*'}.*.part"):
        part.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; file names that are no UTF-8 survive in it."""
    with atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of a regular file.

    Raises:
        OSError: if it cannot be read, or is none: reading a pipe or a device may never end.
    """
    # Opening a pipe waits for its other end unless it is told not to.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "no regular file", os.fspath(path))
        return file.read()


def hold(path: Path, *, wait: bool = False) -> int:
    """Take the lock ``path`` for this process, with ``wait`` when it is free; return its open file's descriptor.

    The system lets go of it when the descriptor is closed and when the process ends, however it ends. Forked
    children do not hold it.

    Raises:
        BlockingIOError: if another process holds it; the file says which one did last.
        OSError: naming the file, if its file system has no locks.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        holder = f"process {os.pread(file, 20, 0).decode()}"
        os.close(file)
        if not isinstance(error, BlockingIOError):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise BlockingIOError(error.errno, holder) from error
    os.ftruncate(file, 0)
    os.pwrite(file, str(os.getpid()).encode(), 0)
    return file


def user_cache() -> Path:
    """Return the folder of this user's cached files."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(given or Path.home() / ".cache") / "senet"
    except RuntimeError:  # no HOME and no entry of this user, as in some containers
        return Path(tempfile.gettempdir()) / f"senet-{os.getuid()}"


def once(file: Path, make: Callable[[Path], None]) -> Path:
    """Return ``file``, which ``make`` writes, under the name it is given, if it is not there.

    Of all processes of a machine that ask at once, one makes it and the others wait. What ``make`` raises is
    raised here, and nothing is kept.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the process ends, however it ends
        if not file.exists():
            remove_parts(file.parent, file.name)
            with atomically(file) as temporary:
                make(temporary)
    return file


def configs_directory() -> Path:
    """Return the directory of the configuration files: of the checkout, or else of the installed package.

    Raises:
        UserError: if there is none.
    """
    package = Path(__file__).resolve().parent
    for place in (package.parent, package):
        if (place / "configs" / "train.yaml").is_file():
            return place / "configs"
    raise UserError(f"{package} has no configs: install senet anew")
