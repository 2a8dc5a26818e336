"""Every YAML file and every SE network is composed and trained for one step."""

import csv
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from senet import model_names
from senet.data.files.folder import scan
from senet.data.tools.pack import PackOptions, pack
from senet.models import create_model, is_se

CONFIGS = Path(__file__).parents[2] / "configs"
ONE = ("debug=one_batch", "data.batch_size=2", "data.eval_batch_size=2")


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def small(root: Path, size: int = 64) -> tuple[str, ...]:
    return (f"data.root={root}", f"data.preprocessing.size={size}", f"data.preprocessing.resize={size + 8}")


def labels_of(root: Path, folder: Path) -> Path:
    """Write the labels of an image folder as a spreadsheet would."""
    rows = [f"{p.relative_to(root)};{p.parent.name};{p.parts[-3]}" for p in sorted(root.rglob("*.jpg"))]
    file = folder / "labels.csv"
    file.write_text("\n".join(["Path;Label;Split", *rows]) + "\n", encoding="utf-8-sig")
    return file


def hub_folder(root: Path, folder: Path) -> Path:
    """Write an image folder as ``datasets`` keeps it on a disk."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )

    def split(name: str) -> object:
        files = sorted((root / name).rglob("*.jpg"))
        rows = {"image": list(map(str, files)), "label": [file.parent.name for file in files]}
        return datasets.Dataset.from_dict(rows, features)

    datasets.DatasetDict({"train": split("train"), "test": split("val")}).save_to_disk(str(folder))
    return folder


def test_every_group_is_covered():
    covered = {"data", "debug", "experiment", "logger", "optimizer", "recipe", "schedule", "se", "trainer"}
    covered |= {"ablation", "search", "launcher"}  # test_study.py, test_search.py, test_executors.py
    assert {path.name for path in CONFIGS.iterdir() if path.is_dir()} == covered


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in choices("data") if name != "imagenet_v2"]
)  # has no train split
def test_data(name: str, train, image_tree: Path, tmp_path: Path):
    if name == "packed":
        splits = {split: scan(image_tree / split) for split in ("train", "val")}
        pack(splits, tmp_path / "pack", PackOptions(), workers=1)
    fake = ("data.train_per_class=4", "data.val_per_class=1", "data.num_classes=2")
    where = {
        "packed": small(tmp_path / "pack"),
        "imagenet_fake": (*small(tmp_path / "fake"), *fake),
        "imagefolder": small(image_tree),
        "huggingface": (*small(image_tree)[1:], f"data.dataset={hub_folder(image_tree, tmp_path / 'hub')}"),
        "csv": (*small(image_tree), f"data.file={labels_of(image_tree, tmp_path)}"),
        "imagenet": small(image_tree),
        "places365": small(image_tree),
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
def test_small_groups(choice: str, train, capfd):
    extra = ("logger.wandb.offline=true",) if "wandb" in choice else ()
    if "mlflow" in choice:
        pytest.importorskip("mlflow")
    run = train(choice, *extra, *ONE)
    if "mlflow" in choice:
        with closing(sqlite3.connect(run / "mlflow.db")) as database:
            kept = dict(database.execute("select key, value from latest_metrics"))
            assert database.execute("select status from runs").fetchall() == [("FINISHED",)]
        rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
        assert kept["val/loss"] == pytest.approx(float(rows[-1]["val/loss"]), abs=1e-6)
    if "tensorboard" in choice:
        assert list((run / "tensorboard").glob("events*"))
    if "wandb" in choice:
        assert len(list((run / "wandb").glob("offline-run-*"))) == 1
        assert "wandb:" not in "".join(capfd.readouterr())  # nothing but our own lines


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("recipe"))
def test_recipes(name: str, train, image_tree: Path):
    precision = ("trainer.precision=bf16-mixed",) if name == "rsb_a2" else ()
    train("data=imagefolder", *small(image_tree), f"recipe={name}", *precision, *ONE)


@pytest.mark.parametrize("name", choices("experiment"))
def test_experiments(name: str, train, image_tree: Path):
    sizes = small(image_tree) if name.startswith("imagenet") else (f"data.root={image_tree}",)
    train(f"experiment={name}", *sizes, *ONE)


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("debug"))
def test_debug(name: str, train):
    train("data=synthetic", "data.preprocessing.size=8", f"debug={name}", "data.batch_size=16")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*filter(is_se, model_names())])  # one builder makes their plain twins
def test_every_se_network_trains_a_step(name: str, train):
    with torch.device("meta"):
        smallest = create_model(name).min_size
    size = max(
        32, smallest
    )  # with maps of one pixel and so few images BN makes infinite gradients in the deepest
    # The default recipe is for a net of 20 layers; the deepest diverge with its rate, which ends a run.
    small = "optimizer.lr=1e-4"
    train(f"model={name}", "data=synthetic", f"data.preprocessing.size={size}", "augment.pad=0", small, *ONE)


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
