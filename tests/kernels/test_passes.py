"""The fused tail against the eager one, both against float64: err(fused) <= 2 err(eager) + atol."""

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from senet import SEConfig
from senet.kernels import aten_passes, tiling, triton_passes
from senet.kernels.tail import residual_tail

LOW = [torch.bfloat16, torch.float16]


def assert_as_exact_as_eager(case, backend: str, dtype: torch.dtype, atol: float = 2e-6) -> dict[str, Tensor]:
    """Compare every result; ``atol``, relative to its largest value, is some roundings of float32."""
    truth = case.run("eager", torch.float64, maps=dtype)
    eager, fused = case.run("eager", dtype), case.run(backend, dtype)
    assert fused.keys() == eager.keys()
    for name, exact in truth.items():
        assert fused[name].dtype == eager[name].dtype, name
        scale = max(1.0, exact.abs().max().item())
        of_eager = (eager[name].double() - exact.double()).abs().max().item()
        of_fused = (fused[name].double() - exact.double()).abs().max().item()
        allowed = 2 * of_eager + (atol + _further_rounding(name, backend, dtype)) * scale
        assert of_fused <= allowed, (name, of_fused, of_eager, scale)
    return fused


def _further_rounding(name: str, backend: str, dtype: torch.dtype) -> float:
    """Return one unit of the maps' type where a result is rounded to it once more than the rule allows for."""
    twice = backend == "aten" and name == "dx"  # the ATen passes add to what they have stored
    # Triton's interpreter cuts float32 to bfloat16 where a GPU rounds.
    cut = backend == "triton" and not torch.cuda.is_available()
    cut = cut and dtype == torch.bfloat16 and name in ("y", "dx")
    return torch.finfo(dtype).eps / 2 if twice or cut else 0.0


def where(backend: str) -> tuple[str, str]:
    """Return the device on which ``backend`` runs here, and the word that asks for it."""
    if backend == "aten":
        return "cpu", "auto"
    return "cuda" if torch.cuda.is_available() else "cpu", "triton"


SHAPES = {
    "odd": (2, 19, 6, 7),
    "one pixel": (5, 130, 1, 1),
    "one image": (1, 12, 5, 3),
    "one channel": (3, 1, 4, 4),
    "several slices": (2, 5, 25, 24),
}


def test_both_backends_have_the_same_passes():
    own = [f for f in vars(aten_passes).values() if getattr(f, "__module__", "") == aten_passes.__name__]
    passes = {f.__name__: f for f in own if not f.__name__.startswith("_")}
    assert {"moments", "combine", "merge", "grad_input"} < passes.keys()
    for name in passes.keys() - {"normalise", "channel_sums"}:  # of ATen alone
        assert inspect.signature(passes[name]) == inspect.signature(getattr(triton_passes, name)), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_shapes(case: Callable, backend: str, shape: tuple, dtype: torch.dtype):
    assert_as_exact_as_eager(case(shape), backend, dtype)


VARIANTS = {
    "contiguous": {"layout": torch.contiguous_format},
    "no shortcut": {"has_shortcut": False},
    "no SE": {"se": None},
    "no SE, no shortcut": {"se": None, "has_shortcut": False},
    "no bias": {"se": SEConfig(reduction=4, bias=False)},
    "evaluation": {"training": False},
    "evaluation, no SE": {"training": False, "se": None},
    "contiguous evaluation": {"training": False, "layout": torch.contiguous_format},
}


@pytest.mark.parametrize("dtype", [torch.float32, *LOW])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_variants(case: Callable, backend: str, variant: dict, dtype: torch.dtype):
    assert_as_exact_as_eager(case((3, 10, 5, 6), **variant), backend, dtype)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_mean_far_from_zero_costs_no_digits(case: Callable, backend: str, layout: torch.memory_format):
    # E[x^2] - mean^2 would have no digit left: both terms are 1e6, and float32 has 7. ATen sums a mean plainly,
    # in eager mode too, so that its own error is of the order of 1e-6 of the mean.
    mean, atol = (1000.0, 1e-5) if backend == "triton" else (300.0, 1e-3)
    distant = case((3, 10, 25, 24), mean=mean, layout=layout)
    fused = assert_as_exact_as_eager(distant, backend, torch.float32, atol)
    exact = distant.x.double().var((0, 2, 3)) * 0.1 + distant.tail.bn.running_var.double() * 0.9
    torch.testing.assert_close(fused["bn.running_var"].double(), exact, rtol=1e-4, atol=0)


def test_a_constant_channel_has_no_variance(case: Callable, backend: str):
    flat = case((2, 6, 4, 5))
    flat.x[:, 2] = 7.0
    fused = assert_as_exact_as_eager(flat, backend, torch.float32)
    assert fused["dx"][:, 2].isfinite().all()


def test_a_closed_gate_passes_the_shortcut_alone(case: Callable, backend: str):
    closed = case((2, 8, 4, 5))
    torch.nn.init.zeros_(closed.tail.se.excitation.fc2.weight)
    torch.nn.init.constant_(closed.tail.se.excitation.fc2.bias, -1e4)
    fused = assert_as_exact_as_eager(closed, backend, torch.float32)
    assert torch.equal(fused["y"], closed.shortcut.relu())
    assert not fused["dx"].any()
    assert torch.equal(fused["dshortcut"], closed.dy * (closed.shortcut > 0))


def test_an_output_of_zeros_has_no_gradient(case: Callable, backend: str):
    dead = case((2, 8, 4, 5))
    dead.shortcut -= 100
    fused = assert_as_exact_as_eager(dead, backend, torch.float32)
    for name, result in fused.items():
        if name == "y" or name.startswith("d"):
            assert not result.any(), name
    assert fused["bn.num_batches_tracked"] == 1


