"""Who runs what, and who is told."""

import logging

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from senet import SEConfig, UserError, create_model
from senet.kernels import dispatch
from senet.nn import ResidualTail, set_kernels

LARGE = (1, 64, 32, 32)  # as many values per image as the smallest map for which a CPU fuses


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that the fused operator was called with."""
    seen: list[str] = []
    fused = dispatch.fused

    def remember(*arguments: object) -> object:
        seen.append(str(arguments[-1]))
        return fused(*arguments)

    monkeypatch.setattr(dispatch, "fused", remember)
    monkeypatch.setattr(dispatch, "_said", set())
    return seen


def step(tail: ResidualTail, x: torch.Tensor) -> None:
    tail(x, torch.zeros_like(x))


def test_auto_fuses_on_a_cpu_where_it_is_worthwhile(calls: list[str]):
    step(ResidualTail(64, SEConfig()), torch.randn(LARGE))
    assert calls == ["cpu"]
    step(ResidualTail(64, SEConfig()), torch.randn(1, 64, 32, 31))
    step(ResidualTail(64), torch.randn(LARGE))
    eager = ResidualTail(64, SEConfig())
    set_kernels(eager, "eager")
    step(eager, torch.randn(LARGE))
    assert calls == ["cpu"]


@pytest.mark.parametrize(
    "config",
    [SEConfig(squeeze="max"), SEConfig(squeeze="none"), SEConfig(gate="tanh"), SEConfig(gate="relu")],
)
def test_only_average_squeeze_and_sigmoid_gate_are_fused(calls: list[str], config: SEConfig):
    tail = ResidualTail(64, config)
    step(tail, torch.randn(LARGE))
    assert not calls
    with pytest.raises(UserError, match="kernels=auto"):
        set_kernels(tail, "triton")


def test_other_placements_fuse_what_is_a_plain_tail(monkeypatch: pytest.MonkeyPatch, calls: list[str]):
    """SE-POST and SE-Identity wrap a tail without SE: fused or not, the numbers are the same."""
    monkeypatch.setattr(dispatch, "_not_worthwhile_on_cpu", lambda *_: None)
    for placement in ("pre", "post", "identity", "conv3x3"):
        torch.manual_seed(0)
        tail = ResidualTail(8, SEConfig(reduction=2, placement=placement))
        x, shortcut = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
        fused = tail(x, shortcut)
        set_kernels(tail, "eager")
        torch.testing.assert_close(fused, tail(x, shortcut))
    assert calls == ["cpu"] * 4


def test_a_hook_sees_every_gate(calls: list[str]):
    tail, x = ResidualTail(64, SEConfig()), torch.randn(LARGE)
    gates: list[torch.Tensor] = []
    handle = tail.se.excitation.register_forward_hook(lambda *args: gates.append(args[-1]))
    step(tail, x)
    handle.remove()
    assert [g.shape for g in gates] == [(1, 64, 1, 1)]
    assert not calls
    step(tail, x)
    assert calls == ["cpu"]


def test_a_replaced_layer_is_called(calls: list[str]):
    tail = ResidualTail(64, SEConfig())
    tail.se.excitation.fc2 = nn.Sequential(tail.se.excitation.fc2)
    step(tail, torch.randn(LARGE))
    nn.utils.parametrizations.weight_norm(tail.se.excitation.fc1)
    step(tail, torch.randn(LARGE))
    assert not calls


def test_one_value_per_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        step(ResidualTail(2**16, SEConfig(reduction=2**16)), torch.randn(1, 2**16, 1, 1))


def test_an_empty_batch_passes_in_evaluation():
    y = ResidualTail(64, SEConfig()).eval()(torch.randn(0, 64, 32, 32), torch.randn(0, 64, 32, 32))
    assert y.shape == (0, 64, 32, 32)


def test_unknown_word():
    with pytest.raises(UserError, match='did you mean "triton"'):
        set_kernels(create_model("se_resnet20"), "tritn")


def test_triton_insists(monkeypatch: pytest.MonkeyPatch):
    tail = ResidualTail(8, SEConfig(reduction=2))
    set_kernels(tail, "triton")
    with pytest.raises(UserError, match=r"kernels=triton, but the maps are torch.float64"):
        step(tail.double(), torch.randn(2, 8, 3, 3, dtype=torch.float64))
    monkeypatch.setattr(dispatch, "_INTERPRETED", False)
    with pytest.raises(UserError, match="on the cpu device"):
        step(tail.float(), torch.randn(2, 8, 3, 3))


def test_auto_takes_triton_on_a_gpu_and_says_once_why_not(calls: list[str], caplog: pytest.LogCaptureFixture):
    """On tensors that only claim to be on a GPU; the operator's fake implementation answers."""
    with FakeTensorMode(), caplog.at_level(logging.WARNING, "senet"), torch.device("cuda"):
        for tail in (ResidualTail(8, SEConfig(reduction=2)), ResidualTail(8)):
            y = tail(torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3))
            assert y.device.type == "cuda"
        assert calls == ["triton"] * 2
        assert not caplog.messages
        tail.bn.register_forward_hook(lambda *_: None)
        for _ in range(2):
            step(tail, torch.randn(2, 8, 3, 3))
    assert calls == ["triton"] * 2
    assert len(caplog.messages) == 1
    assert "unfused: a hook on BN" in caplog.text


def test_an_exported_graph_holds_standard_operators_only():
    tail, x = ResidualTail(64, SEConfig()).eval(), torch.randn(LARGE)
    exported = torch.export.export(tail, (x, x))
    assert not [n for n in exported.graph.nodes if "senet" in str(n.target)]
