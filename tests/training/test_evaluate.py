"""eval.py confirms what training measured, and refuses what would not be comparable."""

import json
from pathlib import Path

import pytest
import torch

from senet import UserError, create_model
from senet.rundir import RunDir
from senet.training.config import EvalConfig
from senet.training.entry import new_evaluation
from senet.training.evaluation import build_data
from senet.weights import read_checkpoint
from senet.weights.trained import of_checkpoint

FOLDER = ("data=imagefolder", "data.preprocessing.size=32", "data.preprocessing.resize=36", "data.batch_size=4",
          "trainer.max_epochs=2", "data.workers=0", "ema.decay=0.5")  # fmt: skip


@pytest.fixture
def run(train, image_tree: Path) -> Path:
    return train(*FOLDER, f"data.root={image_tree}")


@pytest.mark.slow
def test_identical_figures(run: Path, evaluate):
    summary = json.loads((run / "summary.json").read_text())
    for weights, prefix in (("raw", "val"), ("ema", "val_ema")):
        result = evaluate(f"run={run}", "which=last", f"weights={weights}")
        assert result["count"] == 6
        for key in ("top1", "top5", "loss"):
            assert result[key] == pytest.approx(summary["last"][f"{prefix}/{key}"], abs=1e-6)
        ours = (result["directory"] / "predictions" / f"eval_{weights}.csv").read_text().splitlines()
        theirs = (run / "predictions" / f"last_{weights}.csv").read_text().splitlines()
        assert [line.split(",")[:5] for line in ours] == [line.split(",")[:5] for line in theirs]
        assert (result["directory"] / "report.html").is_file()
    # Through a link, the record names the run all the same.
    assert evaluate(f"run={run.parent}/latest")["checkpoint"] == str(run / "checkpoints" / "best.ckpt")
    assert evaluate(f"ckpt={run}/checkpoints/best.ckpt")["top1"] == summary["best"]["val_ema/top1"]


@pytest.mark.slow
def test_precision_is_the_runs(train, evaluate):
    run = train("debug=one_batch", "trainer.limit_val_batches=1.0", "trainer.precision=bf16-mixed")
    summary = json.loads((run / "summary.json").read_text())
    assert evaluate(f"run={run}", "which=last")["loss"] == summary["last"]["val/loss"]
    assert (
        evaluate(f"run={run}", "which=last", "trainer.precision=32-true")["loss"]
        != summary["last"]["val/loss"]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "other",
    [
        "fast",
        pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
def test_decoders_give_the_same_top1(train, evaluate, tmp_path: Path, other: str):
    """A network trained on one decoder's pixels, evaluated on 1,000 photographs with both: within 0.1 points."""
    folder = (
        *("data=imagenet_fake", f"data.root={tmp_path}/fake", "data.num_classes=4", "data.sides=[64,96]"),
        *("data.train_per_class=40", "data.val_per_class=250", "data.workers=0"),
    )
    small = ("data.preprocessing.size=48", "data.preprocessing.resize=56", "data.in_memory=false")
    run = train(*folder, *small, "augment.crop=random_resized", "trainer.max_epochs=4", "data.batch_size=16")
    reference, found = (
        evaluate(f"run={run}", *folder, f"data.decoder={name}") for name in ("reference", other)
    )
    assert reference["count"] == found["count"] == 1000
    assert reference["top1"] > 40  # it has learnt to look
    assert found["top1"] == pytest.approx(reference["top1"], abs=0.1)
    assert found["loss"] == pytest.approx(reference["loss"], abs=1e-3 if other == "fast" else 1e-2)


@pytest.mark.slow
def test_preprocessing_is_the_checkpoints(run: Path, image_tree: Path, evaluate):
    other = ("data=imagefolder", f"data.root={image_tree}")  # whose own size is 224
    stored, overridden = evaluate(f"run={run}"), evaluate(f"run={run}", *other)
    assert overridden["preprocessing"] == stored["preprocessing"]
    assert overridden["loss"] == pytest.approx(stored["loss"])
    larger = evaluate(f"run={run}", "size=64")["preprocessing"]
    assert (larger["size"], larger["resize"]) == (64, 72)
    with pytest.raises(UserError, match="comes with the checkpoint; size= changes the crop"):
        evaluate(f"run={run}", *other, "data.preprocessing.size=8")
    with pytest.raises(UserError, match="no effect on an evaluation"):
        evaluate(f"run={run}", "trainer.max_epochs=2")


def test_the_stored_data_set_is_read_as_this_machine_likes(run: Path, compose):
    trained = of_checkpoint(read_checkpoint(run / "checkpoints" / "last.ckpt"))
    for asked, workers, batch in (((), 0, 4), (("workers=3", "batch_size=5"), 3, 5)):
        data, _ = build_data(EvalConfig.of(compose(f"run={run}", *asked, name="eval")), trained)
        assert (data.config.workers, data.config.batch_size) == (workers, batch)


@pytest.mark.slow
def test_checkpoints_hold_plain_values_only(run: Path):
    for path in (run / "checkpoints").iterdir():
        record = torch.load(path, weights_only=True)["senet"]
        assert json.loads(json.dumps(record)) == record
        assert record["se_widths"]["SE_2_1"] == [16, 1]
        assert record["classes"] == ["cat", "dog"]
        network = read_checkpoint(path).network("raw")
        assert network.record["se"]["reduction"] == 16


def test_refusals(run: Path, image_tree: Path, tmp_path: Path, compose, monkeypatch):
    def check(*overrides: str) -> None:
        new_evaluation(compose(*overrides, name="eval"), [])

    with pytest.raises(UserError, match="one of them"):
        check()
    with pytest.raises(UserError, match="there is no such checkpoint"):
        check("ckpt=/nonexistent.ckpt")
    with pytest.raises(UserError, match=r"weights=\"emma\" is none of auto, raw, ema"):
        check(f"run={run}", "weights=emma")
    with pytest.raises(UserError, match="say on which images"):
        check("weights=timm:resnet18")
    with pytest.raises(UserError, match="no image to evaluate"):
        check(f"run={run}", "trainer.limit_val_batches=0")
    with pytest.raises(UserError, match='did you mean "best"'):
        check(f"run={run}", "which=bst")
    other = tmp_path / "other.ckpt"
    torch.save({"weights": torch.zeros(1)}, other)
    with pytest.raises(UserError, match="not written by senet"):
        read_checkpoint(other)
    other.write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(other)
    digits = compose(f"run={run}", "data=digits", name="eval")
    with pytest.raises(UserError, match=r"colour must be RGB|other classes"):
        build_data(EvalConfig.of(digits), of_checkpoint(read_checkpoint(run / "checkpoints" / "last.ckpt")))


@pytest.mark.slow
def test_weights_without_an_average(train):
    run = train("debug=one_batch")
    with pytest.raises(UserError, match="no averaged weights"):
        read_checkpoint(RunDir(run).checkpoints / "last.ckpt").network("ema")


def test_rebuilt_network_gives_the_same_logits(run: Path):
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    network = checkpoint.network("raw")
    again = create_model("se_resnet20", num_classes=2).eval()
    again.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(x), again(x))
