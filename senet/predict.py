"""``senet predict``: what a trained network says of images."""

import argparse
import csv
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import torch
from torch import Tensor

from senet.data.datasets import BadImage
from senet.data.files.decoders import Decoder, build_decoder
from senet.data.files.folder import IRREGULAR, is_image, walk_class
from senet.data.preprocessing import Preprocessing
from senet.data.tools import work
from senet.errors import UserError
from senet.files import read_regular
from senet.plugins import integration
from senet.terminal import complain
from senet.weights.classes import is_imagenet
from senet.weights.trained import Trained, read_trained

BROKEN = 1
"""Exit status where some of the images could not be read."""


class Guess(NamedTuple):
    """One of the most probable classes of an image."""

    name: str
    place: int
    probability: float


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Resize, crop and normalisation are those stored with the weights. Images that cannot be read are listed "
        "at the end, on stderr, and the exit status is then 1."
    )
    parser.add_argument("model", help="run directory, checkpoint, file of weights, timm:NAME.TAG, ...")
    parser.add_argument("images", nargs="+", help='files, folders, "globs"; - reads a list from stdin')
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes per image (5)")
    parser.add_argument("--format", choices=("table", "csv", "jsonl"), default="table")
    parser.add_argument("--output", type=Path, help="file to write instead of stdout")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, help="processes that decode; all cores")
    parser.add_argument("--device", help="cpu, cuda or mps; cuda where there is one, else cpu")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint of a run")
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto", help="of a checkpoint")


def run(arguments: argparse.Namespace) -> int:
    for name in ("top", "batch_size"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)} must be 1 or more")
    files = find_images(arguments.images)
    trained = read_trained(arguments.model, arguments.which, arguments.weights)
    if trained.words:
        complain(f"weights: {trained.words}")
    device = choose_device(arguments.device)
    broken: list[BadImage] = []
    found = predict(trained, files, arguments.top, arguments.batch_size, arguments.workers, device, broken)
    opened: AbstractContextManager[TextIO] = nullcontext(sys.stdout)
    if arguments.output:
        opened = arguments.output.open("w", newline="", encoding="utf-8", errors="surrogateescape")
    try:
        with opened as output:
            if arguments.format == "csv":
                output.write("image,rank,class,index,probability\n")
            for file, guesses in found:
                write(output, file, guesses, arguments.format)
    except BrokenPipeError:  # head has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    for bad in broken:
        complain(f"not read: {bad.path} ({bad.reason})")
    if broken:
        complain(f"{len(broken)} of {len(files)} images could not be read")
    return BROKEN if broken else 0


def find_images(given: Sequence[str]) -> list[str]:
    """Return the images that files, folders, globs and "-" name, each once, in this order.

    Raises:
        UserError: for a name of nothing, or where there is no image at all.
    """
    found: list[str] = []
    for name in given:
        if name == "-":
            for line in filter(str.strip, sys.stdin):
                found += _images_at(line.rstrip("\r\n"))
        elif os.path.lexists(name):
            found += _images_at(name)
        else:
            matches = sorted(glob.glob(os.path.expanduser(name), recursive=True))
            if not matches:
                raise UserError(f"{name}: there is no such file, folder or match")
            for match in matches:
                found += _images_at(match) if os.path.isdir(match) or is_image(match) else []
    if not found:
        raise UserError(f"{', '.join(given)}: there are no images")
    return list(dict.fromkeys(found))


def _images_at(name: str) -> list[str]:
    """Return a file, or the images of a folder, those too that turn out to be links to nothing."""
    if not os.path.isdir(name):
        return [name]
    inside = (
        f"{part.path}/{file}"
        for part in walk_class(Path(name), ".")
        for file in [*part.images, *filter(is_image, part.others.get(IRREGULAR, ()))]
    )
    return sorted(os.path.normpath(f"{name}/{file}") for file in inside)


def choose_device(name: str | None) -> torch.device:
    """Return the device called ``name``, by default a CUDA device if there is one.

    Raises:
        UserError: if there is no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: there is none here ({str(error).splitlines()[0]})") from error


def predict(
    trained: Trained,
    files: Sequence[str],
    top: int,
    batch_size: int,
    workers: int | None,
    device: torch.device,
    broken: list[BadImage],
) -> Iterator[tuple[str, list[Guess]]]:
    """Yield the most probable classes of every image that can be read, in order; the others go to ``broken``."""
    network = trained.network.to(device)
    pre, names = trained.preprocessing, shown_names(trained)
    read = partial(load, decoder=build_decoder("fast", pre.colour), preprocessing=pre)
    images = iter(work(read, list(enumerate(files)), "predict", workers, chunk=4))
    while batch := list(islice(images, batch_size)):
        broken += [image for image in batch if isinstance(image, BadImage)]
        kept = [image for image in batch if not isinstance(image, BadImage)]
        if not kept:
            continue
        with torch.inference_mode():
            pixels = torch.stack([image for _, image in kept]).to(device)
            probabilities = network(pre.normalise(pixels)).float().softmax(1).cpu()
        best = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
        for (index, _), values, places in zip(kept, best.values.tolist(), best.indices.tolist(), strict=True):
            yield files[index], [Guess(names[i], i, p) for i, p in zip(places, values, strict=True)]


def load(
    item: tuple[int, str], decoder: Decoder, preprocessing: Preprocessing
) -> tuple[int, Tensor] | BadImage:
    """Return the index and the pixels, uint8 (C, size, size), of a numbered file, or why it cannot be read."""
    index, file = item
    try:
        return index, preprocessing.evaluate(decoder(read_regular(file))).contiguous()
    except Exception as error:
        return BadImage(0, index, file, " ".join(f"{type(error).__name__}: {error}".split()))


def shown_names(trained: Trained) -> list[str]:
    """Return what people are told of each class; a WordNet id is followed by its name."""
    names = trained.class_names()
    if trained.classes is None or not is_imagenet(trained.classes):
        return names
    called = integration("imagenet_names", package="timm", asked="ImageNet's names").called
    return [f"{name} {called(name)}" for name in names]


def write(output: TextIO, file: str, guesses: Sequence[Guess], form: str) -> None:
    """Write what the network says of one image; a name as it is on the disk, in JSON with escapes for its bytes."""
    if form == "table":
        said = "  ".join(f"{100 * guess.probability:.1f} % {guess.name}" for guess in guesses)
        output.write(f"{file}  {said}\n")
    elif form == "jsonl":
        top: list[dict[str, Any]] = [
            {"class": g.name, "index": g.place, "probability": round(g.probability, 6)} for g in guesses
        ]
        text = json.dumps({"image": file, "top": top}, ensure_ascii=False)
        output.write(text.encode("utf-8", "backslashreplace").decode() + "\n")
    else:
        rows = [(file, rank, g.name, g.place, f"{g.probability:.6f}") for rank, g in enumerate(guesses, 1)]
        csv.writer(output, lineterminator="\n").writerows(rows)
    output.flush()
