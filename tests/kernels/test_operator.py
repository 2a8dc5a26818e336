"""The registered operator: what torch's own checks, the compiler, autocast and the FLOP counter see."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from senet import SEConfig, create_model
from senet.kernels import operator, reference, triton_kernels
from senet.models.network import Network
from senet.nn import ResidualTail, set_kernels

DEVICE = {"aten": "cpu", "triton": "cuda" if torch.cuda.is_available() else "cpu"}


def arguments(
    backend: str, *, gate: bool = True, training: bool = True, dtype: torch.dtype = torch.float32
) -> tuple:
    """Return arguments of the operator: maps (2, 6, 3, 5), all that can require a gradient do."""

    def leaf(*shape: int) -> torch.Tensor:
        kind = torch.promote_types(dtype, torch.float32)
        return torch.randn(shape, device=DEVICE[backend], dtype=kind).requires_grad_()

    torch.manual_seed(0)
    maps = [
        torch.randn(2, 6, 3, 5, device=DEVICE[backend], dtype=dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for _ in range(2)
    ]
    running = (None, None) if training else (leaf(6).detach(), leaf(6).detach().square())
    excitation = (leaf(2, 6, 1, 1), leaf(2), leaf(6, 2, 1, 1), None) if gate else (None,) * 4
    return (*maps, leaf(6), leaf(6), *running, *excitation, 1e-5, "", backend)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", [True, False])
# torch warns while its own check looks at a tensor of its own making.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_opcheck(backend: str, gate: bool, training: bool):
    torch.library.opcheck(operator.fused_tail, arguments(backend, gate=gate, training=training))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gate", [True, False])
def test_gradients_in_float64(gate: bool, training: bool):
    values = arguments("aten", gate=gate, training=training, dtype=torch.float64)

    def y(*leaves: torch.Tensor) -> torch.Tensor:
        given = iter(leaves)
        return operator.fused_tail(*(next(given) if _is_leaf(v) else v for v in values))[0]

    leaves = [v for v in values if _is_leaf(v)]
    assert len(leaves) == (7 if gate else 4)
    assert torch.autograd.gradcheck(y, leaves)


def test_a_gradient_in_two_summands_is_their_sum(backend: str):
    values = arguments(backend)
    y, mean, inv, _, *descriptors = operator.fused_tail(*values)
    x, _, weight, bias, *_, w1, _, w2, _, _, _, _ = values
    saved = (x, y, weight, bias, w1, w2, mean, inv, *descriptors, True, "", backend)
    dy, dy2 = (torch.randn_like(y) for _ in range(2))
    found = operator.fused_tail_backward(dy, *saved, dy2)
    for ours, expected in zip(found, operator.fused_tail_backward(dy + dy2, *saved), strict=True):
        torch.testing.assert_close(ours, expected)


def _is_leaf(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad


def test_reference_is_its_formula_and_has_its_gradients():
    torch.manual_seed(0)
    tail = ResidualTail(6, SEConfig(reduction=3)).double()
    x, shortcut = (torch.randn(3, 6, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def run(x: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
        return reference.eager_tail(x, shortcut, tail.bn, tail.se.gate)

    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    u = (x - mean) / (var + 1e-5).sqrt()
    w1, w2 = (fc.weight[:, :, 0, 0] for fc in (tail.se.excitation.fc1, tail.se.excitation.fc2))
    gate = 1 / (1 + torch.exp(-torch.clamp(u.mean((2, 3)) @ w1.T, min=0) @ w2.T))
    expected = torch.clamp(gate[:, :, None, None] * u + shortcut, min=0)
    torch.testing.assert_close(run(x, shortcut), expected, rtol=0, atol=1e-12)
    assert torch.autograd.gradcheck(run, (x, shortcut))


def tiny(kernels: str, device: str = "cpu") -> Network:
    """Return the first two units of SE-ResNet-20's trunk, which need no projection, between stem and head."""
    torch.manual_seed(0)
    model = create_model("se_resnet20")
    model.stages = nn.ModuleDict({"2": model.stages["2"][:2]})
    model.head.fc = nn.Linear(16, 10)
    set_kernels(model, kernels)
    return model.to(device)


@pytest.mark.slow
def test_compiled_network_keeps_it_as_one_operator_without_graph_breaks():
    device = DEVICE["triton"]
    images = torch.randn(2, 3, 8, 8, device=device)
    expected, compiled = tiny("triton", device), tiny("triton", device)
    targets: list[object] = []

    def remember(graph: torch.fx.GraphModule, inputs: list) -> object:
        targets.extend(node.target for node in graph.graph.nodes)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled.compile(backend=remember, fullgraph=True)
    for model in (expected, compiled):
        model(images).square().sum().backward()
    fused = torch.ops.senet.fused_tail.default
    assert sum(target in (fused, operator.fused_tail._opoverload) for target in targets) == 2
    for ours, theirs in zip(compiled.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    for ours, theirs in zip(compiled.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("case")
def test_flop_counter_sees_the_excitation():
    """Two matrix products of C x C/r per image: 4 N C C/r FLOPs forwards, twice that backwards."""
    model, images = tiny("auto"), torch.randn(2, 3, 8, 8)
    with FlopCounterMode(display=False) as fused:
        model(images).sum().backward()
    set_kernels(model, "eager")
    with FlopCounterMode(display=False) as eager:
        model(images).sum().backward()
    assert torch.ops.senet.fused_tail in fused.get_flop_counts()["Global"]
    assert fused.get_total_flops() == eager.get_total_flops()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run natively here")
def test_kernels_compile_for_an_h100_without_spills_and_with_the_widest_accesses(tmp_path: Path):
    """Interpreting checks the numbers; that the code is Triton for a GPU only its compiler can say."""
    pytest.importorskip("triton.backends.nvidia")
    options = ["--quick", "--stages", "2", "--targets", "sm_90", "--processes", "1", "--out", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "compile_kernels.py"), *options],
        env=os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=12000,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    record = json.loads((tmp_path / "kernels.json").read_text())
    assert {r["kernel"] for r in record["kernels"]} == {
        name.removesuffix("_kernel") for name in vars(triton_kernels) if name.endswith("_kernel")
    }
    for r in record["kernels"]:
        assert r["spilled_bytes"] == 0, r
        if r["kernel"] in ("moments", "merge", "gradient_sums", "grad_input"):
            assert r["load_bits"] == 128, r
        if r["kernel"] in ("merge", "gradient_sums", "grad_input"):
            assert r["store_bits"] == 128, r
    se, plain = record["counts"]
    tails = 16
    assert (se["triton launches"], se["aten launches"], se["map transfers"]) == (
        8 * tails,
        9 * tails,
        11 * tails,
    )
    assert (plain["triton launches"], plain["aten launches"]) == (6 * tails, 2 * tails)
