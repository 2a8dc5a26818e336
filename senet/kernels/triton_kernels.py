"""The Triton kernels of the fused tail: four passes over maps, four small ones over (N, C) between them.

All arithmetic is float32. A map is dense, its pixels (h, w) count as one axis, and CHANNELS_LAST says which of
the two axes is contiguous. In the map kernels, program (i, j) owns slice ``i % slices`` of image ``i // slices``
and the j-th block of channels. Arguments named as in ``senet.kernels.operator``; None is left out.
"""

# Triton's own dialect: constants of the compilation are in capitals, and nothing is annotated with a Python type.
# ruff: noqa: N803
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _offsets(pixel, c, channels, pixels, CHANNELS_LAST: tl.constexpr):
    if CHANNELS_LAST:
        return pixel[:, None] * channels + c[None, :]
    return c[None, :] * pixels + pixel[:, None]


@triton.jit
def _place(slices, pixels_per_slice, channels, pixels, CHANNELS: tl.constexpr):
    """Return image, offset of its first value, first and last + 1 pixel, and channels of this program."""
    n = tl.program_id(0) // slices
    first = (tl.program_id(0) % slices) * pixels_per_slice
    last = tl.minimum(first + pixels_per_slice, pixels)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    return n, n.to(tl.int64) * channels * pixels, first, last, c


