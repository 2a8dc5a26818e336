"""Fixtures of the training tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from study_fakes import ROOT, FakeExecutor


@pytest.fixture
def study(tmp_path: Path, monkeypatch) -> Callable[..., int]:
    """Run ``train.py -m ...`` in this process with a given executor."""
    from senet.study import commands, runner
    from senet.training.entry import register_models

    register_models()
    monkeypatch.setattr("sys.argv", [str(ROOT / "train.py")])
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.0)

    def run(executor: FakeExecutor, *overrides: str, call: Callable[[], int] | None = None) -> int:
        monkeypatch.setattr(commands, "build_executor", lambda launcher, path: executor)
        if call is not None:
            return call()
        return commands.main([f"runs_dir={tmp_path}/runs", *overrides])

    return run
