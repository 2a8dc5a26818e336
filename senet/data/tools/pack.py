"""``senet pack``: write images into a few large files, resized if asked; parallel, resumable, verified."""

import argparse
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from senet.data.files import NOT_ARRAYS, Records, checksum, names_id
from senet.data.files.decoders import MAX_PIXELS, check_size, decode, open_image
from senet.data.files.packed import PACK_FILE, digest, shard_file
from senet.data.preprocessing import resize_short_side
from senet.data.sets import stored_images
from senet.data.tools import add_source, work
from senet.errors import UserError
from senet.files import atomically, write_json
from senet.terminal import fitted

SHARD_IMAGES = 2048


@dataclass(frozen=True)
class PackOptions:
    """How images are packed.

    Attributes:
        short_side: larger images are resized to this shorter side (bicubic, antialiased) and written as JPEG;
            smaller ones, and all of them with ``None``, keep their files byte for byte.
        quality: of the JPEGs written.
        resize_val: treat validation images alike; by default they keep their files, so that figures stay comparable.
    """

    short_side: int | None = None
    quality: int = 90
    resize_val: bool = False

    def __post_init__(self) -> None:
        if self.short_side is not None and self.short_side < 1:
            raise UserError(f"--short-side {self.short_side} must be 1 or more")
        if not 1 <= self.quality <= 95:
            raise UserError(f"--quality {self.quality} must be 1 to 95, Pillow's scale")


def repack(data: bytes, short_side: int | None, quality: int) -> bytes:
    """Return the bytes to store for one image; what cannot be decoded raises what Pillow raises."""
    with open_image(data) as image:
        check_size(image.width, image.height, MAX_PIXELS)
        if short_side is None or min(image.size) <= short_side:
            image.load()
            return data
        colour = "L" if image.mode == "L" else "RGB"
        pixels = resize_short_side(decode(image, colour), short_side, "bicubic")
    array = pixels[0] if colour == "L" else pixels.permute(1, 2, 0)
    stored = io.BytesIO()
    Image.fromarray(array.contiguous().numpy()).save(stored, "JPEG", quality=quality)
    return stored.getvalue()


def pack_split(
    records: Records, out: Path, short_side: int | None, quality: int, workers: int | None = None
) -> str:
    """Write one split's shards and index to ``out``; return a hash of all that was written.

    Shards that are there already are kept: a shard is renamed to its name when it is whole and was read back.

    Raises:
        UserError: naming an image that cannot be decoded.
    """
    out.mkdir(parents=True, exist_ok=True)
    shards = range(-(-len(records) // SHARD_IMAGES))
    write = partial(_write_shard, records, out, short_side, quality)
    done = work(write, shards, f"pack {out.name}", workers, 1, len(records), lambda part: len(part[0]))
    lengths, digests = zip(*done, strict=True)
    return _write_index(records, out, lengths, digests)


def _write_shard(
    records: Records, out: Path, short_side: int | None, quality: int, number: int
) -> tuple[np.ndarray, np.ndarray]:
    final, sums = shard_file(out, number), out / f"{number:05d}.npz"
    if final.exists() and sums.exists():
        # What a power cut left of the sums is written again, with its shard.
        with suppress(OSError, *NOT_ARRAYS), sums.open("rb") as file:
            kept = np.load(file, allow_pickle=False)
            return kept["lengths"], kept["digests"]
    stored: list[tuple[int, bytes]] = []
    with atomically(final) as temporary:
        with temporary.open("wb") as file:
            for index in range(number * SHARD_IMAGES, min(len(records), (number + 1) * SHARD_IMAGES)):
                try:
                    data = repack(records.read(index), short_side, quality)
                except Exception as error:
                    raise UserError(
                        f"{records.name(index)} cannot be decoded ({error}): `senet check` lists all such files; "
                        "mend or remove them, then run the same command again"
                    ) from error
                file.write(data)
                stored.append((len(data), digest(data)))
        with temporary.open("rb") as file:
            if any(digest(file.read(length)) != wanted for length, wanted in stored):
                raise OSError(f"{final} does not read back as it was written: is the disk full or failing?")
        lengths = np.array([length for length, _ in stored], dtype=np.int64)
        digests = np.array([list(wanted) for _, wanted in stored], dtype=np.uint8)
        with atomically(sums) as part, part.open("wb") as file:
            np.savez(file, lengths=lengths, digests=digests)
    return lengths, digests


def _write_index(
    records: Records, out: Path, lengths: Sequence[np.ndarray], digests: Sequence[np.ndarray]
) -> str:
    everything = np.concatenate(digests)
    with atomically(out / "index.npz") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            names_buffer=records.names.buffer,
            names_ends=records.names.ends,
            labels=records.labels.numpy(),
            shards=np.repeat(np.arange(len(lengths), dtype=np.int32), [len(part) for part in lengths]),
            offsets=np.concatenate([np.cumsum(part) - part for part in lengths]),
            lengths=np.concatenate(lengths),
            digests=everything,
        )
    for number in range(len(lengths)):
        (out / f"{number:05d}.npz").unlink()
    identity = names_id(records.names, records.labels).encode()
    return checksum(everything, identity)


def pack(splits: dict[str, Records], out: Path, options: PackOptions, workers: int | None = None) -> str:
    """Write a pack; return its id. An interrupted pack goes on where it stopped.

    Raises:
        UserError: for an image that cannot be decoded, or if ``out`` holds another pack.
    """
    plan = {
        "options": asdict(options),
        "sources": {split: names_id(records.names, records.labels) for split, records in splits.items()},
    }
    mark = out / PACK_FILE
    try:
        found = json.loads(mark.read_text()) if mark.exists() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("plan", plan) != plan or (found and "plan" not in found):
        raise UserError(
            f"{out} holds a pack of other images or other options, or none: choose another folder"
        )
    if "id" in found:
        return str(found["id"])
    out.mkdir(parents=True, exist_ok=True)
    if not found and any(out.iterdir()):
        raise UserError(f"{out} is not empty: choose another folder")
    write_json(mark, {"plan": plan})
    ids = {}
    for split, records in splits.items():
        side = options.short_side if split == "train" or options.resize_val else None
        ids[split] = pack_split(records, out / split, side, options.quality, workers)
    first = next(iter(splits.values()))
    info = {
        "plan": plan,
        "classes": first.classes,
        "splits": {split: len(records) for split, records in splits.items()},
        "id": f"content:{checksum(repr(sorted(ids.items())).encode())}",
    }
    write_json(mark, info)
    return str(info["id"])


def add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how images are packed."""
    parser.add_argument(
        "--short-side", type=int, metavar="PIXELS", help="resize larger images, e.g. to 256, 384 or 512"
    )
    parser.add_argument("--quality", type=int, default=90, help="of the JPEGs written (default 90)")
    parser.add_argument("--resize-val", action="store_true", help="resize validation images too")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``senet pack``."""
    add_source(parser)
    parser.add_argument("out", type=Path, help="where the pack goes")
    add_pack_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Pack ``args.source`` into ``args.out``."""
    source = stored_images(args.source, args.images)
    splits = {"train": source.records("train", None)}
    if not source.holds_out:
        splits["val"] = source.records("val", splits["train"].classes)
    options = PackOptions(args.short_side, args.quality, args.resize_val)
    identity = pack(splits, args.out, options, args.workers)
    counts = " and ".join(f"{len(records):,} {name}" for name, records in splits.items())
    print(fitted(f"{args.out}: {counts} images, {identity}", indent=2))
    print(f"train.py data=packed data.root={args.out}{' data.val_fraction=0.2' * source.holds_out}")
    return 0
