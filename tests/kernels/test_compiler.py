"""What a compiled training step of a GPU holds, seen on a CPU: the operator, both summands, nothing that waits."""

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from senet import SEConfig, create_model
from senet.kernels import operator, triton_passes
from senet.kernels.compiler import compile_options
from senet.nn import Bottleneck, set_kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["se_resnet20", "resnet20"])
def test_a_compiled_network_trains_with_the_fused_tail_in_its_graph(name: str):
    """What a GPU would run, compiled on tensors that only claim to be there: all nine tails, no graph break."""
    graphs: list[fx.GraphModule] = []

    def remember(graph: fx.GraphModule, _: list) -> Callable:
        graphs.append(graph)
        return graph.forward

    with FakeTensorMode(), torch.device("cuda"):
        network = create_model(name)
        torch.compile(network, backend=remember, fullgraph=True)(torch.randn(2, 3, 32, 32))
    (graph,) = graphs
    assert sum("fused_tail" in str(node.target) for node in graph.graph.nodes) == 9


def test_what_the_operator_does_stays_on_the_device(monkeypatch: pytest.MonkeyPatch):
    """So that a CUDA graph can record it: here is all that it calls, but for the kernels."""
    monkeypatch.setattr(triton_passes, "_launch", lambda *_, **__: None)
    with FakeTensorMode(), torch.device("cuda"), torch.autograd.profiler.profile() as profiler:
        x, y, dy = (torch.randn(2, 8, 4, 4) for _ in range(3))
        vector, w1, w2 = torch.randn(8), torch.randn(2, 8, 1, 1), torch.randn(8, 2, 1, 1)
        gate = (w1, torch.randn(2), w2, torch.randn(8))
        found = operator.fused_tail._init_fn(x, y, vector, vector, None, None, *gate, 1e-5, "", "triton")
        y, mean, inv, _, *descriptors = found
        saved = (dy, x, y, vector, vector, w1, w2, mean, inv, *descriptors)
        gradients = operator.fused_tail_backward._init_fn(*saved, True, "", "triton")
    assert {tensor.device.type for tensor in (*found, *gradients)} == {"cuda"}
    called = {event.name for event in profiler.function_events}
    assert "aten::addmm" in called
    for tail in (operator.fused_tail, operator.fused_tail_backward):
        assert torch.Tag.cudagraph_unsafe not in tail._opoverload.tags
    assert not called & {"aten::item", "aten::_local_scalar_dense", "aten::copy_", "aten::lift_fresh"}


def units(kernels: str) -> nn.Sequential:
    """Return two residual units with random parameters."""
    torch.manual_seed(0)
    made = nn.Sequential(*(Bottleneck(8, 4, 8, se=SEConfig(reduction=2)) for _ in range(2)))
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    set_kernels(made, kernels)
    return made.to(DEVICE, memory_format=torch.channels_last)


@pytest.mark.slow
def test_the_sum_of_two_gradients_is_left_to_the_tail(monkeypatch: pytest.MonkeyPatch):
    seen: list[bool] = []
    gradient_sums = triton_passes.gradient_sums

    def remember(dy: torch.Tensor, dy2: torch.Tensor | None, *others: object) -> tuple:
        seen.append(dy2 is not None)
        return gradient_sums(dy, dy2, *others)

    monkeypatch.setattr(triton_passes, "gradient_sums", remember)
    compiled, expected = units("triton"), units("eager").double()
    # A function of ours: torch 2.11 compiles an nn.Sequential of its own child by child.
    step = torch.compile(lambda images: compiled(images), options=compile_options(), fullgraph=True)
    generator = torch.Generator().manual_seed(0)
    x, dy = (torch.randn(2, 8, 5, 6, generator=generator).to(DEVICE) for _ in range(2))
    for network, dtype in ((step, torch.float32), (expected, torch.float64)):
        network(x.to(dtype, memory_format=torch.channels_last)).backward(dy.to(dtype))
    assert seen == [False, True]  # the last unit's output has one reader, the first one's two
    for ours, theirs in zip(compiled.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-4)
