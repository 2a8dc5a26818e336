"""The passes of the fused tail in ATen, for a CPU, built from its batch-norm kernels; this says what each does.

Called on one image at a time, those kernels return and apply one number per (n, c), in a single pass and with
the right accumulation type. Broadcasting (N, C) factors over the batch instead costs a pass and a temporary
map per operation. A contiguous (NCHW) batch is one image of N*C channels and needs one call.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from senet.kernels.gate import GateGradients
from senet.kernels.passes import Moments, Norm, accumulation_dtype, is_channels_last


def _images(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield views of one image each if the maps are channels_last, else one view with N*C channels."""
    n, c, h, w = maps[0].shape
    if is_channels_last(maps[0]):
        yield from zip(*(torch.split(m, 1) for m in maps), strict=True)
    else:
        yield tuple(m.view(1, n * c, h, w) for m in maps)


def _rows(factors: Tensor, maps: Tensor) -> Iterator[Tensor]:
    """Yield the rows of ``factors`` (N, C) that belong to what ``_images`` yields."""
    yield from factors.unbind() if is_channels_last(maps) else (factors.flatten(),)


def normalise(x: Tensor, mean: Tensor, slope: Tensor, offset: Tensor, out: Tensor) -> None:
    """Write ``slope * (x - mean) + offset`` to ``out``; (1, C, H, W) maps, (C,) vectors."""
    nothing = slope.new_empty(0)
    torch.ops.aten.native_batch_norm.out(
        x,
        slope,
        offset,
        mean,
        torch.ones_like(mean),
        False,
        0.0,
        0.0,
        out=out,
        save_mean=nothing,
        save_invstd=torch.empty_like(nothing),
    )


def moments(x: Tensor) -> Moments:
    """Return mean and sum of squared deviations of every slice and channel."""
    n, c, h, w = x.shape
    # The kernel returns moments in the type of the running statistics it is given, and updates those.
    unused = x.new_zeros(c if is_channels_last(x) else n * c, dtype=accumulation_dtype(x))
    pairs = [torch.batch_norm_update_stats(image, unused, unused, 0.0) for (image,) in _images(x)]
    mean = torch.stack([mean for mean, _ in pairs]).view(n, 1, c)
    squares = torch.stack([variance for _, variance in pairs]).view(n, 1, c).mul_(h * w)
    return Moments(mean, squares, h * w, h * w)


