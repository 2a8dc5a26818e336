"""Freed memory is kept: the second use of it pages nothing in. A commit is that of senet, or none."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from senet.training import environment

SCRIPT = """
import resource, sys, torch
from senet.training.environment import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for turn in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(40):
        torch.zeros(10_000_000).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_second_use_of_memory_pages_nothing_in():
    def faults(word: str) -> int:
        command = [sys.executable, "-c", SCRIPT, word]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200).stdout)

    assert faults("keep") < faults("default") / 4


def test_the_commit_of_a_repository_that_holds_senet_by_chance_is_not_senets(tmp_path: Path):
    copy = Path(shutil.copy(environment.__file__, tmp_path))

    def described() -> tuple[str | None, int | None]:
        found = runpy.run_path(str(copy))["describe_environment"]()
        return found["git_commit"], found["git_changed_files"]

    def git(*arguments: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e")
        return subprocess.check_output(["git", *who, *arguments], cwd=tmp_path, text=True).strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "theirs")
    assert described() == (None, None)
    git("add", ".")
    git("commit", "-q", "-m", "ours")
    assert described() == (git("rev-parse", "HEAD"), 0)
    (tmp_path / "more").touch()
    assert described()[1] == 1
