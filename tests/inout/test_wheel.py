"""The wheel alone, away from the checkout: trains, evaluates, predicts."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built as ``uv build`` builds it, without the network where hatchling is installed."""
    out = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv")
    command = [uv] if uv else [sys.executable, "-m", "uv"]
    built = subprocess.run(
        [*command, "build", "--wheel", "-o", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    if built.returncode:
        pytest.skip(f"uv cannot build here: {built.stderr.strip().splitlines()[-1:]}")
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_all_that_is_needed(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"senet/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    data = {
        f"senet/{path.relative_to(ROOT / 'senet')}"
        for path in (ROOT / "senet").rglob("*.*")
        if path.is_file()
    }
    assert configs <= names
    assert {name for name in data if "__pycache__" not in name} <= names
    assert "senet/py.typed" in names


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_train_evaluate_and_predict_from_the_wheel(wheel: Path, image_tree: Path, tmp_path: Path):
    """Installed by itself into a fresh environment, whose other packages are this one's."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True, timeout=1200
    )
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    zipfile.ZipFile(wheel).extractall(site)
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (site / "senet.pth").unlink(missing_ok=True)
    work = tmp_path / "work"
    (work / "mine" / "experiment").mkdir(parents=True)
    (work / "mine" / "experiment" / "own.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults:\n  - override /data: imagefolder\n"
        "data: {preprocessing: {size: 32, resize: 36}, batch_size: 4, workers: 0}\ntrainer: {max_epochs: 1}\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def senet(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "env" / "bin" / "python"), "-m", "senet", *words]
        return subprocess.run(
            command, cwd=work, env=environment, capture_output=True, text=True, timeout=1200
        )

    where = subprocess.run(
        [str(tmp_path / "env" / "bin" / "python"), "-c", "import senet; print(senet.__file__)"],
        cwd=work, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert where.startswith(str(site)), where
    trained = senet("train", "--config-dir", "mine", "experiment=own", f"data.root={image_tree}")
    assert trained.returncode == 0, trained.stderr
    assert senet("eval", "run=runs/latest").returncode == 0
    predicted = senet("predict", "runs/latest", str(image_tree / "val"), "--workers", "0")
    assert len(predicted.stdout.splitlines()) == 6, predicted.stderr
    refused = senet("train", "modle=x")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "clone it" in senet("bench").stderr
