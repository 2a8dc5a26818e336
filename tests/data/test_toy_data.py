"""A data set is a class and a YAML, both as docs/howto/dataset.md has them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from senet.data import AugmentConfig, sets
from senet.data.config import DATA_SETS
from senet.data.module import ImageData
from senet.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Path]:
    """The data set of docs/howto/dataset.md, declared as if it stood in ``sets``; returns the folder of its YAML."""
    paragraph = (ROOT / "docs/howto/dataset.md").read_text().partition("To add a data set")[2]
    code, keys = re.findall(r"```(?:python|yaml)\n(.*?)```", paragraph, re.DOTALL)[:2]
    exec(code, vars(sets).copy())
    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "toy.yaml").write_text(keys)
    yield tmp_path / "configs"
    del DATA_SETS["toy"]


def test_it_trains_and_is_evaluated(toy: Path, train, evaluate) -> None:
    run = train(f"hydra.searchpath=[file://{toy}]", "data=toy", "data.noise=60", "trainer.max_epochs=1")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"]["name"] == "toy"
    assert (summary["data"]["train_images"], summary["data"]["val_images"]) == (64, 16)
    assert evaluate(f"run={run}")["count"] == 16
    assert "toy/15,bright," in (run / "predictions" / "last_raw.csv").read_text()


def test_its_keys_are_checked_like_all_others(toy: Path, train) -> None:
    where = f"hydra.searchpath=[file://{toy}]"
    for wrong, message in (
        ("+data.nois=60", "no key data.nois; did you mean"),
        ("data.noise=some", "data.noise='some'"),
    ):
        with pytest.raises(UserError, match=message):
            train(where, "data=toy", wrong)


def test_both_splits_open_and_fit_the_preprocessing(toy: Path) -> None:
    config = sets.data_config({"name": "toy", "preprocessing": {"size": 6, "resize": None}})
    data = ImageData(config, AugmentConfig(crop="none"), 0)
    assert [tuple(batch.images.shape) for batch in data.val_dataloader()] == [(16, 3, 6, 6)]
    assert (data.train_size, data.classes, data.val.name_of(3)) == (64, ["dark", "bright"], "toy/3")
