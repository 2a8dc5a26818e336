"""The processes of this machine, as ``/proc`` lists them."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A process: its parent, and its state: "R" runs, "S" waits, "T" was stopped, "Z" has ended."""

    parent: int
    state: str


def processes() -> dict[int, Entry]:
    """Return every process that has not ended."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            text = Path("/proc", pid, "stat").read_text(errors="replace")  # Linux cuts names within a letter
            state, parent = text.rpartition(")")[2].split()[:2]
            found[int(pid)] = Entry(int(parent), state)
    return {pid: entry for pid, entry in found.items() if entry.state != "Z"}


def children(parent: int) -> set[int]:
    """Return the processes that a process started."""
    return {pid for pid, entry in processes().items() if entry.parent == parent}


def family(first: int) -> set[int]:
    """Return all processes below one."""
    below = children(first)
    return below.union(*map(family, below))


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with, empty if it has ended or is another user's."""
    with suppress(OSError):
        text = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes())
        return {name: value for name, _, value in (line.partition("=") for line in text.split("\0"))}
    return {}
