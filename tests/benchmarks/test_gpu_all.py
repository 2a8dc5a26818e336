"""The plan for a borrowed GPU: what its stages get, and what comes back of them."""

import importlib
import os
import sys
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
