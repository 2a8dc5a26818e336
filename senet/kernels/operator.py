"""``senet::fused_tail`` and its backward as operators: fake, autograd, autocast and FLOP rules, SyncBN.

Both run in two passes over the map with everything between them on (N, C) or (C,) tensors; the passes are a
backend's, "aten" or "triton". Notation, with xhat = (x - mean) * inv, u = weight * xhat + bias:

    z = mean_hw(u)    s = sigmoid(W2 relu(W1 z + b1) + b2)    y = relu(s * u + shortcut)

    g = dy * (y > 0), G = sum_hw g, Ghat = sum_hw g * xhat
    dlogits = (weight * Ghat + bias * G) * s * (1 - s), from which dz and the gradients of W1, b1, W2, b2
    dbias = sum_n (s * G + dz), dweight = sum_n (s * Ghat + dz * mean_hw(xhat)), dshortcut = g
    dx = weight * inv * (s * g + dz / (H W) - dbias / M - xhat * dweight / M), M = N H W

u is never stored, and the mask is read off y, which the next convolution keeps anyway.
"""

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from senet.errors import UserError
from senet.kernels import aten_passes, sync
from senet.kernels.gate import GateParameters, excite, excite_backward
from senet.kernels.passes import Norm, accumulation_dtype, as_gradient_of, memory_format

FORWARD_PASSES: Counter[str] = Counter()
"""How often the operator ran in this process, by backend, from compiled code too: the truth behind a plan."""
Tensors8 = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _passes(backend: str) -> ModuleType:
    # Triton is there on some platforms only, so its module is imported when it is first asked for.
    return aten_passes if backend == "aten" else import_module("senet.kernels.triton_passes")


@torch.library.custom_op("senet::fused_tail", mutates_args=())
def fused_tail(
    x: Tensor,
    shortcut: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    w1: Tensor | None,
    b1: Tensor | None,
    w2: Tensor | None,
    b2: Tensor | None,
    eps: float,
    group: str,
    backend: str,
) -> Tensors8:
    """Return y, and what the backward pass and the running statistics need.

    Args:
        x: (N, C, H, W), floating point, not empty.
        shortcut: (N, C, H, W) of x's dtype, or None.
        weight: BN's, (C,); so is ``bias``.
        bias: see ``weight``.
        running_mean: the mean to use (eval mode), or None for the batch's; so is ``running_var``.
        running_var: see ``running_mean``.
        w1: excitation weight (C/r, C) or (C/r, C, 1, 1), or None for no SE; so are ``b1``, ``w2``, ``b2``.
        b1: (C/r,), or None for no bias.
        w2: (C, C/r) or (C, C/r, 1, 1).
        b2: (C,), or None for no bias.
        eps: BN's.
        group: name of the process group over which batch statistics are taken; "" for this process alone.
        backend: "aten" or "triton".

    Returns:
        y like x; mean, inv and unbiased variance (the last empty in eval mode), (C,); mean_hw(xhat), z and s,
        (N, C), and the hidden layer (N, C/r), all four empty without SE. Only y is differentiable.
    """
    FORWARD_PASSES[backend] += 1
    passes, layout, dtype = _passes(backend), memory_format(x), accumulation_dtype(x)
    x = x.contiguous(memory_format=layout)
    shortcut = None if shortcut is None else shortcut.contiguous(memory_format=layout)
    use_batch = running_mean is None or running_var is None
    moments = passes.moments(x) if use_batch or w1 is not None else None
    if running_mean is None or running_var is None:
        assert moments is not None
        mean, inv, unbiased = sync.batch_statistics(passes, moments, eps, group)
    else:
        mean, inv = running_mean.to(dtype, copy=True), torch.rsqrt(running_var.to(dtype) + eps)
        unbiased = inv.new_empty(0)
    norm = Norm(mean, inv, weight.to(dtype), bias.to(dtype))
    if moments is None or w1 is None or w2 is None:
        y, _ = passes.merge(x, shortcut, norm, None)
        normalised, z, gate, hidden = (inv.new_empty(0) for _ in range(4))
        return y, mean, inv, unbiased, normalised, z, gate, hidden
    normalised, z = passes.squeeze(moments, norm)
    hidden, logits = excite(z, GateParameters(w1, b1, w2, b2))
    y, opened = passes.merge(x, shortcut, norm, logits)
    assert opened is not None
    return y, mean, inv, unbiased, normalised, z, opened, hidden


@fused_tail.register_fake
def _(
    x: Tensor, _s: Any, _w: Any, _b: Any, running_mean: Tensor | None, _v: Any, w1: Tensor | None, *_: Any
) -> Tensors8:
    n, c = x.shape[:2]
    hidden = 0 if w1 is None else w1.shape[0]
    shapes: list[Sequence[int]] = [(c,), (c,), (c,) if running_mean is None else (0,)]
    shapes += [(n, c), (n, c), (n, c), (n, hidden)] if w1 is not None else [(0,)] * 4
    y = torch.empty_like(x, memory_format=memory_format(x))
    dtype = accumulation_dtype(x)
    a, b, d, e, f, g, h = (x.new_empty(shape, dtype=dtype) for shape in shapes)
    return y, a, b, d, e, f, g, h


