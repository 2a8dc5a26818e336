"""Who runs what, and who is told."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import senet
from senet import SEConfig, UserError, create_model
from senet.kernels import tail as dispatch
from senet.nn import Excitation, ResidualTail, set_kernels
from senet.nn.tail import plan_tails

LARGE = (1, 64, 32, 32)  # as many values per image as the smallest map for which a CPU fuses


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that the fused operator was called with."""
    seen: list[str] = []
    fused = dispatch.fused_tail

    def remember(*arguments: object) -> object:
        seen.append(str(arguments[-1]))
        return fused(*arguments)

    monkeypatch.setattr(dispatch, "fused_tail", remember)
    monkeypatch.setattr(dispatch, "_said", set())
    return seen


def step(tail: ResidualTail, x: torch.Tensor) -> None:
    tail(x, torch.zeros_like(x))


def test_auto_fuses_on_a_cpu_where_it_is_worthwhile(calls: list[str]):
    step(ResidualTail(64, SEConfig()), torch.randn(LARGE))
    assert calls == ["aten"]
    step(ResidualTail(64, SEConfig()), torch.randn(1, 64, 32, 31))
    step(ResidualTail(64), torch.randn(LARGE))
    eager = ResidualTail(64, SEConfig())
    set_kernels(eager, "eager")
    step(eager, torch.randn(LARGE))
    assert calls == ["aten"]


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


class SiLUExcitation(Excitation):
    """An excitation of a user's own: SiLU between its layers."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.fc2(F.silu(self.fc1(z))))


def derive(tail: ResidualTail, _: pytest.MonkeyPatch) -> None:
    tail.se.excitation.__class__ = SiLUExcitation


def replace_forward(tail: ResidualTail, _: pytest.MonkeyPatch) -> None:
    tail.se.excitation.forward = SiLUExcitation.forward.__get__(tail.se.excitation)


def edit_class(_: ResidualTail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Excitation, "forward", SiLUExcitation.forward)


def replace_gate(tail: ResidualTail, _: pytest.MonkeyPatch) -> None:
    tail.se.gate = lambda x: SiLUExcitation.forward(tail.se.excitation, x.mean((2, 3), keepdim=True))


def replace_layer(tail: ResidualTail, _: pytest.MonkeyPatch) -> None:
    layer = tail.se.excitation.fc1
    layer.forward = lambda z: nn.Conv2d.forward(layer, z) + 1


@pytest.mark.parametrize("change", [derive, replace_forward, edit_class, replace_gate, replace_layer])
def test_an_excitation_of_ones_own_is_run_and_not_the_one_that_is_fused(
    calls: list[str], monkeypatch: pytest.MonkeyPatch, change: Callable
):
    torch.manual_seed(0)
    tail, x = ResidualTail(64, SEConfig()), torch.randn(LARGE)
    nn.init.normal_(tail.bn.bias)  # else all that SE sees is zero
    before = tail(x, x)
    assert calls == ["aten"]
    change(tail, monkeypatch)
    ours = tail(x, x)
    assert (ours - before).abs().max() > 1e-3
    set_kernels(tail, "eager")
    torch.testing.assert_close(ours, tail(x, x), rtol=0, atol=0)
    assert calls == ["aten"]
    with pytest.raises(UserError, match="not as senet wrote it"):
        set_kernels(tail, "triton")


@pytest.mark.slow
def test_an_edited_source_is_noticed(tmp_path: Path):
    """What somebody who tries another non-linearity does: one word in ``senet/nn/se.py``."""
    shutil.copytree(Path(senet.__file__).parent, tmp_path / "senet")
    source = tmp_path / "senet" / "nn" / "se.py"
    written = "F.relu(self.fc1(z), inplace=True)"
    assert source.read_text().count(written) == 1
    source.write_text(source.read_text().replace(written, "F.silu(self.fc1(z))"))
    code = (
        "import torch; from senet import SEConfig; from senet.nn import ResidualTail; "
        f"tail, x = ResidualTail(64, SEConfig()), torch.randn{LARGE}; "
        "print(tail.departs); fused = tail(x, x); tail.kernels = 'eager'; print(torch.equal(fused, tail(x, x)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=12000,
    )  # fmt: skip
    assert run.stdout.split("\n")[:2] == ["the excitation is not as senet wrote it", "True"], run.stderr


def test_an_axis_that_nobody_told_the_kernels_of_is_not_fused(calls: list[str]):
    @dataclasses.dataclass(frozen=True)
    class Wider(SEConfig):
        temperature: float = 1.0

    step(ResidualTail(64, Wider()), torch.randn(LARGE))
    assert calls == ["aten"]
    tail = ResidualTail(64, Wider(temperature=2.0))
    step(tail, torch.randn(LARGE))
    assert calls == ["aten"]
    assert tail.departs == "se.temperature is 2.0"


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev])
def test_functional_derivatives_run_eager(calls: list[str], transform: Callable):
    tail, x = ResidualTail(64, SEConfig()).eval(), torch.randn(LARGE)
    transform(lambda m: tail(m, m).sum())(x)
    assert not calls
    y = tail(x.requires_grad_(), x)
    (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(UserError, match="no second derivative: use kernels=eager"):
        first.sum().backward()


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
    assert calls == ["aten"] * 4


def test_a_hook_sees_every_gate(calls: list[str]):
    tail, x = ResidualTail(64, SEConfig()), torch.randn(LARGE)
    gates: list[torch.Tensor] = []
    handle = tail.se.excitation.register_forward_hook(lambda *args: gates.append(args[-1]))
    step(tail, x)
    handle.remove()
    assert [g.shape for g in gates] == [(1, 64, 1, 1)]
    assert not calls
    step(tail, x)
    assert calls == ["aten"]


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


@pytest.mark.slow
def test_what_runs_is_said_in_words():
    network = create_model("se_resnet20")
    large, small = (2, 3, 128, 128), (2, 3, 32, 32)
    assert str(plan_tails(network, large, "cpu", torch.float32)) == "9 of 9 fused (ATen)"
    assert str(plan_tails(network, small, "cuda", torch.bfloat16)) == "9 of 9 fused (Triton)"
    assert str(plan_tails(network, small, "cpu", torch.float32)) == (
        "0 of 9 fused (ATen); 9 one operation after the other: the passes that fusing saves are few or small"
    )
    network.stages["2"][0].tail.se.excitation.register_forward_hook(lambda *_: None)
    assert "8 of 9 fused (Triton); 1 one operation" in str(plan_tails(network, small, "cuda", torch.bfloat16))
    set_kernels(network, "eager")
    assert "0 of 9 fused (Triton); 9 one operation after the other: kernels=eager" in str(
        plan_tails(network, small, "cuda", torch.bfloat16)
    )
    assert str(plan_tails(create_model("se_vgg16_bn"), (2, 3, 64, 64), "cpu", torch.float32)).startswith(
        "none"
    )


def test_an_exported_graph_holds_standard_operators_only():
    tail, x = ResidualTail(64, SEConfig()).eval(), torch.randn(LARGE)
    exported = torch.export.export(tail, (x, x))
    assert not [n for n in exported.graph.nodes if "senet" in str(n.target)]
