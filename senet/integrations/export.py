"""``senet export``: a trained network for other software, compared with ours on real images before it is done."""

import argparse
import copy
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from senet.data.files.decoders import build_decoder
from senet.errors import UserError
from senet.files import write_text
from senet.integrations.model_card import model_card
from senet.nn.folding import fold_batch_norms
from senet.nn.tail import set_kernels
from senet.plugins import integration
from senet.predict import find_images, load
from senet.rundir import RunDir
from senet.terminal import fitted
from senet.weights.trained import Trained, read_trained

FORMS = {
    "onnx": {"name": "onnx_export", "package": "onnx", "extra": "export"},
    "torch": {"name": "torch_export", "package": "torch"},
    "timm": {"name": "timm_folder", "package": "timm"},
}
"""The integrations that write, each with ``write(trained, network, folder) -> Written``."""
IMAGES = 200
TOLERANCE = 1e-4


class Written(Protocol):
    """An export that was read back."""

    file: Path
    how: str

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits (B, K) that it gives, as its users will run it, for images (B, C, H, W)."""
        ...


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Every export is read back and compared with the network here: the same class for every image, logits to 1e-4. "
        "Preprocessing is not part of it: the model card beside it says what it expects."
    )
    parser.add_argument("model", help="run directory, checkpoint, file of weights, timm:NAME.TAG, ...")
    parser.add_argument("--to", choices=tuple(FORMS), required=True)
    parser.add_argument("--output", type=Path, help="folder to write; RUN/export_FORM, or ./export_FORM")
    parser.add_argument("--images", nargs="+", default=[], help="images to compare on, if not the run's own")
    parser.add_argument("--fold", action="store_true", help="fold BN into the convolutions (onnx, torch)")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="checkpoint of a run")
    parser.add_argument("--weights", choices=("auto", "raw", "ema"), default="auto", help="of a checkpoint")
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to the Hugging Face Hub")


def run(arguments: argparse.Namespace) -> int:
    if arguments.fold and arguments.to == "timm":
        raise UserError("--fold: timm's networks have their BN; fold an onnx or a torch export")
    if arguments.push:
        hub = integration("hub", package="huggingface_hub", asked="--push")
        hub.check(arguments.push)
    asked = f"--to {arguments.to}"
    form: dict[str, Any] = FORMS[arguments.to]
    writer = integration(**form, asked=asked)
    trained = read_trained(arguments.model, arguments.which, arguments.weights)
    if trained.words:
        print(fitted(f"weights   {trained.words}"))
    images = comparison_images(trained, arguments.images)
    home = Path(arguments.model).expanduser()
    folder = arguments.output or (home if home.is_dir() else Path()) / f"export_{arguments.to}"
    folder.mkdir(parents=True, exist_ok=True)
    network: nn.Module = copy.deepcopy(trained.network).to(memory_format=torch.contiguous_format)
    if arguments.fold:
        network = fold_batch_norms(network)
    set_kernels(network, "eager")
    written: Written = writer.write(trained, network, folder)
    difference = compare(trained.network, written, trained.preprocessing.normalise(images))
    card = folder / "README.md"
    words = f"{written.how}; the same class for {len(images)} images, logits to {difference:.0e}"
    write_text(
        card, model_card(trained, Path(arguments.model), f"`{written.file.name}`: {words}.", arguments.to)
    )
    print(fitted(f"written   {written.file}, and the model card {card}"))
    print(fitted(f"compared  {words}"))
    if arguments.push:
        print(fitted(f"pushed    {hub.push(folder, arguments.push)}"))
    return 0


def comparison_images(trained: Trained, given: list[str]) -> Tensor:
    """Return up to ``IMAGES`` images of those given, or else of the run's validation split, uint8 (N, C, H, W).

    Raises:
        UserError: if there are none, or one that cannot be read.
    """
    pre = trained.preprocessing
    if given:
        decoder = build_decoder("fast", pre.colour)
        read = [load(item, decoder, pre) for item in enumerate(find_images(given)[:IMAGES])]
        pixels = [item[1] for item in read if isinstance(item[1], Tensor)]
        if not pixels:
            raise UserError("none of --images can be read")
        return torch.stack(pixels)
    if trained.checkpoint is None:
        raise UserError("give --images FOLDER: the export is compared with the network on real images")
    try:
        return own_images(trained, IMAGES)[0]
    except UserError as error:
        raise UserError(f"the run's own images are not there ({error}): give --images FOLDER") from error


def own_images(trained: Trained, count: int) -> tuple[Tensor, Tensor]:
    """Return up to ``count`` of the images that a run was validated on, uint8 (N, C, H, W), and their labels (N,).

    Raises:
        UserError: if they are not there any more, or one cannot be read.
    """
    if trained.checkpoint is None:
        raise UserError(f"{trained.source} is not of a run, whose validation images are wanted")
    from senet.data.datasets import MemoryDataset
    from senet.data.module import ImageData
    from senet.data.sets import data_config

    stored = data_config(trained.checkpoint.config["data"])
    held_out = RunDir(trained.checkpoint.path.parent.parent).held_out()
    classes = trained.checkpoint.classes
    data = ImageData(stored, None, 0, preprocessing=trained.preprocessing, classes=classes, held_out=held_out)
    ids = data.val_ids[:: max(1, data.val_size // count)][:count]
    if isinstance(data.val, MemoryDataset):
        return data.val.images[ids], data.val.labels[ids]
    batch = data.val.fetch((0, ids.tolist(), [0] * len(ids)))
    if batch.bad:
        raise batch.bad[0].error()
    return batch.images, batch.labels


def compare(network: nn.Module, written: Written, images: Tensor) -> float:
    """Return by how much the logits of an export differ at most, in units of the largest logit or of 1.

    Raises:
        UserError: if the class of an image differs, or a logit by more than ``TOLERANCE``.
    """
    parts = [images[start : start + 16] for start in range(0, len(images), 16)]
    with torch.inference_mode():
        ours = torch.cat([network(part) for part in parts])
        theirs = torch.cat([written(part) for part in parts])  # the last one may be smaller
    difference = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1))
    margin = ours.topk(min(2, ours.shape[1]), 1).values
    tied = (margin[:, 0] - margin[:, -1]).abs() < TOLERANCE
    other = int(((ours.argmax(1) != theirs.argmax(1)) & ~tied).sum())
    if not difference <= TOLERANCE or other:
        raise UserError(
            f"{written.file} is not the same network: logits differ by {difference:.1e}, {other} of {len(images)} "
            "images get another class; do not use it"
        )
    return difference
