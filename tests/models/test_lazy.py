"""What is read of the zoo before anything is built needs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

import senet

ROOT = Path(__file__).parents[2]


def answer(code: str) -> str:
    """What ``code`` prints in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=1200
    ).stdout.strip()


def test_names_options_and_se_axes_are_known_without_torch() -> None:
    code = (
        "import sys, senet; from senet.models import is_se, model_names, plain_twin; "
        "from senet.models.families import model_options; from senet import SEConfig; SEConfig(); "
        "assert [model_options(name) for name in model_names() if is_se(name)]; "
        "print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    )
    assert answer(code) == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No senet attribute create_modle"):
        _ = senet.create_modle
