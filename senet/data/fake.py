"""Made-up photographs: a folder tree of a given size, written once."""

import os
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from senet.data.config import FakeConfig
from senet.data.parallel import progress, work
from senet.errors import UserError

DONE = ".imagenet_fake"


def write_tree(config: FakeConfig) -> Path:
    """Write ``root/{train,val}/nNNNNNNNN/NNNNN.JPEG``, unless it is there; return the root.

    Raises:
        UserError: if ``root`` holds something else, or made-up images of another size.
    """
    root = Path(config.root)
    made = f"{config.num_classes} {config.train_per_class} {config.val_per_class} {list(config.sides)}\n"
    mark = root / DONE
    if mark.exists():
        if mark.read_text() != made:
            raise UserError(f"{root} holds made-up images of another size: choose another data.root")
        return root
    if (root / "train").exists() and not (root / "train").joinpath("n00000000").exists():
        raise UserError(f"{root} holds other images: choose another data.root")
    classes = range(config.num_classes)
    splits = {"train": config.train_per_class, "val": config.val_per_class}
    jobs = [(split, label, i) for split, count in splits.items() for label in classes for i in range(count)]
    # Processes cost more than they bring below some hundred images.
    done = work(partial(_write, root, config.sides), jobs, workers=None if len(jobs) > 500 else 1, chunk=16)
    with progress(len(jobs), "imagenet_fake") as bar:
        for _ in done:
            bar.update()
    mark.write_text(made)
    return root


def picture(label: int, seed: int, height: int, width: int) -> Image.Image:
    """Return smooth blobs and noise around a colour that tells the class."""
    generator = np.random.default_rng((label, seed))
    hue = np.random.default_rng(label).integers(40, 216, 3)
    blobs = generator.normal(0, 30, (6, 8, 3)) + hue
    smooth = Image.fromarray(blobs.clip(0, 255).astype(np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
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
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    picture(label, seed, height, width).save(temporary, "JPEG", quality=90)
    os.replace(temporary, file)
