"""Decoding on the device: workers only read files; the device decodes, crops and resizes them.

The random draws are those of the workers, since they come from the CPU's generator. Pixels differ a little from the
other decoders': nvJPEG upsamples chroma in its own way, and the device resizes in floating point.
"""

import time
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from senet.data.datasets import BadImage, FileDataset, Sample, bad_image
from senet.data.decoders import as_colour, decode_reference, torchcodec_decoder
from senet.data.jpeg import START, hide_orientation
from senet.errors import UserError


class DeviceDecoder:
    """Decode and transform the encoded samples of a batch on ``device``.

    Args:
        dataset: whose samples these are; it says how they are transformed.
        device: a CUDA device; a CPU runs the same code, for tests.

    Raises:
        UserError: if torchcodec is missing.
    """

    def __init__(self, dataset: FileDataset, device: torch.device) -> None:
        try:
            self._decode_jpeg: Any = torchcodec_decoder()
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError("data.decoder=gpu needs torchcodec: install senet[fast]") from error
        self.dataset, self.device = dataset, device

    def __call__(self, samples: Sequence[Sample | BadImage]) -> list[Sample | BadImage]:
        """Return the samples with uint8 images on the device, and those that cannot be decoded as bad."""
        encoded = [sample for sample in samples if isinstance(sample, Sample)]
        results: list[Sample | BadImage] = [s for s in samples if isinstance(s, BadImage)]
        start = time.perf_counter()
        images = self._decode([cast(bytes, sample.image) for sample in encoded])
        share = (time.perf_counter() - start) / max(1, len(encoded))
        for sample, image in zip(encoded, images, strict=True):
            if isinstance(image, Exception):
                results.append(bad_image(self.dataset, sample.key, image))
                continue
            start = time.perf_counter()
            image = self.dataset.transform(image, sample.key)
            seconds = (sample.seconds[0], share, time.perf_counter() - start)
            results.append(sample._replace(image=image, seconds=seconds))
        return results

    def _decode(self, files: list[bytes]) -> list[Tensor | Exception]:
        plain = [i for i, data in enumerate(files) if data.startswith(START)]
        done: dict[int, Tensor] = {}
        try:
            # One call for the whole batch: the decoder works on many images at once.
            decoded = self._decode_jpeg([hide_orientation(files[i]) for i in plain], device=self.device)
            done = dict(zip(plain, decoded, strict=True))
        except Exception:
            done = {}  # one odd file spoils the call: decode them one by one
        colour = self.dataset.preprocessing.colour
        return [
            as_colour(done[i], colour) if i in done else self._decode_one(data)
            for i, data in enumerate(files)
        ]

    def _decode_one(self, data: bytes) -> Tensor | Exception:
        colour = self.dataset.preprocessing.colour
        if data.startswith(START):
            try:
                return as_colour(self._decode_jpeg(hide_orientation(data), device=self.device), colour)
            except Exception:
                pass  # Pillow decides
        try:
            return decode_reference(data, colour).to(self.device)
        except Exception as error:
            return error
