"""A tree with 1,000 damaged files: does ``check`` find each, does training skip and list, or stop and name, them?

python benchmarks/damaged_data.py        exits with status 0 if everything is as it must be
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from PIL import Image

from senet.data import FakeConfig
from senet.data.tools.check import check
from senet.data.tools.fake import picture

ROOT = Path(__file__).parents[1]
UNREADABLE = {"zero-byte", "unreadable", "truncated"}


def damage(file: Path, kind: str, number: int) -> None:
    """Replace one file by a damaged one."""
    data = file.read_bytes()
    image = picture(number % 7, 10_000 + number, 40, 50)
    if kind == "zero-byte":
        file.write_bytes(b"")
    elif kind == "unreadable":
        file.write_bytes(b"not an image" + bytes([number % 256, number // 256]))
    elif kind == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif kind == "wrong-format":
        image.save(file, "PNG")
    elif kind == "cmyk":
        image.convert("CMYK").save(file, "JPEG")
    elif kind == "grey":
        image.convert("L").save(file, "JPEG")
    elif kind == "alpha":
        alpha = image.convert("RGBA")
        alpha.putalpha(100)
        alpha.save(file, "WEBP", lossless=True)
    elif kind == "exif-rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, "JPEG", exif=exif)


DOUBLED = "duplicate-across-splits"
KINDS = (
    "zero-byte",
    "unreadable",
    "truncated",
    "wrong-format",
    "cmyk",
    "grey",
    "alpha",
    "exif-rotated",
    DOUBLED,
)


def train(root: Path, runs: Path, policy: str) -> tuple[int, str, Path]:
    """Train one epoch of a small network; return status, error and run directory."""
    keys = ["model=se_resnet20", "data=imagefolder", f"data.root={root}", "data.in_memory=false"]
    keys += ["data.preprocessing={size: 32, resize: 36}", "data.batch_size=50", "data.workers=2"]
    keys += ["trainer.max_epochs=1", f"data.on_bad_image={policy}", f"runs_dir={runs}"]
    result = subprocess.run([sys.executable, "train.py", *keys], cwd=ROOT, capture_output=True, text=True)
    return result.returncode, result.stderr, runs / "latest"


def main() -> None:
    """Damage, check, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damaged", type=int, default=1000)
    count = parser.parse_args().damaged
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        FakeConfig(root=str(root), num_classes=10, train_per_class=count // 4, sides=(40, 60)).write()
        files = sorted((root / "train").rglob("*.JPEG"))
        validation = sorted((root / "val").rglob("*.JPEG"))
        made = defaultdict(set)
        for number, file in enumerate(random.Random(0).sample(files, count)):
            kind = KINDS[number % len(KINDS)]
            if kind == DOUBLED:
                twin = validation[number % len(validation)]
                file.write_bytes(twin.read_bytes())
                made[kind].add(f"val/{twin.relative_to(root / 'val')}")
            else:
                damage(file, kind, number)
            made[kind].add(f"train/{file.relative_to(root / 'train')}")
        problems = check(root, Path(folder) / "out")["problems"]
        made["wrong-format"] |= made["alpha"]  # a WebP named JPEG is both
        for kind in KINDS:
            assert set(problems[kind]) == made[kind], kind
        gone = set.union(*(made[kind] for kind in UNREADABLE))
        status, error, _ = train(root, Path(folder) / "fail", "fail")
        assert status == 2, error
        assert any(name.removeprefix("train/") in error for name in gone), error
        status, error, run = train(root, Path(folder) / "skip", "skip")
        assert status == 0, error
        rows = {row.split(",")[2] for row in (run / "skipped_images.csv").read_text().splitlines()}
        summary = json.loads((run / "summary.json").read_text())
        assert rows == {name.removeprefix("train/") for name in gone}
        assert summary["data"]["skipped_images"] == len(gone)
        assert summary["last"]["val/count"] == 100
    print(
        f"{count} damaged files found by kind; {len(gone)} unreadable ones skipped and listed, or the first named"
    )


if __name__ == "__main__":
    main()