@torch.library.custom_op("senet::fused_tail_backward", mutates_args=())
def fused_tail_backward(
    dy: Tensor,
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    w1: Tensor | None,
    w2: Tensor | None,
    mean: Tensor,
    inv: Tensor,
    normalised: Tensor,
    z: Tensor,
    gate: Tensor,
    hidden: Tensor,
    batch_statistics: bool,
    group: str,
    backend: str,
    dy2: Tensor | None = None,
) -> Tensors8:
    """Return dx, dshortcut (like x) and the gradients of weight, bias, w1, b1, w2, b2 in their own dtypes.

    Without SE the last four are empty. Arguments as in ``fused_tail``, its results, and whether the
    statistics were the batch's. The gradient of y is ``dy``, or ``dy + dy2`` (``senet.kernels.compiler``).
    """
    passes, layout = _passes(backend), memory_format(x)
    dy, x, y = (m.contiguous(memory_format=layout) for m in (dy, x, y))
    dy2 = None if dy2 is None else dy2.contiguous(memory_format=layout)
    norm = Norm(mean, inv, weight.to(mean.dtype), bias.to(mean.dtype))
    g, plain, weighted = passes.gradient_sums(dy, dy2, y, x, norm)
    gate_gradients = [weight.new_empty(0) for _ in range(4)]
    if w1 is None or w2 is None:
        s = dz = None
        dweight, dbias, _, _ = passes.parameter_gradients(plain, weighted, None, None, None)
    else:
        plain, weighted, dlogits = passes.gate_gradient(plain, weighted, gate, norm)
        of_gate = excite_backward(dlogits, z, hidden, GateParameters(w1, None, w2, None))
        dweight, dbias, db1, db2 = passes.parameter_gradients(plain, weighted, gate, normalised, of_gate)
        s, dz = gate, of_gate.z
        gate_gradients = [as_gradient_of(w1, of_gate.weight1), db1.to(w1.dtype)]
        gate_gradients += [as_gradient_of(w2, of_gate.weight2), db2.to(w2.dtype)]
    count = x.numel() // x.shape[1]
    through, share = (dweight, dbias), 1 / count if batch_statistics else 0.0
    if batch_statistics and group:
        through, share = sync.mean_gradients(dweight, dbias, count, group), 1.0
    dx = passes.grad_input(g, x, norm, s, dz, through, share)
    dw1, db1, dw2, db2 = gate_gradients
    return dx, g, dweight.to(weight.dtype), dbias.to(bias.dtype), dw1, db1, dw2, db2


@fused_tail_backward.register_fake
def _(
    _dy: Any, x: Tensor, _y: Any, weight: Tensor, bias: Tensor, w1: Tensor | None, w2: Tensor | None, *_: Any
) -> Tensors8:
    dx, g = (torch.empty_like(x, memory_format=memory_format(x)) for _ in range(2))
    of_gate = [weight.new_empty(0) for _ in range(4)]
    if w1 is not None and w2 is not None:
        of_gate = [t for w in (w1, w2) for t in (torch.empty_like(w), w.new_empty(w.shape[:1]))]
    dw1, db1, dw2, db2 = of_gate
    return dx, g, torch.empty_like(weight), torch.empty_like(bias), dw1, db1, dw2, db2


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensors8) -> None:
    x, shortcut, weight, bias, running_mean, _, w1, b1, w2, b2, _, group, backend = inputs
    y, mean, inv, _, normalised, z, gate, hidden = output
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, y, weight, bias, w1, w2, mean, inv, normalised, z, gate, hidden)
    ctx.has = (shortcut is not None, w1 is not None, b1 is not None, b2 is not None)
    ctx.arguments = (running_mean is None, group, backend)


def _differentiate(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 13
    has_shortcut, has_gate, has_b1, has_b2 = ctx.has
    dx, g, dweight, dbias, dw1, db1, dw2, db2 = fused_tail_backward(dy, *ctx.saved_tensors, *ctx.arguments)
    gate_gradients = (
        dw1 if has_gate else None,
        db1 if has_b1 else None,
        dw2 if has_gate else None,
        db2 if has_b2 else None,
    )
    return dx, g if has_shortcut else None, dweight, dbias, None, None, *gate_gradients, None, None, None


def _refuse_second_derivative(*_: Any) -> None:
    raise UserError("the fused residual tail has no second derivative: use kernels=eager")


fused_tail.register_autograd(_differentiate, setup_context=_save)
fused_tail_backward.register_autograd(_refuse_second_derivative)


def _without_autocast(key: str, operator: Any) -> None:
    """Register that autocast leaves the operator's arguments alone and does not reach inside.

    The maps come in the type the convolutions gave them; statistics, gate and parameters stay in float32.
    """
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)
    keys |= torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)

    def call(*arguments: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator(*arguments)

    _library.impl(operator._opoverload, call, key)  # type: ignore[no-untyped-call]


_library = torch.library.Library("senet", "FRAGMENT")  # type: ignore[no-untyped-call]
for _key in ("AutocastCPU", "AutocastCUDA"):
    for _operator in (fused_tail, fused_tail_backward):
        _without_autocast(_key, _operator)


@register_flop_formula(torch.ops.senet.fused_tail)
def _flops(x_shape: Sequence[int], *shapes: Any, out_shape: Any = None, **_: Any) -> int:
    w1_shape = shapes[5]
    return 0 if w1_shape is None else 4 * x_shape[0] * w1_shape[0] * w1_shape[1]


@register_flop_formula(torch.ops.senet.fused_tail_backward)
def _flops_backward(dy_shape: Sequence[int], *shapes: Any, out_shape: Any = None, **_: Any) -> int:
    w1_shape = shapes[4]
    return 0 if w1_shape is None else 8 * dy_shape[0] * w1_shape[0] * w1_shape[1]
