"""What docs/results says is what the runs kept in results/ give."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "results"
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("results")
    subprocess.run(
        [sys.executable, "results/rebuild.py", "--out", str(out)], cwd=ROOT, check=True, timeout=1200
    )
    return out


@pytest.mark.slow
def test_every_page_and_no_other(rebuilt: Path):
    assert sorted(file.name for file in rebuilt.iterdir()) == sorted(file.name for file in PAGES.iterdir())


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_numbers_and_sentences_byte_for_byte(page: Path, rebuilt: Path):
    assert (rebuilt / page.name).read_text() == page.read_text()


def test_the_readme_says_what_its_page_says():
    said = re.search(
        r"SE-ResNet-18 reaches ([\d.]+) % \(mean of five runs; its leaderboard: ([\d.]+) %\)", README
    )
    assert said
    page = (PAGES / "imagenette_record.md").read_text()
    assert f"{said[1]} % top-1 accuracy, mean of 5 runs" in page
    assert f"published: {said[2]} %" in page


@pytest.mark.parametrize("picture", sorted(PAGES.glob("*.png")), ids=lambda picture: picture.stem)
def test_pictures_but_for_the_versions_of_their_fonts(picture: Path, rebuilt: Path):
    ours, theirs = (np.asarray(Image.open(folder / picture.name), float) for folder in (PAGES, rebuilt))
    assert ours.shape == theirs.shape
    # matplotlib 3.9 sets the same words a little aside: up to 3.7 levels.
    older = tuple(map(int, version("matplotlib").split(".")[:2])) < (3, 11)
    assert np.abs(ours - theirs).mean() < (5 if older else 2)
