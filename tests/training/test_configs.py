"""Every YAML file and every network is composed and trained for one step."""

from pathlib import Path

import pytest
import torch

from senet import model_names
from senet.data.folder import scan
from senet.data.pack import PackOptions, pack
from senet.models import create_model

CONFIGS = Path(__file__).parents[2] / "configs"
ONE = ("debug=one_batch", "data.batch_size=2", "data.eval_batch_size=2")


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def small(root: Path, size: int = 64) -> tuple[str, ...]:
    return (f"data.root={root}", f"data.preprocessing.size={size}", f"data.preprocessing.resize={size + 8}")


def test_every_group_is_covered():
    covered = {"data", "debug", "experiment", "logger", "optimizer", "recipe", "schedule", "se", "trainer"}
    covered |= {"ablation", "search", "launcher"}  # test_study.py, test_search.py, test_executors.py
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == covered


@pytest.mark.parametrize("name", choices("data"))
def test_data(name: str, train, image_tree: Path, tmp_path: Path):
    if name == "packed":
        splits = {split: scan(image_tree / split) for split in ("train", "val")}
        pack(splits, tmp_path / "pack", PackOptions(), workers=1)
    fake = ("data.train_per_class=4", "data.val_per_class=1", "data.num_classes=2")
    where = {
        "packed": small(tmp_path / "pack"),
        "imagenet_fake": (*small(tmp_path / "fake"), *fake),
        "imagefolder": small(image_tree),
        "imagenet": small(image_tree),
        "cifar10": (f"data.root={image_tree}",),
        "cifar100": (f"data.root={image_tree}",),
    }
    train(f"data={name}", *where.get(name, ()), *ONE)


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={name}"
        for group in ("optimizer", "schedule", "se", "trainer", "logger")
        for name in choices(group)
    ],
)
def test_small_groups(choice: str, train):
    extra = ("logger.wandb.offline=true",) if "wandb" in choice else ()
    run = train(choice, *extra, *ONE)
    if "tensorboard" in choice:
        assert list((run / "tensorboard").glob("events*"))
    if "wandb" in choice:
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.parametrize("name", choices("recipe"))
def test_recipes(name: str, train, image_tree: Path):
    precision = ("trainer.precision=bf16-mixed",) if name == "rsb_a2" else ()
    train("data=imagefolder", *small(image_tree), f"recipe={name}", *precision, *ONE)


@pytest.mark.parametrize("name", choices("experiment"))
def test_experiments(name: str, train, image_tree: Path):
    sizes = small(image_tree) if name.startswith("imagenet") else (f"data.root={image_tree}",)
    train(f"experiment={name}", *sizes, *ONE)


@pytest.mark.parametrize("name", choices("debug"))
def test_debug(name: str, train):
    train("data=synthetic", "data.preprocessing.size=8", f"debug={name}", "data.batch_size=16")


@pytest.mark.parametrize("name", model_names())
def test_every_network_trains_a_step(name: str, train):
    with torch.device("meta"):
        smallest = create_model(name).min_size
    size = max(8, smallest)
    train(f"model={name}", "data=synthetic", f"data.preprocessing.size={size}", "augment.pad=0", *ONE)


def test_trunk_of_timm(train):
    run = train("model=se_timm", "model.timm_name=test_resnet.r160_in1k", "data=synthetic", *ONE)
    assert "SE r=16" in (run / "log.txt").read_text()


def test_every_file_says_what_it_is():
    for path in CONFIGS.rglob("*.yaml"):
        lines = path.read_text().splitlines()
        head = [line for line in lines[:3] if line.startswith("# ") and not line.startswith("# @")]
        assert head or path.parent.name in ("optimizer", "schedule"), path
    for path in (CONFIGS / "recipe").glob("*.yaml"):
        text = path.read_text()
        assert all(f"# {word}" in text or f"#{word}" in text for word in ("Source:", "Expected:")), path
        assert "Command:" in text, path
        assert "Cost:" in text, path
