"""Every command and program of README.md and docs/ is run as it stands, or says why it is not."""

import csv
import glob
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
from blocks import Block, blocks, pages  # noqa: E402

Send = Callable[[list[str], Path], tuple[int, str]]
PAGES = {str(page.relative_to(ROOT)): page for page in pages() if blocks(page)}


@pytest.fixture(scope="session")
def send(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Send]:
    """Run the words of a command in a folder; return its exit status and what it said."""
    said = tmp_path_factory.mktemp("said") / "said.txt"
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    assert server.stdout.readline() == "ready\n"

    def run(words: list[str], folder: Path) -> tuple[int, str]:
        server.stdin.write(json.dumps([words, str(said), str(folder)]) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline()), said.read_text()

    with server:  # which closes its pipes
        yield run
        server.stdin.close()
        assert server.wait(60) == 0


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, send: Send) -> Path:
    """A folder with what the pages speak of: a trained run, photographs, labels in a file."""
    folder = tmp_path_factory.mktemp("workplace")
    generator = np.random.default_rng(0)
    places = [
        f"{top}/{name}" for top in ("flowers", "photos/train", "photos/val") for name in ("daisy", "tulip")
    ]
    for place in [*places, "new"]:
        (folder / place).mkdir(parents=True)
        for index in range(4):
            pixels = generator.integers(0, 255, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / place / f"{index}.jpg")
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = [(f"flowers/{name}/{i}.jpg", name) for name in ("daisy", "tulip") for i in range(4)]
        csv.writer(file).writerows([("path", "label"), *rows])
    status, said = send(["train", "debug=limits"], folder)
    assert status == 0, said
    return folder


def words_of(command: list[str], block: Block, folder: Path) -> list[str]:
    """Return the words that ``senet`` gets of a command, with the marked settings instead of its own."""
    words = command[4:] if command[:4] == ["python3", "-m", "uv", "run"] else command
    words = [{"train.py": "train", "eval.py": "eval"}.get(words[0], words[0]), *words[1:]]
    words = words[1:] if words[0] == "senet" else words
    assert command[0] in ("senet", "python3", "train.py", "eval.py"), f"nothing here runs {command[0]}"
    if words[0] == "train" and "--help" not in words:
        mine = {o.lstrip("+").partition("=")[0] for o in block.instead}
        words = [w for w in words if w.lstrip("+").partition("=")[0] not in mine] + block.instead
    return [found for word in words for found in sorted(glob.glob(word, root_dir=folder)) or [word]]


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_how_it_is_run(name: str):
    for block in blocks(PAGES[name]):
        reason = block.mark.partition(": ")[2]
        assert block.runs or (block.mark.startswith("not run") and reason), (
            f"{name}:{block.line}: put <!-- run --> or <!-- not run: why --> before this block; see docs/blocks.py"
        )
        for file in [word for word in reason.split() if word.startswith("tests/")]:
            assert (ROOT / file.rstrip(";,.")).is_file(), f"{name}:{block.line}: there is no {file}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if any(b.runs for b in blocks(page))])
def test_what_a_page_says_works(name: str, workplace: Path, tmp_path: Path, send: Send):
    folder = tmp_path / "place"
    shutil.copytree(workplace, folder, symlinks=True)
    run = [block for block in blocks(PAGES[name]) if block.runs]
    for block in run:
        for command in block.commands() if block.language == "bash" else ():
            if command[:4] == ["python3", "-m", "pip", "install"]:
                continue  # it is, or nothing would run here
            status, said = send(words_of(command, block, folder), folder)
            assert status == (2 if block.refused else 0), f"{name}:{block.line}: {command}\n{said}"
            assert "Traceback" not in said, f"{name}:{block.line}: {command}\n{said}"
    program = "\n".join(block.code for block in run if block.language == "python")
    status, said = send(["-c", program], folder)
    assert status == 0, f"{name}\n{said}"
