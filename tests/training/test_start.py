"""What the command line answers by itself, it answers without the libraries that take seconds to import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "pytorch_lightning",
    "matplotlib",
    "scipy",
    "sklearn",
    "wandb",
}
SCRIPT = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "status", "words"),
    [
        ("train.py --help", 0, "model"),
        ("eval.py --help", 0, "which"),
        ("train.py modle=x", 2, 'there is no key modle; did you mean "model"?'),
        ("train.py trainer.max_epoch=3", 2, 'no key trainer.max_epoch; did you mean "trainer.max_epochs"?'),
        ("train.py model=se_resnet5", 2, "model=se_resnet5: there is no such choice; did you mean"),
        ("train.py model=resnet18 se.reduction=8", 2, "this network has no SE block"),
        ("eval.py wich=best", 2, 'there is no key wich; did you mean "which"?'),
        ("eval.py -m which=best,last", 2, "this program does one thing at a time"),
    ],
)
def test_an_answer_without_torch(typed: str, status: int, words: str, tmp_path: Path):
    script, *arguments = typed.split()
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / script), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=12000,
    )
    *said, imported = result.stderr.splitlines()
    assert result.returncode == status, result.stderr
    assert words in (result.stdout if status == 0 else "\n".join(said))
    assert status != 0 or [line for line in result.stdout.splitlines() if len(line) > 80] == []
    assert not HEAVY & set(imported.split())
    assert not list(tmp_path.iterdir())


STARTER = """
import runpy, sys
from senet.training import launch

def start_ranks(*job):
    print(*({"lightning_fabric", "torchvision", "scipy", "matplotlib", "torch._dynamo"} & sys.modules.keys()))
    return 1

launch.start_ranks = start_ranks
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_ranks_are_started_without_what_trains_them(tmp_path: Path):
    settings = ["trainer.devices=2", "trainer.accelerator=cpu", f"runs_dir={tmp_path}"]
    result = subprocess.run(
        [sys.executable, "-c", STARTER, str(ROOT / "train.py"), *settings],
        capture_output=True,
        text=True,
        timeout=12000,
    )
    assert result.stdout == "\n", result.stderr