def test_not_a_number_is_not_hidden(case: Callable, backend: str):
    sick = case((2, 8, 4, 5), training=False, se=None)
    sick.x[0, 3, 1, 1] = torch.nan
    y = sick.run(backend, torch.float32)["y"]
    assert y.isnan().sum() == 1
    assert y[0, 3, 1, 1].isnan()


def test_not_a_number_reaches_the_running_statistics(case: Callable, backend: str):
    sick = case((2, 8, 4, 5))
    sick.x[0, 3, 1, 1] = torch.nan
    fused, eager = sick.run(backend, torch.float32), sick.run("eager", torch.float32)
    for name in ("bn.running_mean", "bn.running_var"):
        assert fused[name].isnan().nonzero().tolist() == eager[name].isnan().nonzero().tolist() == [[3]]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_slice_of_the_channels_keeps_the_layout(case: Callable, backend: str, layout: torch.memory_format):
    sliced = case((2, 8, 6, 5), layout=layout)
    device, kernels = where(backend)
    wide = torch.cat([sliced.x, sliced.x], 1).to(device, memory_format=layout)
    x = wide[:, :8]
    assert not x.is_contiguous(memory_format=layout)
    tail = sliced.tail.to(device)
    y = residual_tail(x, sliced.shortcut.to(device), tail.bn, tail.se, kernels)
    assert y.is_contiguous(memory_format=layout)
    assert y.stride() == tail.bn(x).stride()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_have_the_strides_of_their_parameters(
    case: Callable, backend: str, layout: torch.memory_format
):
    """The data-parallel wrapper copies every gradient that has not, and says so."""
    device, kernels = where(backend)
    made = case((2, 8, 4, 5))
    tail = made.tail.to(device, memory_format=layout)
    y = residual_tail(made.x.to(device), made.shortcut.to(device), tail.bn, tail.se, kernels)
    parameters = list(tail.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(y.sum(), parameters), strict=True):
        assert gradient.stride() == parameter.stride()


def test_maps_need_not_be_dense(case: Callable, backend: str):
    dense = case((2, 8, 6, 5))
    expected = dense.run(backend, torch.float32)
    dense.x = dense.x.transpose(2, 3).contiguous().transpose(2, 3)
    dense.dy = dense.dy[:, :, :1, :1].expand(2, 8, 6, 5)
    dense.shortcut = dense.shortcut.contiguous()
    strided = dense.run(backend, torch.float32)
    torch.testing.assert_close(strided["y"], expected["y"])
    assert_as_exact_as_eager(dense, backend, torch.float32)


def test_maps_of_two_types_are_promoted_as_an_addition_does(case: Callable, backend: str):
    mixed = case((2, 8, 4, 5))
    fused = mixed.run(backend, torch.float32)
    shortcut = mixed.shortcut
    mixed.shortcut = None
    device, kernels = where(backend)
    tail = mixed.tail.to(device)
    y = residual_tail(mixed.x.to(device), shortcut.to(device, torch.bfloat16), tail.bn, tail.se, kernels)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.cpu(), fused["y"], rtol=0, atol=0.02)


def test_autocast_changes_nothing(case: Callable, backend: str):
    plain = case((2, 8, 4, 5))
    with_autocast = plain.run(backend, torch.bfloat16)
    without = plain.run(backend, torch.bfloat16, autocast=False)
    for name, result in without.items():
        assert torch.equal(result, with_autocast[name]), name


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_running_statistics_are_torchs(case: Callable, backend: str, momentum: float | None):
    device, kernels = where(backend)
    tail = case((3, 6, 4, 5)).tail.to(device)
    tail.bn.momentum = momentum
    expected = torch.nn.BatchNorm2d(6, momentum=momentum, device=device)
    expected.load_state_dict(tail.bn.state_dict())
    for _ in range(3):
        x = torch.randn(3, 6, 4, 5, device=device) * 2 + 1
        residual_tail(x, x, tail.bn, tail.se, kernels)
        expected(x)
    for ours, theirs in zip(tail.bn.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["moments", "merge", "gradient_sums", "grad_input"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("channels", "pixels"), [(1, 1), (3, 49), (256, 3136), (2048, 49), (130, 513)])
def test_programs_cover_every_value_once(name: str, channels_last: bool, channels: int, pixels: int):
    cut = tiling.cut(name, channels, pixels, channels_last)
    assert (cut.slices - 1) * cut.pixels_per_slice < pixels <= cut.slices * cut.pixels_per_slice
    assert (cut.channel_blocks - 1) * cut.channels < channels <= cut.channel_blocks * cut.channels
    for power in (cut.pixels, cut.channels):
        assert power & (power - 1) == 0


@pytest.mark.parametrize("name", ["moments", "gradient_sums"])
def test_programs_of_a_stage_have_about_the_same_to_do(name: str):
    """A last slice of a few pixels lets all others wait for nothing: 20 % of stage 3."""
    for channels, pixels in ((256, 56**2), (512, 28**2), (1024, 14**2), (2048, 7**2)):
        cut = tiling.cut(name, channels, pixels, channels_last=True)
        last = pixels - (cut.slices - 1) * cut.pixels_per_slice
        assert last >= 0.85 * cut.pixels_per_slice


def test_every_multiprocessor_of_a_large_gpu_has_a_program_that_sums_a_table():
    for channels in (256, 512, 1024, 2048):
        rows, columns = tiling.reduction(channels)
        assert channels // columns >= 128
        assert rows * columns == 1024
