"""From a batch of uint8 images to what the network sees: shift, flip, Cutout, normalisation and mixing in one step.

It runs on the device that holds the batch. Compiled, as on a GPU, it is one pass over the pixels; padding or Cutout may
cost a second one, over bytes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from senet.data.config import AugmentConfig
from senet.data.preprocessing import Preprocessing, normalise

NUMBERS = 5
"""Random numbers per sample: the row and column of its shift, its flip, the row and column of its Cutout."""


class InputStep(nn.Module):
    """Turn uint8 batches into normalised float32.

    Args:
        preprocessing: mean and standard deviation.
        augment: what happens to batches that come with random numbers.
        channels_last: memory layout of the result.
    """

    scale: Tensor
    offset: Tensor
    colour: Tensor

    def __init__(
        self, preprocessing: Preprocessing, augment: AugmentConfig | None = None, channels_last: bool = True
    ) -> None:
        super().__init__()
        self.augment = augment
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        scale, offset = preprocessing.scale_and_offset()
        colour = torch.tensor([round(255 * mean) for mean in preprocessing.mean], dtype=torch.uint8)
        for name, values in (("scale", scale), ("offset", offset), ("colour", colour)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor, numbers: Tensor | None = None, own: Tensor | None = None) -> Tensor:
        """Return float32 (B, C, H, W).

        Args:
            images: uint8 (B, C, H, W); on a CPU the step may write into them.
            numbers: uniform in [0, 1), (B, NUMBERS), or None to augment nothing.
            own: weight of each image's own pixels, (H, W), where it is mixed with the one before it in the batch.
        """
        if numbers is not None and self.augment is not None:
            images = self._augment(images, numbers, self.augment)
        images = images.contiguous(memory_format=self.layout)  # as bytes: a quarter of the work
        if own is not None:
            # Before normalisation, with which it may change places: a compiler then makes one pass of both.
            # A CPU is slow at broadcasting.
            own = own.expand_as(images[:1]).contiguous(memory_format=self.layout)
            images = torch.lerp(images.roll(1, 0).float(), images.float(), own)
        return normalise(images, self.scale, self.offset)

    def _augment(self, images: Tensor, numbers: Tensor, config: AugmentConfig) -> Tensor:
        flipped = numbers[:, 2] < config.flip
        if config.crop == "pad":
            images = shift_and_flip(images, numbers[:, :2], flipped, config.pad)
        elif config.flip:
            images = flip(images, flipped)
        if config.cutout:
            images = cut_out(images, numbers[:, 3:5], config.cutout, self.colour)
        return images


def flip(images: Tensor, flipped: Tensor) -> Tensor:
    """Mirror the images (B, C, H, W) that ``flipped`` (B,) marks; on a CPU in place, where that is far faster."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(flipped[:, None, None, None], images.flip(-1), images)
    for index in flipped.nonzero()[:, 0].tolist():
        images[index] = images[index].flip(-1)
    return images


def shift_and_flip(images: Tensor, shifts: Tensor, flipped: Tensor, pad: int) -> Tensor:
    """Pad with ``pad`` zeros, cut the size of the image out again, and mirror some, in one gather.

    Args:
        images: (B, C, H, W).
        shifts: (B, 2), where the cut begins, row and column, as shares of the places it can begin, in [0, 1).
        flipped: (B,), which images to mirror.
        pad: pixels on each side.
    """
    count, channels, height, width = images.shape
    starts = (shifts * (2 * pad + 1)).long()
    columns = torch.arange(width, device=images.device)
    columns = starts[:, 1:] + torch.where(flipped[:, None], width - 1 - columns, columns)
    rows = starts[:, :1] + torch.arange(height, device=images.device)
    # Where each pixel comes from, (B, 1, H * W), in each padded channel.
    source = (rows[:, :, None] * (width + 2 * pad) + columns[:, None, :]).view(count, 1, -1)
    padded = F.pad(images, [pad] * 4).flatten(2)
    return padded.gather(2, source.expand(-1, channels, -1)).view(images.shape)


def cut_out(images: Tensor, centres: Tensor, side: int, colour: Tensor) -> Tensor:
    """Fill one square of each image (Cutout, arXiv 1708.04552).

    Args:
        images: uint8 (B, C, H, W).
        centres: (B, 2), row and column of the centre as shares of height and width, in [0, 1).
        side: of the square, in pixels.
        colour: uint8 (C,).
    """
    inside = []
    for axis, length in enumerate(images.shape[-2:]):
        start = (centres[:, axis] * length).long() - side // 2
        position = torch.arange(length, device=images.device) - start[:, None]
        inside.append((position >= 0) & (position < side))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(square, colour[:, None, None], images)
