"""No benchmark times a network whose fused tail silently does not run."""

import importlib
import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from senet import create_model
from senet.kernels import folded_tail, reference
from senet.nn import set_kernels, tail as tail_module
from senet.nn.folding import fold_batch_norms

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIONS = ["--device", DEVICE, "--batch", "2", "--rounds", "1", "--dtype", "float32"]
GROUP = "resnet50, stride on 1x1"  # what `where` and `cost` take their networks from
STOPPED = "the residual tails ran eager, not triton"


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def train_step(out: Path) -> Path:
    options = ["--groups", GROUP, "--modes", "eager", "--size", "8", "--out", str(out)]
    return load("train_step").main([*OPTIONS, *options])


def inference(out: Path) -> Path:
    options = ["--groups", GROUP, "--modes", "eager", "--size", "8", "--out", str(out)]
    return load("inference").main([*OPTIONS, *options])


def where(out: Path) -> Path:
    return load("where").main([*OPTIONS, "--size", "8", "--out", str(out)])


def cost(out: Path) -> Path:
    return load("cost").main([*OPTIONS, "--batches", "2", "--sizes", "8", "--out", str(out)])


def loop(out: Path) -> Path:
    return load("loop").main([*OPTIONS, "--model", "se_resnet20", "--size", "8", "--out", str(out)])


def serve(out: Path) -> None:
    network = create_model("se_resnet20").eval()
    set_kernels(network, "triton")
    options = Namespace(device=DEVICE, dtype=torch.float32, batches=[2], size=8)
    load("serve").served("eager", network, options)


@pytest.fixture
def networks_in_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every benchmark compares a small network that insists on Triton, which a CPU interprets, and its plain twin."""
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    networks = load("networks")
    small = (networks.ours("se_resnet20", "triton"), networks.ours("resnet20", "triton"))
    monkeypatch.setitem(networks.GROUPS, GROUP, small)
    monkeypatch.setattr(load("where"), "set_kernels", lambda *_: None)
    build = load("loop").build_network

    def build_network(*arguments: object) -> torch.nn.Module:
        network = build(*arguments)
        set_kernels(network, "triton")
        return network

    monkeypatch.setattr(load("loop"), "build_network", build_network)


def fall_back(x, shortcut, bn, se=None, kernels="auto") -> torch.Tensor:
    """Stand for a dispatch that takes eager and does not say so."""
    return reference.eager_tail(x, shortcut, bn, None if se is None else se.gate)


@pytest.mark.usefixtures("networks_in_triton")
@pytest.mark.parametrize("benchmark", [train_step, inference, where, cost, loop, serve])
def test_a_silent_fallback_stops_a_benchmark(benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tail_module, "residual_tail", fall_back)
    with pytest.raises(SystemExit, match=STOPPED):
        benchmark(tmp_path)
    assert not any(json.loads(path.read_text())["rows"] for path in tmp_path.glob("*.json"))


@pytest.mark.slow
@pytest.mark.usefixtures("networks_in_triton")
@pytest.mark.parametrize("benchmark", [inference, serve])  # the interpreter takes minutes for a backward pass
def test_the_fused_tail_is_timed_where_it_runs(benchmark, tmp_path: Path):
    benchmark(tmp_path)


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load("measure")


def test_what_is_expected_of_a_network(measure: ModuleType):
    network = create_model("se_resnet50")
    expected: Callable = measure.expected_tail
    assert expected(network, "cpu") is None
    assert expected(network, "cuda") == expected(network, "cuda", compiled=True) == {"triton"}
    folded = fold_batch_norms(network)
    assert expected(folded, "cpu") is None
    assert expected(folded, "cuda") == {"triton"}
    assert expected(folded, "cuda", compiled=True) == set()
    set_kernels(network, "eager")
    assert expected(network, "cuda") == expected(create_model("se_bn_inception"), "cuda") == set()


def test_a_folded_tail_is_seen_and_a_fused_one_where_none_should_be(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(folded_tail, "merge", lambda x, *_: x)
    original = folded_tail.merge
    with measure.watched_tail() as seen:
        folded_tail.merge(torch.zeros(1), None, None, None)
    assert seen == {"triton"}
    assert folded_tail.merge is original
    eager = SimpleNamespace(modules=list)
    with (
        pytest.raises(SystemExit, match="ours: the residual tails ran triton, not eager"),
        measure.demanded_tail("ours", eager, "cuda"),
    ):
        folded_tail.merge(torch.zeros(1), None, None, None)
