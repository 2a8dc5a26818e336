"""Decoding on the device: workers only read files; the device decodes, crops and resizes them.

The random draws are those of the workers, since they come from the CPU's generator. Pixels differ a little from the
other decoders': nvJPEG upsamples chroma in its own way, and the device resizes in floating point.
"""

from typing import Any

import torch
from torch import Tensor

from senet.data.datasets import BadImage, Batch, FileDataset
from senet.data.files.decoders import MAX_PIXELS, decode_reference
from senet.data.timings import AUGMENT, DECODE, Stopwatch
from senet.errors import UserError
from senet.integrations.fast_jpeg import as_colour, hide_orientation, jpeg_frame, torchcodec_decoder


class DeviceDecoder:
    """Decodes and transforms on ``device`` what workers hand over as files.

    Args:
        dataset: whose samples these are; it says how they are transformed.
        device: a CUDA device; a CPU runs the same code, for tests.
        max_pixels: an image of more is not decoded.

    Raises:
        UserError: if torchcodec is missing.
    """

    def __init__(self, dataset: FileDataset, device: torch.device, max_pixels: int = MAX_PIXELS) -> None:
        try:
            self._decode_jpeg: Any = torchcodec_decoder()
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError("data.decoder=gpu needs torchcodec: install senet[fast]") from error
        self.dataset, self.device, self.max_pixels = dataset, device, max_pixels

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch that was handed over as files, with uint8 images on the device."""
        (epoch, ids, draws), files = batch.handed
        watch = Stopwatch()
        images = self._decode([file for file in files if isinstance(file, bytes)])
        watch.lap(DECODE)
        found: list[Tensor | BadImage] = []
        for index, draw, file in zip(ids, draws, files, strict=True):
            image = file if isinstance(file, BadImage) else images.pop(0)
            if isinstance(image, Exception):
                image = self.dataset.bad_image(epoch, index, image)
            elif isinstance(image, Tensor):
                image = self.dataset.transform(image, epoch, index, draw)
            found.append(image)
        watch.lap(AUGMENT)
        seconds = [here + there for here, there in zip(watch.seconds, batch.seconds, strict=True)]
        return self.dataset.collate((epoch, ids, draws), found, seconds)

    def _decode(self, files: list[bytes]) -> list[Tensor | Exception]:
        frames = [jpeg_frame(data) for data in files]  # zeros for what is no JPEG, which is Pillow's
        plain = [i for i, (width, height, _) in enumerate(frames) if 0 < width * height <= self.max_pixels]
        done: dict[int, Tensor] = {}
        try:
            # One call for the whole batch: the decoder works on many images at once.
            decoded = self._decode_jpeg([hide_orientation(files[i]) for i in plain], device=self.device)
            done = dict(zip(plain, decoded, strict=True))
        except Exception:
            done = {}  # one odd file spoils the call: decode them one by one
        colour = self.dataset.preprocessing.colour
        return [as_colour(done[i], colour) if i in done else self._decode_one(d) for i, d in enumerate(files)]

    def _decode_one(self, data: bytes) -> Tensor | Exception:
        colour = self.dataset.preprocessing.colour
        width, height, _ = jpeg_frame(data)
        if 0 < width * height <= self.max_pixels:
            try:
                return as_colour(self._decode_jpeg(hide_orientation(data), device=self.device), colour)
            except Exception:
                pass  # Pillow decides
        try:
            return decode_reference(data, colour, max_pixels=self.max_pixels).to(self.device)
        except Exception as error:
            return error
