"""A device that has to imitate bfloat16 is found out, and "auto" does not ask it to."""

from inspect import signature
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from senet.kernels import tail
from senet.rundir import RunDir
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


QUICK = ("data=synthetic", "data.preprocessing.size=8", "augment.pad=1", "debug=one_batch")


@pytest.mark.slow
def test_auto_stays_what_it_was_where_the_run_began(train, evaluate, monkeypatch, caplog):
    caplog.set_level("INFO", "senet")
    monkeypatch.setattr(launch, "_computes_in_bfloat16", lambda kind: True)
    run = train(*QUICK, "trainer.precision=auto")
    assert RunDir(run).record()["precision"] == "bf16-mixed"
    monkeypatch.setattr(launch, "_computes_in_bfloat16", lambda kind: False)
    caplog.clear()
    train("trainer.max_epochs=2", resume=run)
    assert "precision bf16-mixed is imitated" in caplog.text
    assert RunDir(run).record()["precision"] == "bf16-mixed"
    caplog.clear()
    evaluate(f"run={run}")
    assert "precision   bf16-mixed is imitated" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("reason", [None, "the compiler takes it for an export"])
def test_tails_that_do_not_run_as_announced_are_said(train, monkeypatch, caplog, reason):
    caplog.set_level("INFO", "senet")
    monkeypatch.setattr(tail, "_CPU_MIN_VALUES_PER_IMAGE", 0)
    if reason is not None:  # where it is decided in the step, not where it is announced
        monkeypatch.setattr(tail, "why_eager", lambda *case: reason)
    train(*QUICK)
    assert "tail      9 of 9 fused (ATen)" in caplog.text
    assert ("only 0 of the 9 that were announced" in caplog.text) == (reason is not None)


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


def test_buffers_are_not_broadcast_under_the_name_that_this_torch_takes(tmp_path: Path):
    trainer = build_trainer({"accelerator": "cpu", "devices": 2}, tmp_path)
    options = trainer.strategy._ddp_kwargs
    names = [
        name
        for name in ("forward_sync_buffers", "broadcast_buffers")
        if name in signature(DistributedDataParallel).parameters
    ]
    assert options == {names[0]: False, "gradient_as_bucket_view": True}
