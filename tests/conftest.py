"""Fixtures that every test may use."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from interpreting import interpret_triton
from PIL import Image

interpret_triton()
# torch.compile would try a program for each instruction set, in every process that compiles: minutes.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# Tests are tiny: threads that wait for each other make them slower, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(autouse=True)
def _our_lines_as_before() -> Iterator[None]:
    """What a command made of the console is not left to the tests after it."""
    log = logging.getLogger("senet")
    propagate, level, handlers = log.propagate, log.level, log.handlers[:]
    yield
    log.propagate, log.handlers[:] = propagate, handlers
    log.setLevel(level)


@pytest.fixture
def shared() -> Path:
    """The folder of reference data that lies beside some checkouts."""
    if not SHARED.is_dir():
        pytest.skip("no reference data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def image_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder train/ and val/ with two classes of small JPEGs: 8 and 3 images of each."""
    root = tmp_path_factory.mktemp("tree")
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 128, (40, 48, 3), dtype=np.uint8) + 100 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.jpg")
    return root


@pytest.fixture
def tree(image_tree: Path, tmp_path: Path) -> Path:
    """A copy of the image folder, of 8 x 8 pixels, to change."""
    root = tmp_path / "tree"
    for file in image_tree.rglob("*.jpg"):
        small = root / file.relative_to(image_tree)
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).resize((8, 8)).save(small)
    return root


@pytest.fixture
def compose() -> Iterator[Callable[..., dict]]:
    """Compose a configuration as train.py and eval.py do."""
    from hydra import compose as hydra_compose, initialize_config_dir

    from senet.training.entry import plain, register_models

    register_models()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield lambda *overrides, name="train": plain(hydra_compose(name, overrides=list(overrides)))


@pytest.fixture
def train(compose: Callable[..., dict], tmp_path: Path) -> Callable[..., Path]:
    """Train in this process as train.py would; return the run directory."""
    from senet.training.entry import new_run, resume_run
    from senet.training.jobs import run_job

    def run(*overrides: str, resume: Path | None = None, expect: int = 0) -> Path:
        if resume is None:
            values = compose(f"runs_dir={tmp_path}/runs", *overrides)
            values.pop("resume")
            directory, config = new_run(values, list(overrides))
        else:
            directory, config = resume_run(resume, list(overrides))
        status = run_job(directory, config)
        assert status == expect, directory.record().get("error")
        return directory.path

    return run


@pytest.fixture
def evaluate(compose: Callable[..., dict]) -> Callable[..., dict]:
    """Evaluate in this process as eval.py would; return evaluation.json."""
    import json

    from senet.training.entry import new_evaluation
    from senet.training.jobs import run_job

    def run(*overrides: str) -> dict:
        directory, config = new_evaluation(compose(*overrides, name="eval"), list(overrides))
        status = run_job(directory, config)
        assert status == 0, directory.record().get("error")
        return json.loads(directory.evaluation_file.read_text()) | {"directory": directory.path}

    return run


@pytest.fixture
def command() -> Callable[..., subprocess.CompletedProcess]:
    """Run a script of the repository in a process of its own, bounded in time."""

    def run(script: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=cwd or ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=12000,
        )

    return run


@pytest.fixture
def free_port() -> int:
    """A loopback port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
