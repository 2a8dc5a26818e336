"""``senet check``: decode every image once and report all that may go wrong with it, or quietly change a figure."""

import argparse
import csv
import io
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from senet.data.config import SplitName
from senet.data.files import Records, checksum, names_id
from senet.data.files.decoders import decode_reference
from senet.data.files.folder import ImageTree, list_images, report_folder, walk_class
from senet.data.files.packed import PACK_FILE, Folder, PackedRecords, pack_info
from senet.data.sets import CsvConfig, stored_images
from senet.data.tools import add_source, work
from senet.data.tools.inspection import Finding, inspect
from senet.errors import UserError
from senet.files import write_json, write_text
from senet.page import render, thumbnail
from senet.table import Column, Table
from senet.terminal import fitted

ERRORS = {
    "unreadable": "cannot be decoded",
    "truncated": "cut off",
    "zero-byte": "empty file",
    "too-large": "more pixels than the limit of 100 million: not decoded",
    "unknown-range": "32-bit grey, range unknown: convert to 8 or 16 bits",
    "duplicate-across-splits": "the same file in training and validation",
    "duplicate-across-classes": "the same file under two classes",
    "empty-class": "class folder without an image",
    "colliding-classes": "class names that differ in case only",
    "missing-in-val": "training class without validation images",
    "missing-in-train": "validation class without training images",
}
NOTES = {
    "wrong-format": "the extension names another format",
    "cmyk": "converted to RGB in reading",
    "grey": "repeated over three channels in reading",
    "alpha": "transparency is dropped in reading",
    "animated": "only the first picture is read",
    "exif-rotated": "viewers rotate it; training reads it as stored",
    "duplicate": "the same file twice in a class of a split",
    "not-an-image": "left out: hidden, or named like no image",
}

SHOWN = 500
"""Paths of one kind of problem that the page lists."""
PICTURES = 12
"""Thumbnails of one kind."""
THUMBNAIL = 128
"""Side of a thumbnail, at most, in pixels."""
MANY = 30
"""Classes that are folded away."""


def check(source: Path, out: Path, workers: int | None = None, images: Path | None = None) -> dict[str, Any]:
    """Check the splits of ``source``; write ``manifest.csv``, ``check.json`` and ``check.html`` to ``out``.

    Returns:
        The contents of ``check.json``: id, images, per split id, names and listing, and the problems as kind -> list of
        paths.

    Raises:
        UserError: if there is nothing to check, or ``out`` cannot be written.
    """
    findings: list[Finding] = []
    places: list[tuple[str, str]] = []
    problems: dict[str, list[str]] = defaultdict(list)
    splits: dict[str, Any] = {}
    opened = _splits(source, images, problems)
    with suppress(OSError):
        out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):  # said before hours of decoding
        raise UserError(f"{out} cannot be written: choose another place with --out")
    for records in opened:
        look = partial(_inspect, records)
        found = list(work(look, range(len(records)), f"check {records.split}", workers, chunk=32))
        findings += found
        names, listing = names_id(records.names, records.labels), records.listing()
        splits[records.split] = {
            "id": manifest_id(found),
            "images": len(found),
            "names": names,
            "listing": listing,
        }
        places += [(records.split, records.classes[label]) for label in records.labels.tolist()]
        _check_names(records, problems)
    counts = Counter(places)
    if len(splits) == 2:
        train, val = ({name for of, name in counts if of == split} for split in splits)
        problems["missing-in-val"] += sorted(train - val)
        problems["missing-in-train"] += sorted(val - train)
    _check_files(findings, places, problems)
    report: dict[str, Any] = {
        "root": str(source),
        "id": manifest_id(findings),
        "images": len(findings),
        "bytes": sum(finding.size for finding in findings),
        "splits": splits,
        "modes": dict(Counter(finding.mode for finding in findings)),
        "problems": {kind: sorted(paths) for kind, paths in sorted(problems.items()) if paths},
    }
    write_text(out / "manifest.csv", _manifest(findings))
    write_json(out / "check.json", report)
    pictures = _pictures(opened, findings, report["problems"])
    described = describe(report, counts, findings, pictures)
    write_text(out / "check.html", described.encode(errors="replace").decode())
    return report


