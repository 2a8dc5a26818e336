"""The step before the network, on whole batches, against one image at a time; as it runs here and as compiled."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._inductor import metrics

from senet.data import AugmentConfig, Preprocessing
from senet.data.inputs import NUMBERS, InputStep, cut_out
from senet.data.streams import uniform

PLAIN = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
"""With these the step's result is the bytes themselves."""
IMAGES = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NUMBERS_40 = torch.rand(40, NUMBERS)


def one_by_one(config: AugmentConfig, images: Tensor, numbers: Tensor, colour: Tensor) -> Tensor:
    """The definition: pad, cut, flip and fill, an image at a time."""
    out = []
    height, width = images.shape[-2:]
    for image, (row, column, flip, middle, centre) in zip(images, numbers.tolist(), strict=True):
        if config.crop == "pad":
            top, left = int(row * (2 * config.pad + 1)), int(column * (2 * config.pad + 1))
            image = F.pad(image, [config.pad] * 4)[:, top : top + height, left : left + width]
        image = image.flip(-1) if flip < config.flip else image.clone()
        if config.cutout:
            top, left = int(middle * height) - config.cutout // 2, int(centre * width) - config.cutout // 2
            rows, columns = slice(max(0, top), top + config.cutout), slice(max(0, left), left + config.cutout)
            image[:, rows, columns] = colour[:, None, None]
        out.append(image)
    return torch.stack(out)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(),
        AugmentConfig(crop="none", flip=0.0),
        AugmentConfig(crop="none", flip=1.0, cutout=3),
        AugmentConfig(crop="pad", pad=1),
        AugmentConfig(crop="pad", pad=4, flip=0.3, cutout=4),
    ],
)
def test_a_batch_is_augmented_as_its_images_one_by_one(config: AugmentConfig, channels_last: bool) -> None:
    colour = torch.tensor([0, 0, 0], dtype=torch.uint8)
    expected = one_by_one(config, IMAGES, NUMBERS_40, colour)
    out = InputStep(PLAIN, config, channels_last)(IMAGES.clone(), NUMBERS_40)
    torch.testing.assert_close(out, expected.float(), rtol=1e-6, atol=1e-4)
    assert out.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert out.is_contiguous() != channels_last


def test_without_numbers_nothing_is_augmented() -> None:
    out = InputStep(PLAIN, AugmentConfig(crop="pad", cutout=4))(IMAGES)
    torch.testing.assert_close(out, IMAGES.float(), rtol=1e-6, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("config", "passes"), [(AugmentConfig(), 1), (AugmentConfig(crop="pad", cutout=4), 2)]
)
def test_compiled_it_is_one_graph_of_few_passes_and_gives_the_same(
    config: AugmentConfig, passes: int, mixed: bool, device: str
) -> None:
    own = torch.rand(12, 10) if mixed else None
    step = InputStep(Preprocessing(), config)
    expected = step(IMAGES.clone(), NUMBERS_40, own)
    torch._dynamo.reset()
    metrics.reset()
    step.to(device).compile(fullgraph=True)
    out = step(IMAGES.to(device), NUMBERS_40.to(device), None if own is None else own.to(device))
    torch.testing.assert_close(out.cpu(), expected)
    older = torch.__version__ < (2, 15)  # 2.11 fuses less for a CPU
    assert metrics.generated_kernel_count <= passes * (2 if older else 1)


def test_all_shifts_and_both_directions_occur() -> None:
    image = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).expand(4000, -1, -1, -1)
    grey = Preprocessing(mean=(0.0,), std=(1 / 255,), colour="L")
    numbers = uniform(0, torch.arange(4000), torch.zeros(4000, dtype=torch.int64), NUMBERS)
    out = InputStep(grey, AugmentConfig(crop="pad", pad=1))(image, numbers)
    kinds, counts = np.unique(out.flatten(1).round().numpy(), axis=0, return_counts=True)
    assert len(kinds) == 18  # 3 x 3 shifts, flipped or not
    assert counts.min() > 4000 / 18 / 2


def test_cutout_fills_one_square_that_may_reach_over_the_border() -> None:
    images = torch.full((3, 3, 10, 12), 7, dtype=torch.uint8)
    centres = torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.99, 0.99]])
    colour = torch.tensor([1, 2, 3], dtype=torch.uint8)
    out = cut_out(images, centres, 4, colour)
    expected = images.clone()
    for image, (rows, columns) in zip(
        expected,
        [(slice(0, 2), slice(0, 2)), (slice(3, 7), slice(4, 8)), (slice(7, 10), slice(9, 12))],
        strict=True,
    ):
        image[:, rows, columns] = colour[:, None, None]
    assert torch.equal(out, expected)
