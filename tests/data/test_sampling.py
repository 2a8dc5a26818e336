"""What an epoch is made of: counts, subsets and folds against their definitions."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from senet.data import SamplingConfig
from senet.data.sampling import EpochOrder, EpochSizes, fold_parts, occurrences, read_weights, subset
from senet.errors import UserError

LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
IDS = torch.arange(100)


def draw(epoch: int = 0, **keys: object) -> list[int]:
    order = EpochOrder(SamplingConfig(**keys), IDS, LABELS, 0)
    ids, draws = order(epoch)
    assert len(ids) == len(order) == 100
    assert draws.equal(occurrences(ids))
    again, _ = order(epoch)
    assert again.equal(ids)  # a pure function
    return ids.tolist()


def test_shuffle_is_every_image_once() -> None:
    assert sorted(draw()) == IDS.tolist()


def test_class_balanced_draws_classes_equally_and_images_of_a_class_evenly() -> None:
    totals: Counter[int] = Counter()
    for epoch in range(30):
        ids = draw(epoch=epoch, draw="class_balanced")
        classes = Counter(LABELS[ids].tolist())
        assert max(classes.values()) - min(classes.values()) <= 1
        images = Counter(ids)
        assert {images[i] for i in range(90, 100)} <= {3, 4}  # 33 or 34 draws of 10 images
        assert all(images[i] <= 1 for i in range(60))
        totals += classes
    assert max(totals.values()) - min(totals.values()) < 30  # the remainder changes hands


def test_repeats_come_in_a_row() -> None:
    ids = draw(repeats=3)
    assert all(ids[i] == ids[i - i % 3] for i in range(100))
    assert len(set(ids)) == 34
    assert occurrences(torch.tensor(ids))[:7].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_weighted_draws_in_proportion() -> None:
    weights = torch.ones(100, dtype=torch.float64)
    weights[:60], weights[99] = 0.0, 41.0
    order = EpochOrder(SamplingConfig(draw="weighted", weights="file"), IDS, LABELS, 0, weights)
    ids = Counter(torch.cat([order(epoch)[0] for epoch in range(40)]).tolist())
    assert not any(i in ids for i in range(60))
    assert ids[99] / 4000 == pytest.approx(41 / 80, abs=0.04)


def test_weights_are_read_by_class_and_image(tmp_path: Path) -> None:
    file = tmp_path / "w.csv"
    file.write_text("dog,2\ncat/1.jpg,0.5\n")
    labels = torch.tensor([0, 0, 1])
    images = ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg"]
    assert read_weights(file, labels, ["cat", "dog"], images).tolist() == [1.0, 0.5, 2.0]
    file.write_text("cow,2\n")
    with pytest.raises(UserError, match="cow is neither"):
        read_weights(file, labels, ["cat", "dog"], images)
    file.write_text("dog;2\n")
    with pytest.raises(UserError, match="NAME,WEIGHT"):
        read_weights(file, labels, ["cat", "dog"], images)


def test_weights_are_read_as_spreadsheets_write_them_and_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = Path("~/weights.csv")
    file.expanduser().write_text("cät,2,seen twice as often\r\n\r\n", encoding="utf-8-sig")
    assert read_weights(file, torch.tensor([0, 1]), ["cät", "dog"], []).tolist() == [2.0, 1.0]
    file.expanduser().write_text("cat,2\ncat,3\n")
    with pytest.raises(UserError, match="cat is there twice; rows must be NAME,WEIGHT"):
        read_weights(file, torch.tensor([0, 1]), ["cat", "dog"], [])


@pytest.mark.parametrize("row", ["cat,inf", "cat,nan", "cat,-1", '"' + "x" * 200_000])
def test_weights_that_are_none_are_refused(tmp_path: Path, row: str) -> None:
    (tmp_path / "weights.csv").write_text(f"{row}\n")
    with pytest.raises(UserError, match=r"^data\.sampling\.weights="):
        read_weights(tmp_path / "weights.csv", torch.tensor([0, 1]), ["cat", "dog"], [])


def test_what_is_trained_on_has_a_weight() -> None:
    weights = (LABELS == 2).double()
    with pytest.raises(UserError, match="have a weight of 0"):
        EpochOrder(SamplingConfig(draw="weighted", weights="file"), IDS[:90], LABELS, 0, weights)


def test_subsets_are_stratified_nested_in_nothing_else_and_independent_of_the_run() -> None:
    part = subset(SamplingConfig(fraction=0.1), LABELS, IDS)
    assert Counter(LABELS[part].tolist()) == {0: 6, 1: 3, 2: 1}
    assert part.equal(subset(SamplingConfig(fraction=0.1), LABELS, IDS))
    assert not part.equal(subset(SamplingConfig(fraction=0.1, subset_seed=1), LABELS, IDS))
    assert Counter(LABELS[subset(SamplingConfig(per_class=4), LABELS, IDS)].tolist()) == {0: 4, 1: 4, 2: 4}
    with pytest.raises(UserError, match="class 2 has only 10"):
        subset(SamplingConfig(per_class=11), LABELS, IDS)


def test_folds_partition_every_class() -> None:
    held_out = []
    for fold in range(5):
        train, val = fold_parts(SamplingConfig(folds=5, fold=fold), LABELS)
        assert sorted([*train.tolist(), *val.tolist()]) == IDS.tolist()
        assert Counter(LABELS[val].tolist()) == {0: 12, 1: 6, 2: 2}
        held_out += val.tolist()
    assert sorted(held_out) == IDS.tolist()


def test_sizes_hold_from_their_epoch_on() -> None:
    sizes = EpochSizes(SamplingConfig(sizes=((2, 128), (5, 192))).sizes, 224)
    assert [sizes(epoch) for epoch in range(7)] == [224, 224, 128, 128, 128, 192, 192]
    assert sizes.largest == 224


@pytest.mark.parametrize(
    "keys",
    [
        {"repeats": 0},
        {"fraction": 0.5, "per_class": 3},
        {"fraction": 1.5},
        {"per_class": 0},
        {"folds": 1},
        {"folds": 3, "fold": 3},
        {"draw": "weighted"},
        {"weights": "file"},
        {"sizes": ((3, 128), (1, 64))},
    ],
)
def test_impossible_settings_are_refused(keys: dict) -> None:
    with pytest.raises(UserError, match=r"data\.sampling"):
        SamplingConfig(**keys)
