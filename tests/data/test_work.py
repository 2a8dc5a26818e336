"""Work in several processes: order, exceptions in their own words, a worker that is killed."""

import errno
import fcntl
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from senet.data.tools import work
from senet.errors import UserError
from senet.files import hold


def square(number: int) -> int:
    if number == 13:
        raise UserError("13 is not wanted")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def note(folder: Path, number: int) -> int:
    (folder / str(number)).touch()
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order(workers):
    assert list(work(square, range(12), "squares", workers, chunk=3)) == [n * n for n in range(12)]


def test_work_is_done_a_few_chunks_ahead_and_no_more(tmp_path: Path):
    """Decoded images that nobody has taken yet would fill the memory."""
    results = work(partial(note, tmp_path), range(200), "notes", 2, chunk=2)
    assert next(results) == 0
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) <= 2 * 2 * 2 + 2
    assert list(results) == list(range(1, 200))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_is_raised_as_it_is(workers):
    with pytest.raises(UserError, match="13 is not wanted"):
        list(work(square, range(40), "squares", workers))


def test_a_killed_worker_is_said_and_not_waited_for():
    with pytest.raises(UserError, match="squares: a worker process was killed"):
        list(work(square, [1, 99, 2, 3], "squares", 2))


def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with pytest.raises(OSError, match="No locks available") as raised:
        hold(tmp_path / ".lock")
    assert not isinstance(raised.value, BlockingIOError)
    assert raised.value.filename == str(tmp_path / ".lock")
