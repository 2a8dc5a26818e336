"""How the Triton passes cut a map into programs: one table, to be tuned on the GPU at hand.

A program owns ``channels`` channels of one slice of one image and walks the slice's pixels ``pixels`` at a time,
at most ``steps`` times. ``benchmarks/tune.py`` measures alternatives and prints entries for ``TUNED``.
"""

from dataclasses import dataclass
from typing import Literal

Pass = Literal["moments", "merge", "gradient_sums", "grad_input"]


@dataclass(frozen=True)
class Tile:
    """A tile of ``pixels`` x ``channels`` (powers of two), how many of them a program walks, and its warps."""

    pixels: int
    channels: int
    steps: int
    warps: int


@dataclass(frozen=True)
class Cut:
    """A map cut into tiles: every image has ``slices`` slices of ``pixels_per_slice`` pixels or less."""

    slices: int
    pixels_per_slice: int
    channel_blocks: int
    pixels: int
    channels: int
    warps: int


CHANNELS_LAST: dict[Pass, Tile] = {
    "moments": Tile(32, 128, 16, 8),
    "merge": Tile(32, 128, 2, 4),
    "gradient_sums": Tile(32, 128, 16, 8),
    "grad_input": Tile(32, 128, 2, 4),
}
"""C is contiguous: 128 channels are 256 bytes of bfloat16. The reductions leave few partial sums behind."""

CONTIGUOUS: dict[Pass, Tile] = {
    "moments": Tile(512, 4, 8, 8),
    "merge": Tile(512, 4, 2, 4),
    "gradient_sums": Tile(512, 4, 8, 8),
    "grad_input": Tile(512, 4, 2, 4),
}
"""Pixels are contiguous."""

TUNED: dict[tuple[Pass, int, int], Tile] = {}
"""(pass, C, H * W) of channels_last maps to what measured best; other shapes use the defaults above."""


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _power_of_two(n: int) -> int:
    """Return the smallest power of two that is not below n."""
    return 1 << (n - 1).bit_length()


def cut(name: Pass, channels: int, pixels: int, channels_last: bool) -> Cut:
    """Return how the pass ``name`` covers maps of ``channels`` channels and ``pixels`` = H * W pixels."""
    defaults = CHANNELS_LAST if channels_last else CONTIGUOUS
    tile = TUNED.get((name, channels, pixels), defaults[name]) if channels_last else defaults[name]
    tile_pixels = min(tile.pixels, _power_of_two(pixels))
    tile_channels = min(tile.channels, _power_of_two(channels))
    slices = ceil_div(pixels, tile_pixels * tile.steps)
    per_slice = min(ceil_div(pixels, slices * tile_pixels) * tile_pixels, pixels)  # all but the last alike
    return Cut(
        slices=ceil_div(pixels, per_slice),
        pixels_per_slice=per_slice,
        channel_blocks=ceil_div(channels, tile_channels),
        pixels=tile_pixels,
        channels=tile_channels,
        warps=tile.warps,
    )


def reduction(channels: int) -> tuple[int, int]:
    """Return rows and columns of the tile of a program that sums a (rows, channels) table over its rows.

    Narrow tiles for few channels: every multiprocessor of a large GPU (132 on an H100) is to have a program.
    """
    columns = min(8, max(2, _power_of_two(channels) // 128))
    return 1024 // columns, columns
