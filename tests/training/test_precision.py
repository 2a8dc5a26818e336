"""A device that has to imitate bfloat16 is found out, and "auto" does not ask it to."""

from pathlib import Path

import pytest
import torch

from senet.training import launch
from senet.training.trainer import build_trainer


@pytest.mark.parametrize(
    ("asked", "able", "given", "maps"),
    [
        ("auto", True, "bf16-mixed", torch.bfloat16),
        ("auto", False, "32-true", torch.float32),
        ("bf16-mixed", False, "bf16-mixed", torch.bfloat16),
        ("16-mixed", False, "16-mixed", torch.float16),
        (None, True, "32-true", torch.float32),
    ],
)
def test_precision(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, able: bool, given: str, maps: torch.dtype
):
    monkeypatch.setattr(launch, "_computes_in_bfloat16", lambda kind: able)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    trainer = {"precision": asked, "accelerator": "gpu"}
    assert launch.precision(trainer) == given
    assert launch.dtype_of_maps(trainer) == maps
    warning = launch.slow_precision(trainer)
    assert (warning is not None) == (given == "bf16-mixed" and not able)
    assert warning is None or "use trainer.precision=auto" in warning


def test_a_cpu_knows_whether_it_has_the_instructions():
    able = launch._computes_in_bfloat16("cpu")
    described = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "flags" in described:  # oneDNN computes in bfloat16 from AVX-512 on
        assert able == ("avx512bw" in described)


@pytest.mark.parametrize(
    ("settings", "searches"),
    [
        ({}, True),
        ({"deterministic": True}, False),
        ({"benchmark": False}, False),
        ({"benchmark": True}, True),
    ],
)
def test_cudnn_searches_for_its_fastest_algorithm_unless_the_run_is_to_be_deterministic(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: dict, searches: bool
):
    monkeypatch.setattr("senet.training.trainer.Trainer", lambda **arguments: arguments)
    assert build_trainer({"accelerator": "cpu"} | settings, tmp_path)["benchmark"] is searches
