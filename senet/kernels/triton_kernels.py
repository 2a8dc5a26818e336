"""The Triton kernels of the fused tail: four passes over maps, five small ones over (N, C) between them.

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
def _map_tile(
    begin, last, c, channels, pixels, CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr
):  # fmt: skip
    """Return where the values of PIXELS pixels and the channels c of an image lie, and which of them there are."""
    pixel = begin + tl.arange(0, PIXELS)
    inside = (pixel < last)[:, None] & (c < channels)[None, :]
    if CHANNELS_LAST:
        return pixel[:, None] * channels + c[None, :], inside
    return c[None, :] * pixels + pixel[:, None], inside


@triton.jit
def _table_tile(begin, rows, c, channels, ROWS: tl.constexpr):
    """Return where ROWS rows of the columns c of a (rows, channels) table lie, and which of them there are."""
    row = begin + tl.arange(0, ROWS)
    return row[:, None] * channels + c[None, :], (row < rows)[:, None] & (c < channels)[None, :]


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
    at, inside = _map_tile(first, last, c, channels, pixels, CHANNELS_LAST, PIXELS)
    tile = tl.load(x + at, inside, 0.0).to(tl.float32)
    shift = tl.sum(tile, 0) / tl.minimum(count, PIXELS)
    total = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    squares = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for begin in range(first + PIXELS, last + PIXELS, PIXELS):
        # The next tile is on its way while this one is summed.
        at, inside_next = _map_tile(begin, last, c, channels, pixels, CHANNELS_LAST, PIXELS)
        following = tl.load(x + at, inside_next, 0.0).to(tl.float32)
        deviation = tl.where(inside, tile - shift[None, :], 0.0)
        total += deviation
        squares += deviation * deviation
        tile, inside = following, inside_next
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
        at, inside = _table_tile(begin, rows, c, channels, ROWS)
        place = (begin + tl.arange(0, ROWS)) % slices
        weight = tl.minimum(pixels_per_slice, pixels - place * pixels_per_slice).to(tl.float32)
        deviation = tl.where(inside, tl.load(mean_in + at, inside, 0.0) - shift[None, :], 0.0)
        total += weight[:, None] * deviation
        squares += tl.load(squares_in + at, inside, 0.0) + weight[:, None] * deviation * deviation
    mean = tl.sum(total, 0) / count
    square_sum = tl.sum(squares, 0) - count * mean * mean
    square_sum = tl.where(square_sum < 0, 0.0, square_sum)  # NaN stays NaN
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
    x, shortcut, mean, inv, weight, bias, gate, y, gate_out, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr, SIGMOID: tl.constexpr,
):  # fmt: skip
    """Write y = relu(s * (weight * (x - mean) * inv + bias) + shortcut); s is gate, or its sigmoid and written."""
    n, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    slope = tl.load(weight + c, c < channels, 0.0) * tl.load(inv + c, c < channels, 0.0)
    offset = tl.load(bias + c, c < channels, 0.0)
    if gate is not None:
        s = tl.load(gate + n * channels + c, c < channels, 0.0)
        if SIGMOID:
            small = tl.exp(-tl.abs(s))  # never overflows
            s = tl.where(s < 0, small, 1.0) / (1 + small)
            if first == 0:
                tl.store(gate_out + n * channels + c, s, c < channels)
        slope *= s
        offset *= s
    for begin in range(first, last, PIXELS):
        at, inside = _map_tile(begin, last, c, channels, pixels, CHANNELS_LAST, PIXELS)
        at += start
        value = tl.load(x + at, inside, 0.0).to(tl.float32) - centre[None, :]
        value = value * slope[None, :] + offset[None, :]
        if shortcut is not None:
            value += tl.load(shortcut + at, inside, 0.0).to(tl.float32)
        # Written so that NaN stays NaN, as in torch's relu.
        tl.store(y + at, tl.where(value < 0, 0.0, value).to(y.dtype.element_ty), inside)


@triton.jit
def gradient_sums_kernel(
    dy, dy2, y, x, mean, inv, g, plain_out, weighted_out, channels, pixels, slices, pixels_per_slice,
    CHANNELS_LAST: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write g = (dy + dy2) * (y > 0) and, per slice and channel, its sums with 1 and with xhat, (N * slices, C)."""
    _, start, first, last, c = _place(slices, pixels_per_slice, channels, pixels, CHANNELS)
    centre = tl.load(mean + c, c < channels, 0.0)
    plain = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    weighted = tl.full((PIXELS, CHANNELS), 0.0, tl.float32)
    for begin in range(first, last, PIXELS):
        at, inside = _map_tile(begin, last, c, channels, pixels, CHANNELS_LAST, PIXELS)
        at += start
        gradient = tl.load(dy + at, inside, 0.0).to(tl.float32)
        if dy2 is not None:
            gradient += tl.load(dy2 + at, inside, 0.0).to(tl.float32)
        gradient = tl.where(tl.load(y + at, inside, 0.0) <= 0, 0.0, gradient)
        tl.store(g + at, gradient.to(g.dtype.element_ty), inside)
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
def _column_sums(table, c, rows, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the sums of the columns c of a (rows, channels) table."""
    total = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
    for begin in range(0, rows, ROWS):
        at, inside = _table_tile(begin, rows, c, channels, ROWS)
        total += tl.load(table + at, inside, 0.0)
    return tl.sum(total, 0)


@triton.jit
def parameter_gradients_kernel(
    plain, weighted, gate, normalised, dz, dlogits, dhidden, dweight_out, dbias_out, dbias1_out, dbias2_out,
    rows, channels, hidden_channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write dbias = sum(gate * plain + dz), dweight = sum(gate * weighted + dz * normalised), and db2 (C,).

    The programs behind those of the C channels write db1 (C/r,). Without a gate, only plain and weighted are summed.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    if tl.program_id(0) < blocks:
        c = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
        if gate is None:
            tl.store(dbias_out + c, _column_sums(plain, c, rows, channels, ROWS, CHANNELS), c < channels)
            tl.store(dweight_out + c, _column_sums(weighted, c, rows, channels, ROWS, CHANNELS), c < channels)
        else:
            dbias = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
            dweight = tl.full((ROWS, CHANNELS), 0.0, tl.float32)
            for begin in range(0, rows, ROWS):
                at, inside = _table_tile(begin, rows, c, channels, ROWS)
                s, dz_ = tl.load(gate + at, inside, 0.0), tl.load(dz + at, inside, 0.0)
                dbias += s * tl.load(plain + at, inside, 0.0) + dz_
                dweight += s * tl.load(weighted + at, inside, 0.0)
                dweight += dz_ * tl.load(normalised + at, inside, 0.0)
            tl.store(dbias_out + c, tl.sum(dbias, 0), c < channels)
            tl.store(dweight_out + c, tl.sum(dweight, 0), c < channels)
            tl.store(dbias2_out + c, _column_sums(dlogits, c, rows, channels, ROWS, CHANNELS), c < channels)
    elif gate is not None:
        c = (tl.program_id(0) - blocks) * CHANNELS + tl.arange(0, CHANNELS)
        total = _column_sums(dhidden, c, rows, hidden_channels, ROWS, CHANNELS)
        tl.store(dbias1_out + c, total, c < hidden_channels)


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
        at, inside = _map_tile(begin, last, c, channels, pixels, CHANNELS_LAST, PIXELS)
        at += start
        value = tl.load(g + at, inside, 0.0).to(tl.float32) * factor[None, :] + offset[None, :]
        value += (tl.load(x + at, inside, 0.0).to(tl.float32) - centre[None, :]) * slope[None, :]
        tl.store(dx + at, value.to(dx.dtype.element_ty), inside)