@triton.jit
def moments_kernel(
    x, mean_out, squares_out, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write mean and sum of squared deviations of every slice and channel, (N * slices, C)."""
    _, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    x += start
    count = (last - first).to(tl.float32)
    # Deviations are taken from the mean of the first tile: it lies within the data, so no digits cancel.
    pixel = first + tl.arange(0, PIXELS)
    inside = (pixel < last)[:, None] & (c < channels)[None, :]
    tile = tl.load(x + _offsets(pixel, c, channels, pixels, CHANNELS_LAST), inside, 0.0).to(tl.float32)
    shift = tl.sum(tile, 0) / tl.minimum(count, PIXELS)
    total = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    squares = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for begin in range(first, last, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        inside = (pixel < last)[:, None] & (c < channels)[None, :]
        tile = tl.load(x + _offsets(pixel, c, channels, pixels, CHANNELS_LAST), inside, 0.0).to(tl.float32)
        deviation = tl.where(inside, tile - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
    deviation_sum = tl.sum(total, 0)
    mean = deviation_sum / count
    out = tl.program_id(0) * channels + c
    tl.store(mean_out + out, shift + mean, c < channels)
    tl.store(squares_out + out, tl.sum(squares, 0) - deviation_sum * mean, c < channels)


@triton.jit
def combine_kernel(
    mean_in, squares_in, mean_out, var_out, inv_out, unbiased_out, rows, channels, pixels, slices,
    pixels_per_slice, count, eps, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Combine the moments of all slices (rows, C) to those of the batch (C,); count = N H W."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    shift = tl.load(mean_in + c, c < channels, 0.0)
    total = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    squares = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    for begin in range(0, rows, ROWS):
        row = begin + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (c < channels)[None, :]
        weight = tl.minimum(pixels_per_slice, pixels - (row % slices) * pixels_per_slice).to(tl.float32)
        at = row[:, None] * channels + c[None, :]
        deviation = tl.where(inside, tl.load(mean_in + at, inside, 0.0) - shift[None, :], 0.0)
        total += weight[:, None] * deviation
        squares += tl.load(squares_in + at, inside, 0.0) + weight[:, None] * deviation * deviation
    mean = tl.sum(total, 0) / count
    square_sum = tl.maximum(tl.sum(squares, 0) - count * mean * mean, 0.0)
    var = square_sum / count
    tl.store(mean_out + c, shift + mean, c < channels)
    tl.store(var_out + c, var, c < channels)
    tl.store(inv_out + c, 1 / tl.sqrt(var + eps), c < channels)
    tl.store(unbiased_out + c, square_sum / tl.maximum(count - 1, 1), c < channels)


@triton.jit
def squeeze_kernel(
    mean_in, mean, inv, weight, bias, normalised_out, z_out, channels, pixels, slices, pixels_per_slice,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write mean_hw(xhat) and z = weight * mean_hw(xhat) + bias, (N, C); program (n, block of channels)."""
    n = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    total = tl.full((CHANNELS,), 0.0, tl.float32)
    for s in range(slices):
        count = tl.minimum(pixels_per_slice, pixels - s * pixels_per_slice)
        total += count * (tl.load(mean_in + (n * slices + s) * channels + c, c < channels, 0.0) - centre)
    normalised = total / pixels * tl.load(inv + c, c < channels, 0.0)
    z = tl.load(weight + c, c < channels, 0.0) * normalised + tl.load(bias + c, c < channels, 0.0)
    tl.store(normalised_out + n * channels + c, normalised, c < channels)
    tl.store(z_out + n * channels + c, z, c < channels)


@triton.jit
def merge_kernel(
    x, shortcut, mean, inv, weight, bias, gate, y, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write y = relu(gate * (weight * (x - mean) * inv + bias) + shortcut)."""
    n, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    slope = tl.load(weight + c, c < channels, 0.0) * tl.load(inv + c, c < channels, 0.0)
    offset = tl.load(bias + c, c < channels, 0.0)
    if gate is not None:
        s = tl.load(gate + n * channels + c, c < channels, 0.0)
        slope *= s
        offset *= s
    for begin in range(first, last, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        inside = (pixel < last)[:, None] & (c < channels)[None, :]
        at = start + _offsets(pixel, c, channels, pixels, CHANNELS_LAST)
        value = tl.load(x + at, inside, 0.0).to(tl.float32) - centre[None, :]
        value = value * slope[None, :] + offset[None, :]
        if shortcut is not None:
            value += tl.load(shortcut + at, inside, 0.0).to(tl.float32)
        # Written so that NaN stays NaN, as in torch's relu.
        tl.store(y + at, tl.where(value < 0, 0.0, value).to(y.dtype.element_ty), inside)


@triton.jit
def gradient_sums_kernel(
    dy, y, x, mean, inv, g, plain_out, weighted_out, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write g = dy * (y > 0) and, per slice and channel, its sums with 1 and with xhat, (N * slices, C)."""
    _, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    plain = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    weighted = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for begin in range(first, last, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        inside = (pixel < last)[:, None] & (c < channels)[None, :]
        at = start + _offsets(pixel, c, channels, pixels, CHANNELS_LAST)
        gradient = tl.load(dy + at, inside, 0.0)
        gradient = tl.where(tl.load(y + at, inside, 0.0) <= 0, 0.0, gradient)
        tl.store(g + at, gradient, inside)
        gradient = gradient.to(tl.float32)
        plain += gradient
        weighted += gradient * (tl.load(x + at, inside, 0.0).to(tl.float32) - centre[None, :])
    out = tl.program_id(0) * channels + c
    scale = tl.load(inv + c, c < channels, 0.0)
    tl.store(plain_out + out, tl.sum(plain, 0), c < channels)
    tl.store(weighted_out + out, tl.sum(weighted, 0) * scale, c < channels)


@triton.jit
def gate_gradient_kernel(
    plain_in, weighted_in, gate, weight, bias, plain_out, weighted_out, dlogits_out, channels, slices,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write both sums over an image's slices and the gradient of the gate's logits, (N, C)."""
    n = tl.program_id(0)
    c = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    plain = tl.full((CHANNELS,), 0.0, tl.float32)
    weighted = tl.full((CHANNELS,), 0.0, tl.float32)
    for s in range(slices):
        at = (n * slices + s) * channels + c
        plain += tl.load(plain_in + at, c < channels, 0.0)
        weighted += tl.load(weighted_in + at, c < channels, 0.0)
    at = n * channels + c
    s_ = tl.load(gate + at, c < channels, 0.0)
    dgate = tl.load(weight + c, c < channels, 0.0) * weighted + tl.load(bias + c, c < channels, 0.0) * plain
    tl.store(plain_out + at, plain, c < channels)
    tl.store(weighted_out + at, weighted, c < channels)
    tl.store(dlogits_out + at, dgate * s_ * (1 - s_), c < channels)


@triton.jit
def parameter_gradients_kernel(
    plain, weighted, gate, dz, normalised, dweight_out, dbias_out, rows, channels,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write dbias = sum(gate * plain + dz) and dweight = sum(gate * weighted + dz * normalised), (C,)."""
    c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    dbias = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    dweight = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    for begin in range(0, rows, ROWS):
        row = begin + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (c < channels)[None, :]
        at = row[:, None] * channels + c[None, :]
        g = tl.load(plain + at, inside, 0.0)
        ghat = tl.load(weighted + at, inside, 0.0)
        if gate is not None:
            s = tl.load(gate + at, inside, 0.0)
            dz_ = tl.load(dz + at, inside, 0.0)
            g = s * g + dz_
            ghat = s * ghat + dz_ * tl.load(normalised + at, inside, 0.0)
        dbias += g
        dweight += ghat
    tl.store(dbias_out + c, tl.sum(dbias, 0), c < channels)
    tl.store(dweight_out + c, tl.sum(dweight, 0), c < channels)


@triton.jit
def grad_input_kernel(
    g, x, mean, inv, weight, gate, dz, dweight, dbias, dx, share, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write dx = weight * inv * (gate * g + dz / pixels - share * (dbias + xhat * dweight))."""
    n, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    scale = tl.load(inv + c, c < channels, 0.0)
    slope = -share * scale * tl.load(dweight + c, c < channels, 0.0)
    offset = -share * tl.load(dbias + c, c < channels, 0.0)
    scale *= tl.load(weight + c, c < channels, 0.0)
    factor = scale
    if gate is not None:
        factor *= tl.load(gate + n * channels + c, c < channels, 0.0)
        offset += tl.load(dz + n * channels + c, c < channels, 0.0) / pixels
    slope *= scale
    offset *= scale
    for begin in range(first, last, PIXELS):
        pixel = begin + tl.arange(0, PIXELS)
        inside = (pixel < last)[:, None] & (c < channels)[None, :]
        at = start + _offsets(pixel, c, channels, pixels, CHANNELS_LAST)
        value = tl.load(g + at, inside, 0.0).to(tl.float32) * factor[None, :] + offset[None, :]
        value += (tl.load(x + at, inside, 0.0).to(tl.float32) - centre[None, :]) * slope[None, :]
        tl.store(dx + at, value.to(dx.dtype.element_ty), inside)
