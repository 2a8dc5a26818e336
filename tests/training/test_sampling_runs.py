"""What an epoch is made of, through whole runs."""

import json
from pathlib import Path

import pytest

KEYS = ("data=digits", "trainer.max_epochs=1", "data.batch_size=16", "data.eval_batch_size=360")


def summary(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "train_images", "val_images"),
    [
        (("data.sampling.fraction=0.1",), 144, 360),
        (("data.sampling.per_class=8", "data.sampling.draw=class_balanced"), 80, 360),
        (("data.sampling.folds=5", "data.sampling.fold=1", "data.sampling.fraction=0.1"), 115, 287),
        (("data.sampling.per_class=8", "data.sampling.repeats=2"), 80, 360),
    ],
)
def test_sizes(train, keys: tuple[str, ...], train_images: int, val_images: int) -> None:
    data = summary(train(*KEYS, *keys))["data"]
    assert abs(data["train_images"] - train_images) <= 5  # rounding within ten classes
    assert abs(data["val_images"] - val_images) <= 5


@pytest.mark.slow
def test_progressive_sizes_reach_the_network(train, image_tree: Path) -> None:
    run = train(
        "data=imagefolder",
        "model=se_resnet20",
        f"data.root={image_tree}",
        "data.preprocessing={size: 32, resize: 36}",
        "data.in_memory=false",
        "data.batch_size=4",
        "data.workers=0",
        "trainer.max_epochs=2",
        "data.sampling.sizes=[[0,16],[1,24]]",
    )
    assert summary(run)["data"]["preprocessing"]["size"] == 32