def _manifest(findings: Sequence[Finding]) -> str:
    """Return what was found in every file, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Finding._fields)
    writer.writerows((*finding[:-1], " ".join(finding.problems)) for finding in findings)
    return text.getvalue()


def manifest_id(findings: Iterable[Finding]) -> str:
    """Return 16 hex digits that identify names and contents of all files."""
    lines = sorted(f"{finding.path}\0{finding.hash}\n" for finding in findings)
    return checksum(*map(os.fsencode, lines))


def _splits(source: Path, images: Path | None, problems: dict[str, list[str]]) -> list[Records]:
    """Return the splits with whatever classes each has, and enter what is wrong with class folders."""
    config = stored_images(source, images)
    names: tuple[SplitName, ...] = ("train",) if config.holds_out else ("train", "val")
    if isinstance(config, CsvConfig):
        return [config.records(name, None) for name in names]
    found: list[Records] = []
    for folder in map(config.folder, names):
        listing = list_images(folder)
        if not listing.counts:
            raise UserError(f"{folder} has no class folders: images belong in {folder}/CLASS/")
        empty = [name for name, count in listing.counts.items() if not count]
        problems["empty-class"] += [f"{folder.name}/{name}" for name in empty]
        for part in (part for name in listing.counts for part in walk_class(folder, name)):
            others = [file for files in part.others.values() for file in files]
            problems["not-an-image"] += [f"{folder.name}/{part.path}/{file}" for file in others]
        found.append(ImageTree(folder, listing.names, listing.labels, list(listing.counts)))
    return found


def _inspect(records: Records, index: int) -> Finding:
    data = None
    with suppress(OSError):
        data = records.read(index)
    return inspect(data, f"{records.split}/{records.name(index)}")


def _check_names(records: Records, problems: dict[str, list[str]]) -> None:
    folded = defaultdict(list)
    for name in records.classes:
        folded[name.casefold()].append(f"{records.split}/{name}")
    problems["colliding-classes"] += [name for same in folded.values() if len(same) > 1 for name in same]


def _check_files(
    findings: list[Finding], places: list[tuple[str, str]], problems: dict[str, list[str]]
) -> None:
    """Enter what is wrong with a file, or that it is there twice; ``places`` are split and class of every finding."""
    same = defaultdict(list)
    for finding, place in zip(findings, places, strict=True):
        for problem in finding.problems:
            problems[problem].append(finding.path)
        if finding.size:
            same[finding.hash].append((finding.path, *place))
    for files in same.values():
        paths, splits, classes = zip(*files, strict=True)
        if len(set(splits)) > 1:
            problems["duplicate-across-splits"] += paths
        if len(set(classes)) > 1:
            problems["duplicate-across-classes"] += paths
        if len(set(zip(splits, classes, strict=True))) < len(paths):
            problems["duplicate"] += paths


# The page -------------------------------------------------------------------------------------------------


def _pictures(
    opened: Sequence[Records], findings: Iterable[Finding], problems: Mapping[str, Sequence[str]]
) -> dict[str, bytes]:
    """Return thumbnails of the first files of every problem, as far as they can be read, by path."""
    wanted = {path for paths in problems.values() for path in paths[:PICTURES]}
    places = ((records, index) for records in opened for index in range(len(records)))
    found = {}
    for (records, index), finding in zip(places, findings, strict=True):
        if finding.path in wanted and "too-large" not in finding.problems:
            # Many are wanted because they cannot be read.
            with suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = decode_reference(records.read(index), "RGB").permute(1, 2, 0)
                found[finding.path] = thumbnail(Image.fromarray(pixels.numpy()), THUMBNAIL)
    return found


def describe(
    report: Mapping[str, Any],
    counts: Mapping[tuple[str, str], int],
    findings: Sequence[Finding],
    pictures: Mapping[str, bytes],
) -> str:
    """Return what was found as a page.

    Args:
        report: the contents of ``check.json``.
        counts: images by split and class.
        findings: of every image.
        pictures: thumbnails by path.
    """
    errors = sum(len(paths) for kind, paths in report["problems"].items() if kind in ERRORS)
    facts = {name: f"{split['images']:,} images" for name, split in report["splits"].items()}
    facts |= {"classes": f"{len({name for _, name in counts}):,}", "size": f"{report['bytes'] / 1e6:,.1f} MB"}
    modes = Counter(report["modes"]).most_common()
    facts |= {"pixels": ", ".join(f"{mode} {n:,}" for mode, n in modes if mode)}
    facts |= {"manifest": report["id"], "folder": report["root"]}
    lead = f"{errors:,} errors" if errors else "no errors"
    return render(
        "check.html",
        title=f"Check of {os.path.basename(report['root'])}",
        lead=f"{lead}, {report['images']:,} images",
        facts=facts,
        problems=sorted(report["problems"].items(), key=lambda found: found[0] not in ERRORS),
        errors=ERRORS,
        words=ERRORS | NOTES,
        pictures=pictures,
        most_pictures=PICTURES,
        most_paths=SHOWN,
        classes=_class_table(counts, list(report["splits"])),
        many=MANY,
        **_sizes(findings),
    )


def _class_table(counts: Mapping[tuple[str, str], int], splits: Sequence[str]) -> Table[str]:
    most = max(counts.values(), default=1)

    def column(split: str) -> Column[str]:
        return Column(
            split,
            lambda name: f"{counts[split, name]:,}",
            share=lambda name: counts[split, name] / most,
            style=lambda name: "bar" if counts[split, name] else "bar bad",
        )

    columns = [Column[str]("class", str, words=True), *map(column, splits)]
    return Table(columns, sorted({name for _, name in counts}))


def _sizes(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return how many images have a shorter side within powers of two, and the extremes, for the page."""
    sides = sorted((min(f.width, f.height), f) for f in findings if f.width)
    if not sides:
        return {"sizes": None}
    bins = Counter(2 ** (side.bit_length() - 1) for side, _ in sides)
    most = max(bins.values())
    columns = [
        Column[int]("shorter side, px", lambda low: f"{low:,} to {2 * low - 1:,}", words=True),
        Column[int]("images", lambda low: f"{bins[low]:,}", share=lambda low: bins[low] / most),
    ]
    (_, least), (_, largest) = sides[0], sides[-1]
    words = [
        f"{name}: {f.width} x {f.height}, {f.path}" for name, f in (("smallest", least), ("largest", largest))
    ]
    return {"sizes": Table(columns, sorted(bins)), "extremes": words}


