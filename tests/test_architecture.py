"""The layout's promises: which package may import which, and that nothing heavy is imported early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "senet"
MAY_IMPORT = {
    "kernels": {"kernels"},
    "nn": {"kernels", "nn"},
    "models": {"kernels", "nn", "models"},
    "weights": {"kernels", "nn", "models", "weights"},
    "data": {"data"},
    "analysis": {"kernels", "nn", "models", "weights", "data", "analysis"},
    "training": {"kernels", "nn", "models", "weights", "data", "analysis", "training"},
}
ONLY_IN = {
    "hydra": {"training"},
    "wandb": {"training"},
    "pytorch_lightning": {"training", "data"},
    "optuna": {"training"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path):
    package = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "senet" and len(parts) > 1 and package in MAY_IMPORT and parts[1] in MAY_IMPORT:
            assert parts[1] in MAY_IMPORT[package], f"{path} imports {name}"
        if parts[0] in ONLY_IN:
            assert package in ONLY_IN[parts[0]], f"{path} imports {name}"


def test_test_files_have_names_of_their_own():
    """Without packages, pytest imports each test file by its bare name."""
    names = [p.name for p in (ROOT / "tests").rglob("*.py") if p.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_no_grab_bag():
    assert not [p for p in PACKAGE.rglob("*.py") if p.stem in ("utils", "helpers", "misc", "common")]


def test_configuration_is_read_without_the_heavy_libraries():
    """A mistake on the command line is answered before Lightning, timm and torchvision are imported."""
    code = (
        "import sys, senet.training.entry; "
        "print([m for m in ('pytorch_lightning', 'timm', 'torchvision', 'sklearn', 'wandb') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert result.stdout.strip() == "[]", result.stderr
