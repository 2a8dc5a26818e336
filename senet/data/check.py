"""``senet check``: decode every image once and report all that may go wrong with it, or quietly change a figure."""

import argparse
import csv
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from senet.data.check_report import html
from senet.data.folder import class_folders, find_split, is_image, list_images, walk_class
from senet.data.inspection import Finding, inspect
from senet.data.packed import PACK_FILE, LocalFolder, PackedRecords, pack_info
from senet.data.parallel import progress, work
from senet.data.records import names_id
from senet.errors import UserError

ERRORS = {
    "unreadable": "cannot be decoded",
    "truncated": "cut off",
    "zero-byte": "empty file",
    "duplicate-across-splits": "the same file in training and validation",
    "duplicate-across-classes": "the same file under two classes",
    "empty-class": "class folder without an image",
    "colliding-classes": "class names that differ in case only",
    "missing-in-val": "class of the training split without validation images",
    "missing-in-train": "class of the validation split without training images",
}
NOTES = {
    "wrong-format": "the extension names another format",
    "cmyk": "converted to RGB in reading",
    "grey": "repeated over three channels in reading",
    "alpha": "transparency is dropped in reading",
    "exif-rotated": "asks viewers to rotate it; training reads it as stored",
    "duplicate": "the same file twice in a class of a split",
    "not-an-image": "ignored: the extension is not an image's",
}


def check(root: Path, out: Path, workers: int | None = None) -> dict[str, Any]:
    """Check ``root/{train,val}``; write ``manifest.csv``, ``check.json`` and ``check.html`` to ``out``.

    Returns:
        The contents of ``check.json``: id, images, per split id and names, and the problems as kind -> list of paths.
    """
    findings: list[Finding] = []
    problems: dict[str, list[str]] = defaultdict(list)
    splits: dict[str, Any] = {}
    classes: dict[str, set[str]] = {}
    folders = [find_split(root, ("train",)), find_split(root, ("val", "test"))]
    for split in folders:
        found = _check_split(split, workers)
        findings += found
        splits[split.name] = {"id": manifest_id(found), "images": len(found), "names": _names(split)}
        classes[split.name] = _check_classes(split, problems)
    train, val = (classes[split.name] for split in folders)
    problems["missing-in-val"] += sorted(train - val)
    problems["missing-in-train"] += sorted(val - train)
    for finding in findings:
        for problem in finding.problems:
            problems[problem].append(finding.path)
    _check_duplicates(findings, problems)
    report = {
        "root": str(root),
        "id": manifest_id(findings),
        "images": len(findings),
        "bytes": sum(finding.size for finding in findings),
        "splits": splits,
        "modes": dict(Counter(finding.mode for finding in findings)),
        "problems": {kind: sorted(paths) for kind, paths in sorted(problems.items()) if paths},
    }
    out.mkdir(parents=True, exist_ok=True)
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(Finding._fields)
        writer.writerows((*finding[:-1], " ".join(finding.problems)) for finding in findings)
    (out / "check.json").write_text(json.dumps(report, indent=1))
    (out / "check.html").write_text(html(report, ERRORS, NOTES), encoding="utf-8", errors="replace")
    return report


def manifest_id(findings: Iterable[Finding]) -> str:
    """Return 16 hex digits that identify names and contents of all files."""
    total = hashlib.blake2b(digest_size=8)
    for line in sorted(f"{finding.path}\0{finding.hash}\n" for finding in findings):
        total.update(os.fsencode(line))
    return total.hexdigest()


def _names(split: Path) -> str:
    import torch

    listing = list_images(split)
    labels = torch.repeat_interleave(torch.arange(len(listing.counts)), listing.counts)
    return names_id(listing.names, labels)


def _check_split(split: Path, workers: int | None) -> list[Finding]:
    names = list_images(split).names
    found = []
    with progress(len(names), f"check {split.name}") as bar:
        look = partial(_inspect, str(split), names)
        for finding in work(look, range(len(names)), workers, chunk=32):
            found.append(finding)
            bar.update()
    return found


def _inspect(split: str, names: Any, index: int) -> Finding:
    name = names[index]
    return inspect(os.path.join(split, name), f"{os.path.basename(split)}/{name}")


def _check_classes(split: Path, problems: dict[str, list[str]]) -> set[str]:
    """Enter what is wrong with the class folders; return the names of those with images."""
    folded = defaultdict(list)
    filled = set()
    for name in class_folders(split):
        folded[name.casefold()].append(name)
        images = 0
        for folder, files in walk_class(split, name):
            images += sum(map(is_image, files))
            problems["not-an-image"] += [f"{split.name}/{folder}/{f}" for f in files if not is_image(f)]
        if images:
            filled.add(name)
        else:
            problems["empty-class"].append(f"{split.name}/{name}")
    problems["colliding-classes"] += [
        f"{split.name}/{name}" for same in folded.values() if len(same) > 1 for name in same
    ]
    return filled


def _check_duplicates(findings: list[Finding], problems: dict[str, list[str]]) -> None:
    same = defaultdict(list)
    for finding in findings:
        if finding.size:
            same[finding.hash].append(finding.path)
    for paths in same.values():
        if len(paths) < 2:
            continue
        parts = [path.split("/") for path in paths]
        if len({part[0] for part in parts}) > 1:
            problems["duplicate-across-splits"] += paths
        if len({part[1] for part in parts}) > 1:
            problems["duplicate-across-classes"] += paths
        if len({(part[0], part[1]) for part in parts}) < len(paths):
            problems["duplicate"] += paths


def check_pack(root: Path) -> int:
    """Compare every image of a pack with its hash; return how many differ."""
    damaged = 0
    for split in pack_info(LocalFolder(root))["splits"]:
        records = PackedRecords(root, split)
        bad = records.damaged()
        for index in bad[:20]:
            print(f"damaged    {split}/{records.name(index)}")
        print(f"{split}: {len(records) - len(bad):,} of {len(records):,} images are as they were packed")
        damaged += len(bad)
    return damaged


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``senet check``."""
    parser.add_argument("root", type=Path, help="folder with train/ and val/, or a pack")
    parser.add_argument("--out", type=Path, help="where the report goes (default: ROOT/.senet)")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Check ``args.root``; return 1 if there are errors."""
    if (args.root / PACK_FILE).is_file():
        return 1 if check_pack(args.root) else 0
    out = args.out or args.root / ".senet"
    try:
        report = check(args.root, out, args.workers)
    except PermissionError as error:
        raise UserError(f"{out} cannot be written: choose another place with --out") from error
    print(f"{report['images']:,} images, {report['bytes'] / 1e9:.2f} GB, manifest {report['id']}")
    for kind, paths in report["problems"].items():
        mark = "ERROR" if kind in ERRORS else "note"
        print(f"{mark:6}{len(paths):>8,}  {kind}: {(ERRORS | NOTES)[kind]}; e.g. {paths[0]}")
    print(f"written to {out}/check.html, check.json, manifest.csv")
    return 1 if report["problems"].keys() & ERRORS.keys() else 0
