"""The plan for a borrowed GPU: what its stages get, and what comes back of them."""

import importlib
import os
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu_all(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("gpu_all")


@pytest.mark.parametrize("inherited", [None, "/wheels:/more"])
def test_a_stage_finds_the_checkout_first_and_then_what_was_on_the_path(
    inherited: str | None, gpu_all: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if inherited is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", inherited)
    note = f"import os; open({str(tmp_path / 'path')!r}, 'w').write(os.environ['PYTHONPATH'])"
    stage = gpu_all.Stage(1, 1, [sys.executable, "-c", note], [], [])
    assert gpu_all.run("stage", stage, tiny=True).startswith("done")
    expected = [str(BENCHMARKS.parent), *([] if inherited is None else ["/wheels", "/more"])]
    assert (tmp_path / "path").read_text().split(os.pathsep) == expected


def test_no_call_is_expected_to_take_longer_than_a_machine_is_lent(gpu_all: ModuleType, tmp_path: Path):
    stages = gpu_all.plan(tmp_path).values()
    seconds = [sum(stage.seconds for stage in stages if stage.call == call) for call in (1, 2, 3)]
    assert max(seconds) < 600
    assert sum(seconds) < 1800


def test_the_archive_holds_the_rows_of_a_stage_that_is_still_running(
    gpu_all: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The stage writes a row and then waits until the archive has it, or a minute."""
    out, archive = tmp_path / "out", tmp_path / "all.tar.gz"
    stage = f"""
import pathlib, sys, tarfile, time
pathlib.Path({str(out / "rows.json")!r}).write_text("[1]")
for _ in range(600):
    time.sleep(0.1)
    if pathlib.Path({str(archive)!r}).exists():
        with tarfile.open({str(archive)!r}) as tar:
            if "benchmarks/rows.json" in tar.getnames():
                sys.exit()
sys.exit("no rows")
"""
    stages = {"slow": gpu_all.Stage(1, 1, [sys.executable, "-c", stage], [], [])}
    monkeypatch.setattr(gpu_all, "plan", lambda _: stages)
    monkeypatch.setattr(gpu_all, "PACK_EVERY", 0.1)
    monkeypatch.setattr(sys, "argv", ["gpu_all.py", "--out", str(out), "--archive", str(archive)])
    assert gpu_all.main() == 0
    with tarfile.open(archive) as tar:
        assert tar.extractfile("benchmarks/summary.txt").read().startswith(b"slow: done")


def test_a_stage_that_takes_too_long_is_ended_and_its_rows_are_kept(
    gpu_all: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    kept: list[None] = []
    monkeypatch.setattr(gpu_all, "PACK_EVERY", 0.1)
    monkeypatch.setattr(gpu_all.Stage, "limit", lambda *_: 0)
    stage = gpu_all.Stage(1, 1, [sys.executable, "-c", "import time; time.sleep(600)"], [], [])
    assert gpu_all.run("slow", stage, False, lambda: kept.append(None)) == "stopped after 0 s"
    assert kept
