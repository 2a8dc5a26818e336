"""``senet prepare``: ImageNet from its official archives, or from folders, to an image folder or straight to a pack."""

import argparse
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from senet.data.files import Names, Records
from senet.data.files.folder import ImageTree, class_folders, is_hidden, is_image, scan
from senet.data.sets import FakeConfig
from senet.data.tools import work
from senet.data.tools.pack import PackOptions, add_pack_arguments, pack
from senet.errors import UserError
from senet.files import atomically

CHUNK = 256
KIT_BYTES = 2**26
"""More has no file of the development kit that is wanted."""


class ArchiveRecords(Records):
    """Images inside an uncompressed tar archive, or as flat files.

    Args:
        files: the archive, or one file per image.
        offsets: where each image begins in its file.
        lengths: bytes of each image.
        names: CLASS/FILE of each image.
        classes: sorted class names.

    Raises:
        UserError: for two images of one name, of which one would overwrite the other.
    """

    def __init__(
        self, files: list[Path], offsets: list[int], lengths: list[int], names: list[str], classes: list[str]
    ) -> None:
        order = sorted(range(len(names)), key=names.__getitem__)
        for one, other in pairwise(order):
            if names[one] == names[other]:
                raise UserError(f"{files[0]}: {names[one]!r} is there twice")
        self._files = files if len(files) == 1 else [files[i] for i in order]
        self._offsets = np.array(offsets, dtype=np.int64)[order]
        self._lengths = np.array(lengths, dtype=np.int64)[order]
        self.names, self.classes = Names.of(names[i] for i in order), classes
        index = {name: i for i, name in enumerate(classes)}
        self.labels = torch.tensor([index[names[i].split("/")[0]] for i in order], dtype=torch.int64)

    def read(self, index: int) -> bytes:
        with open(self._files[index if len(self._files) > 1 else 0], "rb") as file:
            file.seek(int(self._offsets[index]))
            return file.read(int(self._lengths[index]))


def train_records(source: Path) -> Records:
    """Return the training images of the official tar of tars, one inner archive per class, or of a class folder tree.

    A class has the name of its archive's file, wherever the archive says it lay.

    Raises:
        UserError: if ``source`` is neither, is damaged, or has a class whose name is no name of a folder.
    """
    if source.is_dir() and class_folders(source):
        return scan(source)
    offsets, lengths, names, classes = [], [], [], []
    with _open(source) as outer:
        for member in _members(outer):
            wnid = Path(member.name).name.removesuffix(".tar")
            if not member.isfile() or not member.name.endswith(".tar"):
                raise UserError(
                    f"{source}: {member.name!r} is no class archive; give ILSVRC2012_img_train.tar"
                )
            if not wnid or is_hidden(wnid):
                raise UserError(f"{source}: {member.name!r} gives a class no name")
            with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                found = list(_images(inner))
            if not found:
                raise UserError(f"{source}: {member.name!r} holds no image")
            classes.append(wnid)
            names += [f"{wnid}/{Path(image.name).name}" for image in found]
            offsets += [member.offset_data + image.offset_data for image in found]
            lengths += [image.size for image in found]
    return ArchiveRecords([source], offsets, lengths, names, sorted(set(classes)))


def val_records(source: Path, labels: dict[str, str], classes: list[str]) -> Records:
    """Return the validation images of the flat tar or folder, or of a class folder tree, which needs no labels.

    Raises:
        UserError: for an image without a label, a label without an image, or a class training lacks.
    """
    if source.is_dir() and class_folders(source):
        return scan(source, classes)
    files = [source]
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if is_image(path.name) and path.is_file())
        found = [path.name for path in files]
        offsets, lengths = [0] * len(files), [path.stat().st_size for path in files]
    else:
        with _open(source) as archive:
            members = list(_images(archive))
        found = [Path(member.name).name for member in members]
        offsets, lengths = [m.offset_data for m in members], [m.size for m in members]
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


@contextmanager
def _open(source: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive; what is wrong with it, also further on, is one line."""
    try:
        archive = tarfile.open(source, "r:")  # noqa: SIM115
    except (OSError, tarfile.TarError) as error:
        raise UserError(
            f"{source} is neither a folder of class folders nor an uncompressed tar ({error})"
        ) from error
    with archive:
        try:
            yield archive
        except UserError:
            raise
        except (OSError, ValueError, tarfile.TarError) as error:
            raise UserError(f"{source} is damaged ({error}): download it anew") from error


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive; TarError if it is damaged: tarfile itself takes a broken header for the end."""
    for member in archive:
        if member.size < 0 or member.sparse is not None or "\0" in member.name:
            raise tarfile.ReadError(f"{member.name!r} is no plain file")
        yield member
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end at byte {archive.offset:,}")


def _images(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in _members(archive):
        if member.isfile() and is_image(member.name) and not is_hidden(Path(member.name).name):
            yield member


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
            parts: dict[str, Any] = {
                Path(m.name).name: kit.extractfile(m) for m in kit if m.isfile() and m.size < KIT_BYTES
            }
            synsets = loadmat(parts["meta.mat"], squeeze_me=True)["synsets"]
            truth = parts["ILSVRC2012_validation_ground_truth.txt"].read().split()
        # Inner nodes of the hierarchy have children; the 1,000 classes have none.
        wnid = {int(s["ILSVRC2012_ID"]): str(s["WNID"]) for s in synsets if int(s["num_children"]) == 0}
        return {f"ILSVRC2012_val_{i + 1:08d}.JPEG": wnid[int(number)] for i, number in enumerate(truth)}
    except Exception as error:  # scipy has many for a file that is not what it reads
        raise UserError(f"{archive} is not the development kit of ILSVRC2012 ({error})") from error


def write_tree(records: Records, out: Path, workers: int | None = None) -> None:
    """Write every image to ``out/CLASS/FILE``; files that are there with their size are kept."""
    for name in records.classes:
        (out / name).mkdir(parents=True, exist_ok=True)
    chunks = [range(at, min(at + CHUNK, len(records))) for at in range(0, len(records), CHUNK)]
    write = partial(_write_chunk, records, out)
    for _ in work(write, chunks, f"write {out.name}", workers, 1, len(records), int):
        pass


def _write_chunk(records: Records, out: Path, ids: range) -> int:
    for index in ids:
        file = out / records.name(index)
        data = records.read(index)
        if file.exists() and file.stat().st_size == len(data):
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomically(file) as temporary:
            temporary.write_bytes(data)
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
    if min(args.classes, args.per_class) < 1:
        raise UserError(f"--classes {args.classes} and --per-class {args.per_class} must be 1 or more")
    fake = FakeConfig(root=str(args.out), num_classes=args.classes, train_per_class=args.per_class)
    fake.write()
    print(f"train.py data=imagefolder data.root={args.out}")
    return 0


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
    return prepare_fake(args) if args.what == "fake" else prepare_imagenet(args)