def combine(m: Moments, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, biased variance, rsqrt(variance + eps) and unbiased variance (C,) over all images."""
    # Sums of squares around the images' means are combined as in Chan, Golub and LeVeque (1979).
    means = m.mean.flatten(0, 1)
    mean = means.mean(0)
    count = len(means) * m.pixels
    squares = m.squares.flatten(0, 1).sum(0) + m.pixels * (means - mean).square().sum(0)
    var = squares / count
    return mean, var, torch.rsqrt(var + eps), squares / (count - 1) if count > 1 else squares


def squeeze(m: Moments, norm: Norm) -> tuple[Tensor, Tensor]:
    """Return the mean over (h, w) of the normalised map and of BN's output."""
    normalised = (m.mean.flatten(0, 1) - norm.mean) * norm.inv
    return normalised, torch.addcmul(norm.bias, normalised, norm.weight)


def merge(
    x: Tensor, shortcut: Tensor | None, norm: Norm, logits: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return ``relu(gate * norm(x) + shortcut)`` and ``gate = sigmoid(logits)``; no logits, no gate."""
    y, slope = torch.empty_like(x), norm.weight * norm.inv
    if logits is None:
        normalise(x, norm.mean, slope, norm.bias, y)
        return (y.relu_() if shortcut is None else y.add_(shortcut).relu_()), None
    gate = logits.sigmoid_()
    rows = (_rows(f, x) for f in (norm.mean.expand(len(x), -1), gate * slope, gate * norm.bias))
    for images, m, a, b in zip(_images(x, y, *(() if shortcut is None else (shortcut,))), *rows, strict=True):
        normalise(images[0], m, a, b, images[1])
        if shortcut is not None:
            images[1].add_(images[2])
        images[1].relu_()
    return y, gate


def gradient_sums(
    dy: Tensor, dy2: Tensor | None, y: Tensor, x: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Return g = (dy + dy2) * (y > 0) and its sums over a slice with 1 and with the normalised x, (N, S, C)."""
    n, c = x.shape[:2]
    dy = dy if dy2 is None else dy + dy2
    g = torch.empty_like(x)
    sums = []
    rows = (_rows(f.expand(n, -1), x) for f in (norm.mean, norm.inv))
    for (dy_n, y_n, x_n, g_n), mean_n, inv_n in zip(_images(dy, y, x, g), *rows, strict=True):
        torch.ops.aten.threshold_backward.grad_input(dy_n, y_n, 0, grad_input=g_n)
        sums.append(channel_sums(g_n, x_n, mean_n, inv_n))
    plain = torch.stack([s for s, _ in sums]).view(n, 1, c)
    weighted = torch.stack([s for _, s in sums]).view(n, 1, c)
    return g, plain, weighted


def channel_sums(g: Tensor, x: Tensor, mean: Tensor, inv: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums of g and of g * (x - mean) * inv: the parameter gradients of a BN layer."""
    ones = torch.ones_like(mean)
    _, weighted, plain = torch.ops.aten.native_batch_norm_backward(
        g, x, ones, None, None, mean, inv, True, 0.0, [False, True, True]
    )
    return plain, weighted


def gate_gradient(plain: Tensor, weighted: Tensor, gate: Tensor, norm: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Return both sums over all slices, and the gradient of the gate's logits."""
    plain, weighted = plain.sum(1), weighted.sum(1)
    dgate = norm.weight * weighted + norm.bias * plain
    return plain, weighted, dgate * gate * (1 - gate)


def parameter_gradients(
    plain: Tensor,
    weighted: Tensor,
    gate: Tensor | None,
    normalised: Tensor | None,
    gradients: GateGradients | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of BN's weight and bias (C,), and of b1 (C/r,) and b2 (C,), empty without SE.

    ``plain`` and ``weighted`` are those of ``gate_gradient``, without SE those of ``gradient_sums``.
    """
    if gate is None or normalised is None or gradients is None:
        nothing = plain.new_empty(0)
        return weighted.flatten(0, 1).sum(0), plain.flatten(0, 1).sum(0), nothing, nothing.clone()
    dweight = (gate * weighted + gradients.z * normalised).sum(0)
    dbias = (gate * plain + gradients.z).sum(0)
    return dweight, dbias, gradients.hidden.sum(0), gradients.logits.sum(0)


def grad_input(
    g: Tensor,
    x: Tensor,
    norm: Norm,
    gate: Tensor | None,
    dz: Tensor | None,
    through: tuple[Tensor, Tensor],
    share: float,
) -> Tensor:
    """Return weight * inv * (gate * g + dz / (H W) - share * (dbias + (x - mean) * inv * dweight)).

    ``through`` is (dweight, dbias); ``share`` is 1 / M where the statistics depend on x, and 0 where they are
    constants.
    """
    n, _, h, w = x.shape
    dweight, dbias = through
    dx = torch.empty_like(x)
    scale = norm.weight * norm.inv
    offset = scale * dbias * -share
    offset = offset.expand(n, -1) if dz is None else offset + dz * scale / (h * w)
    slope = scale * norm.inv * dweight * -share
    factor = (scale.expand(n, -1) if gate is None else gate * scale).to(x.dtype)
    rows = (_rows(f, x) for f in (norm.mean.expand(n, -1), slope.expand(n, -1), offset, factor))
    for (g_n, x_n, dx_n), mean_n, slope_n, offset_n, factor_n in zip(_images(g, x, dx), *rows, strict=True):
        normalise(x_n, mean_n, slope_n, offset_n, dx_n)
        dx_n.addcmul_(g_n, factor_n.view(1, -1, 1, 1))
    return dx
