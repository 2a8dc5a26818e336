"""How the Triton passes cut a map into programs: one table, to be tuned on the GPU at hand.

A program owns ``channels`` channels of one slice of one image and walks the slice's pixels ``pixels`` at a time,
at most ``steps`` times. ``benchmarks/tune.py`` measures alternatives and prints entries for ``TUNED``.
"""

from dataclasses import dataclass
from typing import Literal

Pass = Literal["moments", "merge", "gradient_sums", "grad_input"]


@dataclass(frozen=True)
class Blocks:
    """A tile of ``pixels`` x ``channels`` (powers of two), how many of them a program walks, and its warps."""

    pixels: int
    channels: int
    steps: int
    warps: int


@dataclass(frozen=True)
class Grid:
    """``Blocks`` cut to a map: every image has ``slices`` slices of ``pixels_per_slice`` pixels or less."""

    slices: int
    pixels_per_slice: int
    channel_blocks: int
    pixels: int
    channels: int
    warps: int


CHANNELS_LAST: dict[Pass, Blocks] = {
    "moments": Blocks(32, 128, 16, 8),
    "merge": Blocks(32, 128, 2, 4),
    "gradient_sums": Blocks(32, 128, 16, 8),
    "grad_input": Blocks(32, 128, 2, 4),
}
"""C is contiguous: 128 channels are 256 bytes of bfloat16. The reductions leave few partial sums behind."""

CONTIGUOUS: dict[Pass, Blocks] = {
    "moments": Blocks(512, 4, 8, 8),
    "merge": Blocks(512, 4, 2, 4),
    "gradient_sums": Blocks(512, 4, 8, 8),
    "grad_input": Blocks(512, 4, 2, 4),
}
"""Pixels are contiguous."""

TUNED: dict[tuple[Pass, int, int], Blocks] = {}
"""(pass, C, H * W) of channels_last maps to what measured best; other shapes use the defaults above."""


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(n: int) -> int:
    """Return the smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def grid(name: Pass, channels: int, pixels: int, channels_last: bool) -> Grid:
    """Return how the pass ``name`` covers maps of ``channels`` channels and ``pixels`` = H * W pixels."""
    defaults = CHANNELS_LAST if channels_last else CONTIGUOUS
    blocks = TUNED.get((name, channels, pixels), defaults[name]) if channels_last else defaults[name]
    tile_pixels = min(blocks.pixels, _power_of_two(pixels))
    tile_channels = min(blocks.channels, _power_of_two(channels))
    per_slice = min(tile_pixels * blocks.steps, pixels)
    return Grid(
        slices=_ceil_div(pixels, per_slice),
        pixels_per_slice=per_slice,
        channel_blocks=_ceil_div(channels, tile_channels),
        pixels=tile_pixels,
        channels=tile_channels,
        warps=blocks.warps,
    )
