"""Files that can be made or fetched again, kept in a cache folder of this machine."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def user_cache() -> Path:
    """Return the folder of this user's cached files."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "senet"


def once(file: Path, make: Callable[[Path], None]) -> Path:
    """Return ``file``, which ``make`` writes if it is not there.

    It appears whole or not at all, and of all processes of a machine that ask at once, one makes it and the others
    wait. ``make`` is given another name to write to; what it raises is raised here, and nothing is kept.
    """
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the process ends, however it ends
        try:
            if not file.exists():
                make(temporary)
                os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
    return file
