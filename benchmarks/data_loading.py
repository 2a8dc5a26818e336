"""How fast do images come: ours, torchvision's reference transforms on Pillow, timm's ``create_transform``?

Every variant delivers the same: batches of 64 random resized crops (224 px, bilinear, flipped) or of centre crops,
as normalised float32 tensors. Rounds of all variants are interleaved; a ratio is the median of the per-round
ratios to torchvision's. "decode alone" reads and decodes and does nothing else: no pipeline on full decodes is faster.
"threads" are as many threads of one process as the others have worker processes, on the same data set.

python benchmarks/data_loading.py IMAGES [--cifar DIR] [--rounds 5] [--workers 0 2] [--out DIR]
IMAGES: a tar or a folder of JPEGs, any layout; or ``--made-up N``, so many noisy pictures of 500 x 375 pixels. DIR: an
image folder with train/ of 32-pixel images.
"""

import argparse
import os
import platform
import statistics
import tarfile
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm.data
import torch
import torchvision.transforms as tv
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from senet.data import AugmentConfig, FolderConfig, PackedConfig, Preprocessing
from senet.data.files import Records
from senet.data.files.decoders import Decoder, build_decoder, decode_reference
from senet.data.files.folder import ImageTree, scan
from senet.data.inputs import NUMBERS, InputStep
from senet.data.loader import PREFETCH
from senet.data.module import ImageData
from senet.data.tools.fake import picture
from senet.data.tools.pack import PackOptions, pack
from senet.files import write_json
from senet.integrations.fast_jpeg import (
    decode_region,
    decode_torchcodec,
    region_available,
    torchcodec_available,
)
from senet.training.environment import keep_freed_memory

BATCH = 64
COPIES = 4
"""An epoch of 300 images would be over before two workers have filled their queues."""
PRE = Preprocessing()
NORMALISE = [tv.PILToTensor(), tv.ConvertImageDtype(torch.float), tv.Normalize(PRE.mean, PRE.std)]
TRAIN = {
    "torchvision reference, Pillow": tv.Compose(
        [tv.RandomResizedCrop(224), tv.RandomHorizontalFlip(), *NORMALISE]
    ),
    "timm create_transform, no jitter": timm.data.create_transform(
        224, is_training=True, color_jitter=None, interpolation="bilinear", mean=PRE.mean, std=PRE.std
    ),
}
VAL = {
    "torchvision reference, Pillow": tv.Compose([tv.Resize(256), tv.CenterCrop(224), *NORMALISE]),
    "timm create_transform": timm.data.create_transform(
        224, interpolation="bilinear", crop_pct=224 / 256, mean=PRE.mean, std=PRE.std
    ),
}
DECODERS = {"Pillow": decode_reference}
if torchcodec_available():
    DECODERS["torchcodec"] = decode_torchcodec
if region_available():
    DECODERS["nvImageCodec for crops"] = decode_region
Variant = Callable[[], int]
HEADER = "| group | variant | images/s | ratio | n |\n|---|---|---|---|---|"
LINE = "| {group} | {variant} | {images_per_second:,.0f} | {ratio:.2f} | {n} |"


