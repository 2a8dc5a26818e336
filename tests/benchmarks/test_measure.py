"""The timing that the benchmarks share, and one benchmark from end to end."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

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
