"""Starting from weights, with part of the network standing still."""

import json

import pytest
import torch

from senet.rundir import RunDir
from senet.weights import read_checkpoint

TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=96", "data.batch_size=16",
        "trainer.max_epochs=1", "augment.pad=1")  # fmt: skip


@pytest.mark.slow
def test_frozen_stages_stand_still_and_the_classifier_is_new(train):
    start = train(*TINY)
    run = train(*TINY, f"model.weights={start}/checkpoints/last.ckpt", "model.freeze=3", "data.num_classes=7",
                "optimizer.trunk_lr=0.1")  # fmt: skip
    before, after = (read_checkpoint(r / "checkpoints" / "last.ckpt").state_dict for r in (start, run))
    assert after["model.head.fc.weight"].shape == (7, 64)
    for key, value in before.items():
        frozen = key.startswith(("model.stem", "model.stages.2", "model.stages.3"))
        if frozen:  # running statistics too
            assert torch.equal(value, after[key]), key
        elif key.startswith("model.stages.4") and key.endswith("conv1.weight"):
            assert not torch.equal(value, after[key]), key
    assert "the classifier starts anew" in (run / "log.txt").read_text()


def test_the_rate_on_record_is_that_of_the_optimiser_and_not_the_trunks_share(train):
    run = train(*TINY, "optimizer.trunk_lr=0.1", "optimizer.lr=0.3", "optimizer.lr_batch=null", "schedule=step",
                "schedule.milestones=[0.99]", "schedule.warmup_epochs=0")  # fmt: skip
    assert [row["lr"] for row in RunDir(run).metrics()] == ["0.3"]


def test_weights_of_another_network_are_refused(train, compose):
    start = train(*TINY)
    run = train(*TINY, "se.reduction=4", f"model.weights={start}/checkpoints/last.ckpt", expect=2)
    assert "set se.reduction=16" in json.loads((run / "run.json").read_text())["error"]


def test_hub_weights_offline_are_one_line(train, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = train("model=se_resnet50", "model.weights=timm:legacy_seresnet50.in1k", "data=synthetic",
                "debug=one_batch", expect=2)  # fmt: skip
    error = json.loads((run / "run.json").read_text())["error"]
    assert "\n" not in error
    assert "timm:legacy_seresnet50.in1k" in error
