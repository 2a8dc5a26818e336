"""The timing that the benchmarks share, and one benchmark from end to end."""

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measure", BENCHMARKS / "measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_candidates_take_turns_and_nobody_is_always_first(measure: ModuleType):
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = measure.interleave(steps, rounds=3, device="cpu", calls=2, warmup=1)
    assert "".join(order) == "abc" + "aabbcc" + "bbccaa" + "ccaabb"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_taken_round_by_round(measure: ModuleType):
    # The machine is ten times slower in the last two rounds: a ratio of medians would say 10.
    assert measure.times_faster([1, 1, 10, 10, 10], [2, 2, 20, 20, 20]) == "2.000 (2.000 to 2.000)"
    row = measure.row("group", "name", [5.0, 1.0, 2.0, 4.0, 3.0])
    assert (row["low"], row["seconds"], row["high"], row["n"]) == (2.0, 3.0, 4.0, 5)


@pytest.mark.slow
def test_the_tail_is_timed_recorded_and_drawn(tmp_path: Path, command: Callable):
    options = [
        "--device",
        "cpu",
        "--batch",
        "1",
        "--rounds",
        "2",
        "--stages",
        "5",
        "--no-compile",
        "--dtype",
        "float32",
    ]
    run = command("benchmarks/tail.py", *options, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    record = json.loads((tmp_path / "tail.json").read_text())
    assert [r["name"] for r in record["rows"]] == ["fused", "eager", "eager"]
    assert record["environment"]["versions"]["torch"] != "none"
    assert record["command"] == " ".join(
        ["python benchmarks/tail.py", *options]
    )  # and no folder of this machine
    for row in record["rows"]:
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
        assert row["n"] == 2
    assert (tmp_path / "tail.md").read_text() in run.stdout
    assert (tmp_path / "tail.png").stat().st_size > 1000


@pytest.mark.slow
def test_our_loop_is_timed_against_a_bare_one(tmp_path: Path, command: Callable):
    options = ["--model", "se_resnet20", "--device", "cpu", "--size", "32", "--batch", "2", "--rounds", "3"]
    run = command("benchmarks/loop.py", *options, "--dtype", "float32", "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "loop.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["Lightning loop", "bare loop"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "lacking", [torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_a_step_of_a_named_network_is_timed_at_the_batch_that_fits(lacking, tmp_path: Path, monkeypatch):
    """Out of memory at 8 and 4 images: both networks, the plain twin too, are timed at 2."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script = importlib.import_module("train_step")
    monkeypatch.setattr(script, "GROUPS", dict(script.GROUPS))
    built = script.training_step

    def step(network: torch.nn.Module, batch: int, *more: object) -> Callable[[], None]:
        if batch > 2:
            raise lacking
        return built(network, batch, *more)

    monkeypatch.setattr(script, "training_step", step)
    options = ["--model", "se_resnet20", "--batch", "8", "--size", "16", "--modes", "eager", "--rounds", "1"]
    script.main([*options, "--device", "cpu", "--dtype", "float32", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "train_step.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["senet se_resnet20, eager", "senet resnet20, eager"]
    assert {row["group"] for row in rows} == {"se_resnet20, batch 2"}
    assert all(row["images_per_s"] == pytest.approx(2 / row["seconds"]) for row in rows)
    with pytest.raises(SystemExit, match="2"):
        script.main(["--model", "se_resnet200", "--out", str(tmp_path)])


def test_tiles_that_spill_are_not_measured_but_the_default_is(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(BENCHMARKS)
    import tune

    tiles = list(dict.fromkeys(tune.candidates("gradient_sums", quick=False)))
    found = [tune.Candidate("gradient_sums", tile, 256, 56) for tile in tiles]
    monkeypatch.setattr(tune, "spilled", lambda candidate, **_: 8 * (candidate.tile.pixels < 64))
    fit = [candidate.tile for candidate in tune.fitting(found, "cpu", torch.bfloat16, processes=1)]
    assert fit == [tile for tile in tiles if tile.pixels == 64 or tile == tune.CHANNELS_LAST["gradient_sums"]]
    assert 1 < len(fit) < len(tiles)


@pytest.mark.slow
def test_every_form_that_is_served_has_the_accuracy_of_the_run(
    train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serve
    from torch import nn

    run = train("debug=limits", "trainer.max_epochs=1")
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: None)  # takes a minute, and is not ours
    options = ["--device", "cpu", "--rounds", "1", "--batches", "7", "40", "--images", "1000"]
    rows = json.loads(serve.main([str(run), *options, "--out", str(tmp_path)]).read_text())["rows"]
    assert [row["group"] for row in rows] == ["batch 7"] * 5 + ["batch 40"] * 5
    assert {row["name"] for row in rows} == {"eager", "folded", "compiled", "folded compiled", "onnxruntime"}
    reached = json.loads((run / "summary.json").read_text())["best"]
    assert {round(row["top1"], 6) for row in rows} == {round(reached["val/top1"], 6)}
    assert {row["other"] for row in rows} == {0}
    assert "over_eager" in capsys.readouterr().out
