"""Freed memory is kept: the second use of it pages nothing in."""

import subprocess
import sys

import pytest

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