def unpack(source: Path, root: Path) -> Path:
    """Lay the images out as root/{train,val}/a/*.JPEG, links to one set of files, each ``COPIES`` times."""
    files = root / "train" / "a"
    files.mkdir(parents=True)
    if source.is_dir():
        for path in source.rglob("*.[jJ][pP]*"):
            os.symlink(path.resolve(), files / path.name)
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                if member.isfile():
                    (files / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    for path in list(files.iterdir()):
        for copy in range(1, COPIES):
            (files / f"{copy}_{path.name}").symlink_to(path.resolve())
    (root / "val").symlink_to(root / "train", target_is_directory=True)
    return root


def make_up(count: int, folder: Path) -> Path:
    """Write ``count`` JPEGs of the size that photographs of ImageNet have most often; return their folder."""
    folder.mkdir()
    for index in range(count):
        picture(index % 10, index, 375, 500).save(folder / f"{index}.JPEG", quality=90)
    return folder


def count(batches: Iterable[Any]) -> int:
    """Consume batches; return the number of images."""
    return sum(len(batch[0]) for batch in batches)


def theirs(root: Path, transform: Any, workers: int) -> Variant:
    """An ImageFolder with a Compose, as the reference scripts load it."""
    options = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
    loader = DataLoader(ImageFolder(root, transform), BATCH, shuffle=True, num_workers=workers, **options)
    return lambda: count(loader)


def ours(config: Any, train: bool, decoder: Decoder | None = None) -> Variant:
    """Our loader and the normalisation that the device does; ``decoder`` overrides the configuration's."""
    data = ImageData(config, AugmentConfig(), 0)
    step = InputStep(data.preprocessing, data.augment)
    loader = data.train_dataloader() if train else data.val_dataloader()
    if decoder is not None:
        loader.dataset.decoder = decoder

    def run() -> int:
        if train:
            loader.set_epoch(loader.epoch + 1)
        return count((step(batch.images, batch.numbers),) for batch in loader)

    return run


def threads(config: Any, train: bool, workers: int) -> Variant:
    """Our data set called from threads, batches ahead as with processes.

    For its speed only: the threads share one random generator, so the crops are not those of the seed.
    """
    data = ImageData(config, AugmentConfig(), 0)
    step = InputStep(data.preprocessing, data.augment)
    loader = data.train_dataloader() if train else data.val_dataloader()
    pool = ThreadPoolExecutor(workers)

    def batches() -> Iterable[tuple[torch.Tensor]]:
        ahead: deque[Future] = deque()
        for epoch, ids, draws in loader.selections():
            ahead.append(pool.submit(loader.dataset.fetch, (epoch, ids.tolist(), draws.tolist())))
            if len(ahead) > PREFETCH * workers:
                yield finished(ahead.popleft())
        yield from map(finished, ahead)

    def finished(future: Future) -> tuple[torch.Tensor]:
        batch = future.result()
        numbers = torch.rand(len(batch.ids), NUMBERS) if train else None
        return (step(batch.images, numbers),)

    return lambda: count(batches())


def decode_only(records: Records) -> Variant:
    """Read and decode whole images, nothing else: the floor of what does not decode parts of them."""
    decoder = build_decoder("fast", "RGB")
    return lambda: sum(decoder(records.read(i)).numel() > 0 for i in range(len(records)))


def measure(variants: dict[str, Variant], rounds: int, group: str) -> list[dict[str, Any]]:
    """Run interleaved rounds; the first variant is the reference of the ratios."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            start = time.perf_counter()
            images = variant()
            if number:  # the first round starts workers and fills the page cache
                rates[name].append(images / (time.perf_counter() - start))
    reference = next(iter(rates.values()))
    rows = [
        {
            "group": group,
            "variant": name,
            "images_per_second": round(statistics.median(values), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(values, reference, strict=True)), 2),
            "n": rounds,
        }
        for name, values in rates.items()
    ]
    for row in rows:
        print(LINE.format(**row), flush=True)
    return rows


def photographs(root: Path, workers: int, rounds: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of the training and of the validation path on files and packs."""
    keys = {"batch_size": BATCH, "workers": workers}
    packs = {side: root / f"pack{side}" for side in (256, 320)}
    for side, out in packs.items():
        tree: ImageTree = scan(root / "train")
        pack({"train": tree, "val": tree}, out, PackOptions(side, resize_val=True))
    for train, transforms in ((True, TRAIN), (False, VAL)):
        path = root / "train"
        variants = {name: theirs(path, transform, workers) for name, transform in transforms.items()}
        config = FolderConfig(root=str(root), **keys)
        for name, decoder in DECODERS.items():
            variants[f"ours, {name}"] = ours(config, train, partial(decoder, colour="RGB"))
        for side, out in packs.items():
            variants[f"ours, packed {side} q90"] = ours(PackedConfig(root=str(out), **keys), train)
        if workers:
            variants[f"ours, {workers} threads instead of processes"] = threads(config, train, workers)
        else:
            variants["decode alone (floor), files"] = decode_only(scan(path))
            packed = ImageData(PackedConfig(root=str(packs[256]), **keys), AugmentConfig(), 0)
            variants["decode alone (floor), packed 256"] = decode_only(packed.val.records)
        yield measure(variants, rounds, f"{'training' if train else 'validation'}, {workers} workers")


def cifar(root: Path, rounds: int) -> list[dict[str, Any]]:
    """Small images: in memory with batch augmentation against an image folder with two workers."""
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
    transform = tv.Compose(
        [tv.RandomCrop(32, 4), tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize(mean, std)]
    )
    options = {"num_workers": 2, "persistent_workers": True}
    loader = DataLoader(ImageFolder(root / "train", transform), 128, shuffle=True, **options)
    pre = Preprocessing(size=32, resize=None, mean=mean, std=std)
    data = ImageData(
        FolderConfig(root=str(root), batch_size=512, preprocessing=pre), AugmentConfig(crop="pad"), 0
    )
    batches = data.train_dataloader()
    step = InputStep(pre, data.augment)

    def in_memory() -> int:
        batches.set_epoch(batches.epoch + 1)
        total = 0
        for batch in batches:
            total += len(step(batch.images, batch.numbers))
        return total

    return measure(
        {"ImageFolder, 2 workers": lambda: count(loader), "ours, in memory": in_memory}, rounds, "CIFAR-10"
    )


def main() -> None:
    """Measure, print a Markdown table, write JSON after every group of rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("images", type=Path, nargs="?")
    source.add_argument("--made-up", type=int, metavar="N", help="pictures, instead of IMAGES")
    parser.add_argument("--cifar", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--threads", type=int, default=1, help="torch threads of the main process")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as in a training run on a CPU; for everybody
    Image.init()
    print(HEADER, flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        images = args.images or make_up(args.made_up, Path(folder) / "made_up")
        root = unpack(images, Path(folder) / "tree")
        for workers in args.workers:
            for found in photographs(root, workers, args.rounds):
                rows += found
                save(rows, args.out, args.threads)
    if args.cifar:
        rows += cifar(args.cifar, args.rounds)
        save(rows, args.out, args.threads)


def save(rows: list[dict[str, Any]], out: Path, threads: int) -> None:
    """Write the JSON and the table of what there is so far."""
    packages = ["torch", "torchvision", "timm", "pillow"]
    packages += ["torchcodec"] if torchcodec_available() else []
    packages += ["nvidia-nvimgcodec-cu13"] if region_available() else []
    device = {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "load_at_end": round(os.getloadavg()[0], 2),
        "threads": threads,
        "packages": {name: version(name) for name in packages},
    }
    table = [HEADER, *(LINE.format(**row) for row in rows)]
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "data_loading.json", {"device": device, "rows": rows})
    (out / "data_loading.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