# Packs, and the command -----------------------------------------------------------------------------------


def check_pack(root: Path) -> int:
    """Compare every image of a pack with its hash; return how many differ."""
    damaged = 0
    for split in pack_info(Folder(root))["splits"]:
        records = PackedRecords(root, split)
        bad = records.damaged()
        for index in bad[:20]:
            print(f"damaged    {split}/{records.name(index)}")
        print(f"{split}: {len(records) - len(bad):,} of {len(records):,} images are as they were packed")
        damaged += len(bad)
    return damaged


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``senet check``."""
    add_source(parser, ", pack")
    parser.add_argument("--out", type=Path, help="where the report goes (default: .senet/ beside the images)")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Check ``args.source``; return 1 if there are errors."""
    if (args.source / PACK_FILE).is_file():
        return 1 if check_pack(args.source) else 0
    out = args.out or report_folder(args.source)
    report = check(args.source, out, args.workers, args.images)
    print(f"{report['images']:,} images, {report['bytes'] / 1e6:,.1f} MB, manifest {report['id']}")
    for kind, paths in report["problems"].items():
        mark = "ERROR" if kind in ERRORS else "note"
        problem = f"{mark:5}{len(paths):>6,}  {kind}: {(ERRORS | NOTES)[kind]}"
        print(fitted(f"{problem}\n{'':13}e.g. {paths[0]}", indent=13))
    print(fitted(f"written to {out}/check.html, check.json, manifest.csv", indent=11))
    return 1 if report["problems"].keys() & ERRORS.keys() else 0
