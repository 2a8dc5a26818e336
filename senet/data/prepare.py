"""``senet prepare``: ImageNet from its official archives, or from folders, to an image folder or straight to a pack."""

import argparse
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet.data.config import FakeConfig
from senet.data.folder import ImageTree, class_folders, is_image, scan
from senet.data.pack import PackOptions, add_pack_arguments, pack
from senet.data.parallel import progress, work
from senet.data.records import Names, Records
from senet.errors import UserError

CHUNK = 256


class ArchiveRecords:
    """Images inside an uncompressed tar archive, or as flat files, as ``Records``.

    Args:
        files: the archive, or one file per image.
        offsets: where each image begins in its file, int64 (N,).
        lengths: bytes of each image, int64 (N,).
        names: CLASS/FILE of each image.
        classes: sorted class names.
    """

    def __init__(
        self, files: list[Path], offsets: list[int], lengths: list[int], names: list[str], classes: list[str]
    ) -> None:
        order = sorted(range(len(names)), key=names.__getitem__)
        self._files = files if len(files) == 1 else [files[i] for i in order]
        self._offsets = np.array(offsets, dtype=np.int64)[order]
        self._lengths = np.array(lengths, dtype=np.int64)[order]
        self._names = Names.of(names[i] for i in order)
        self._classes = classes
        index = {name: i for i, name in enumerate(classes)}
        self._labels = torch.tensor([index[names[i].split("/")[0]] for i in order], dtype=torch.int64)

    @property
    def labels(self) -> Tensor:
        """Labels, int64 (N,)."""
        return self._labels

    @property
    def classes(self) -> list[str]:
        """Class names."""
        return self._classes

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Return CLASS/FILE."""
        return self._names[index]

    def read(self, index: int) -> bytes:
        """Return the bytes of an image."""
        with open(self._files[index if len(self._files) > 1 else 0], "rb") as file:
            file.seek(int(self._offsets[index]))
            return file.read(int(self._lengths[index]))


def train_records(source: Path) -> Records:
    """Return the training images of the official tar of tars, one inner archive per class, or of a class folder tree.

    Raises:
        UserError: if ``source`` is neither.
    """
    if source.is_dir() and class_folders(source):
        return scan(source)
    outer = _open(source)
    offsets, lengths, names = [], [], []
    with outer:
        for member in outer:
            if not member.name.endswith(".tar"):
                raise UserError(f"{source}: {member.name} is no class archive; give ILSVRC2012_img_train.tar")
            wnid = Path(member.name).stem
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                for image in inner:
                    if image.isfile() and is_image(image.name):
                        names.append(f"{wnid}/{Path(image.name).name}")
                        offsets.append(member.offset_data + image.offset_data)
                        lengths.append(image.size)
    return ArchiveRecords([source], offsets, lengths, names, sorted({name.split("/")[0] for name in names}))


def val_records(source: Path, labels: dict[str, str], classes: list[str]) -> Records:
    """Return the validation images of the flat tar or folder, or of a class folder tree, which needs no labels.

    Raises:
        UserError: for an image without a label, a label without an image, or a class training lacks.
    """
    if source.is_dir() and class_folders(source):
        return scan(source, classes)
    files, offsets, lengths, found = [source], [], [], []
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if is_image(path.name))
        found = [path.name for path in files]
        offsets, lengths = [0] * len(files), [path.stat().st_size for path in files]
    else:
        with _open(source) as archive:
            for member in archive:
                if member.isfile() and is_image(member.name):
                    found.append(Path(member.name).name)
                    offsets.append(member.offset_data)
                    lengths.append(member.size)
    if not labels:
        raise UserError(f"{source} is flat: give --devkit or --labels, which name each image's class")
    for odd in sorted(set(found) ^ set(labels))[:1]:
        raise UserError(
            f"{odd} {'has no label' if odd in set(found) else f'is labelled but not in {source}'}"
        )
    unknown = sorted(set(labels.values()) - set(classes))
    if unknown:
        raise UserError(f"the labels name {unknown[0]}, which the training images lack")
    return ArchiveRecords(files, offsets, lengths, [f"{labels[name]}/{name}" for name in found], classes)


def _open(source: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(source, "r:")
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{source} is neither a folder of class folders nor an uncompressed tar ({error})"
        ) from error


def read_labels(file: Path) -> dict[str, str]:
    """Return image name -> WordNet id from lines ``NAME WNID`` (also with commas, as in Kaggle's file).

    Raises:
        UserError: for lines that say something else; class numbers are refused, since several orders are in use.
    """
    labels = {}
    for line in file.read_text().splitlines():
        words = line.replace(",", " ").split()
        if not words or words[:2] == ["ImageId", "PredictionString"]:
            continue
        if len(words) < 2 or not words[1].startswith("n"):
            raise UserError(
                f"{file}: '{line}' is not 'NAME WNID'; for class numbers give the development kit, --devkit"
            )
        name = words[0] if is_image(words[0]) else f"{words[0]}.JPEG"
        labels[name] = words[1]
    return labels


def read_devkit(archive: Path) -> dict[str, str]:
    """Return validation image name -> WordNet id from ILSVRC2012_devkit_t12.tar.gz."""
    from scipy.io import loadmat

    try:
        with tarfile.open(archive) as kit:
            parts: dict[str, Any] = {Path(m.name).name: kit.extractfile(m) for m in kit if m.isfile()}
            synsets = loadmat(parts["meta.mat"], squeeze_me=True)["synsets"]
            truth = parts["ILSVRC2012_validation_ground_truth.txt"].read().split()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise UserError(f"{archive} is not the development kit of ILSVRC2012 ({error})") from error
    # Inner nodes of the hierarchy have children; the 1,000 classes have none.
    wnid = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
    return {f"ILSVRC2012_val_{i + 1:08d}.JPEG": wnid[int(number)] for i, number in enumerate(truth)}


def write_tree(records: Records, out: Path, workers: int | None = None) -> None:
    """Write every image to ``out/CLASS/FILE``; files that are there with their size are kept."""
    for name in records.classes:
        (out / name).mkdir(parents=True, exist_ok=True)
    chunks = [range(at, min(at + CHUNK, len(records))) for at in range(0, len(records), CHUNK)]
    with progress(len(records), f"write {out.name}") as bar:
        for count in work(partial(_write_chunk, records, out), chunks, workers):
            bar.update(count)


def _write_chunk(records: Records, out: Path, ids: range) -> int:
    for index in ids:
        file = out / records.name(index)
        data = records.read(index)
        if file.exists() and file.stat().st_size == len(data):
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        temporary.write_bytes(data)
        os.replace(temporary, file)
    return len(ids)


def prepare_imagenet(args: argparse.Namespace) -> int:
    """Write the tree, or the pack, that ``args`` asks for."""
    train = train_records(args.train)
    labels = read_devkit(args.devkit) if args.devkit else read_labels(args.labels) if args.labels else {}
    val = val_records(args.val, labels, list(train.classes))
    print(f"{len(train):,} training and {len(val):,} validation images of {len(train.classes):,} classes")
    if args.pack:
        options = PackOptions(args.short_side, args.quality, args.resize_val)
        pack({"train": train, "val": val}, args.out, options, args.workers)
        print(f"train.py data=packed data.root={args.out}")
        return 0
    for split, records in (("train", train), ("val", val)):
        if isinstance(records, ImageTree) and records.root.resolve() == (args.out / split).resolve():
            continue
        write_tree(records, args.out / split, args.workers)
    print(f"train.py data=imagenet data.root={args.out}")
    return 0


def prepare_fake(args: argparse.Namespace) -> int:
    """Write made-up photographs."""
    from senet.data.fake import write_tree as write_fake

    write_fake(FakeConfig(root=str(args.out), num_classes=args.classes, train_per_class=args.per_class))
    print(f"train.py data=imagefolder data.root={args.out}")
    return 0


PREPARE: dict[str, Callable[[argparse.Namespace], int]] = {"imagenet": prepare_imagenet, "fake": prepare_fake}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``senet prepare``."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="imagenet|fake")
    imagenet = commands.add_parser("imagenet", help="ImageNet-1k from its archives or from folders")
    imagenet.add_argument("out", type=Path, help="where the images go")
    imagenet.add_argument(
        "--train", type=Path, required=True, help="ILSVRC2012_img_train.tar, or class folders"
    )
    imagenet.add_argument("--val", type=Path, required=True, help="ILSVRC2012_img_val.tar, or a folder")
    imagenet.add_argument(
        "--devkit", type=Path, help="ILSVRC2012_devkit_t12.tar.gz, for the validation labels"
    )
    imagenet.add_argument("--labels", type=Path, help="or a file of lines 'NAME WNID'")
    imagenet.add_argument("--pack", action="store_true", help="write a pack instead of a folder")
    add_pack_arguments(imagenet)
    fake = commands.add_parser("fake", help="made-up photographs")
    fake.add_argument("out", type=Path, help="where the images go")
    fake.add_argument("--classes", type=int, default=10)
    fake.add_argument("--per-class", type=int, default=50)


def run(args: argparse.Namespace) -> int:
    """Prepare what ``args.what`` names."""
    return PREPARE[args.what](args)
