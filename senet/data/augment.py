"""Training augmentation, as far as it is done image by image, in the workers (torchvision)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from senet.data.config import AugmentConfig, Policy
from senet.data.files.decoders import Box, whole
from senet.data.preprocessing import Preprocessing, resize_exact


class ImageAugmentation:
    """Augment one decoded image: uint8 (C, H, W) -> uint8 (C, size, size), on the device it lies on.

    Draws from torch's CPU generator, wherever the image lies. What batches are augmented with is left to
    ``InputStep``.
    """

    def __init__(self, config: AugmentConfig, preprocessing: Preprocessing) -> None:
        from torchvision.transforms import RandomResizedCrop, v2  # seconds to import

        self.config = config
        self.preprocessing = preprocessing
        self.random_box = RandomResizedCrop.get_params
        mean = [255 * m for m in preprocessing.mean]
        bilinear, strength = v2.InterpolationMode.BILINEAR, config.colour_jitter
        operations = (
            config.rotation and v2.RandomRotation(config.rotation, bilinear, fill=mean),
            strength and v2.ColorJitter(strength, strength, strength),
            config.pixel_jitter and partial(move_channels, most=config.pixel_jitter),
            config.rand_augment and v2.RandAugment(*config.rand_augment),
            config.policy and _policy(config.policy, preprocessing.channels),
            config.erase and v2.RandomErasing(config.erase, value=mean),
        )
        self.operations: list[Callable[[Tensor], Tensor]] = [chosen for chosen in operations if chosen]

    def box(self, height: int, width: int) -> Box:
        """Draw the part that is used of an image of this height and width."""
        if self.config.crop != "random_resized":
            return whole(height, width)
        blank = torch.empty(()).expand(3, height, width)  # an image of no memory: only its size is asked for
        return Box(*self.random_box(blank, list(self.config.scale), list(self.config.ratio)))

    def finish(self, image: Tensor, size: int) -> Tensor:
        """Return the augmented image of side ``size`` of the part that ``box`` drew."""
        if self.config.crop == "random_resized":
            image = resize_exact(image, size, size, self.preprocessing.interpolation)
        else:
            image = self.preprocessing.at(size).evaluate(image)
        for operation in self.operations:
            image = operation(image)
        return image


def move_channels(image: Tensor, most: int) -> Tensor:
    """Add to each channel of uint8 (C, H, W) one whole number drawn from -most ... most."""
    moves = torch.randint(-most, most + 1, (len(image), 1, 1)).to(image.device)
    return (image + moves).clamp_(0, 255).to(torch.uint8)  # computed in int64


def _policy(name: Policy, channels: int) -> Any:
    """Return the torchvision operation that a policy of ``AugmentConfig`` stands for."""
    from torchvision.transforms import v2

    if name == "trivial_augment":
        return v2.TrivialAugmentWide()
    if name == "augmix":
        return v2.AugMix()
    # DeiT III: one of the three with equal chance; the radius of the blur, and Pillow's threshold, as there.
    grey, blur = v2.Grayscale(channels), v2.GaussianBlur(kernel_size=13, sigma=(0.1, 2.0))
    return v2.RandomChoice([grey, v2.RandomSolarize(threshold=128, p=1.0), blur])
