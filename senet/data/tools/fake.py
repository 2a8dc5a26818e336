"""Made-up photographs: a folder tree of a given size, written once."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from senet.data.tools import work
from senet.errors import UserError
from senet.files import atomically, write_text

DONE = ".imagenet_fake"


def write_photographs(root: Path, classes: int, counts: dict[str, int], sides: tuple[int, int]) -> None:
    """Write ``root/SPLIT/nNNNNNNNN/NNNNN.JPEG``, unless they are there.

    Args:
        root: folder of the splits.
        classes: number of classes; a class shows in its colours.
        counts: images of each class, by split.
        sides: smallest and largest side in pixels.

    Raises:
        UserError: if ``root`` holds something else, or made-up images of another size.
    """
    made = f"{classes} {' '.join(map(str, counts.values()))} {list(sides)}\n"
    mark = root / DONE
    if mark.exists():
        if mark.read_text() != made:
            raise UserError(f"{root} holds made-up images of another size: choose another data.root")
        return
    if (root / "train").exists() and not (root / "train").joinpath("n00000000").exists():
        raise UserError(f"{root} holds other images: choose another data.root")
    jobs = [(split, label, i) for split, n in counts.items() for label in range(classes) for i in range(n)]
    # Processes cost more than they bring below some hundred images.
    workers = None if len(jobs) > 500 else 1
    for _ in work(partial(_write, root, sides), jobs, "imagenet_fake", workers, chunk=16):
        pass
    write_text(mark, made)


def picture(label: int, seed: int, height: int, width: int) -> Image.Image:
    """Return smooth blobs and noise around a colour that tells the class."""
    generator = np.random.default_rng((label, seed))
    hue = np.random.default_rng(label).integers(40, 216, 3)
    blobs = generator.normal(0, 30, (6, 8, 3)) + hue
    coarse = Image.fromarray(blobs.clip(0, 255).astype(np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    noise = generator.integers(-12, 13, (height, width, 1))
    return Image.fromarray((np.asarray(smooth).astype(np.int16) + noise).clip(0, 255).astype(np.uint8))


def _write(root: Path, sides: tuple[int, int], job: tuple[str, int, int]) -> None:
    split, label, index = job
    file = root / split / f"n{label:08d}" / f"{index:05d}.JPEG"
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = 2 * index + (split == "val")
    height, width = np.random.default_rng((label, seed, 1)).integers(sides[0], sides[1] + 1, 2).tolist()
    with atomically(file) as temporary:
        picture(label, seed, height, width).save(temporary, "JPEG", quality=90)
