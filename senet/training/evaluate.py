"""An evaluation job: a checkpoint on the data it was made for, or on other data with the same preprocessing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from senet.data import AnyDataConfig, Preprocessing
from senet.data.module import ImageData
from senet.errors import UserError
from senet.models import Network
from senet.models.checkpoint import load_checkpoint, load_network
from senet.training import launch
from senet.training.config import AnyData, EvalConfig, validate
from senet.training.console import say
from senet.training.evaluation import EvaluationModule
from senet.training.rundir import RunDir, checkpoint_path, write_json
from senet.training.trainer import build_trainer


class _Evaluation(EvaluationModule):
    def __init__(self, network: Network, data: ImageData) -> None:
        super().__init__(data, channels_last=True)
        self.model = network.to(memory_format=torch.channels_last)

    def networks(self) -> dict[str, nn.Module]:
        return {"raw": self.model}


def build_data(config: EvalConfig, record: Mapping[str, Any]) -> ImageData:
    """Return the data to evaluate on, with the checkpoint's preprocessing and class names."""
    stored: AnyDataConfig | None = config.data
    if stored is None:
        stored = validate(AnyData, record["config"]["data"])
    if config.root is not None:
        if not hasattr(stored, "root"):
            raise UserError(f"root={config.root}: {stored.name} has no folder")
        stored = replace(stored, root=config.root)
    if config.batch_size is not None:
        stored = replace(stored, batch_size=config.batch_size, eval_batch_size=None)
    preprocessing = Preprocessing(**record["preprocessing"])
    if config.size is not None:
        preprocessing = preprocessing.at(config.size)
    data = ImageData(stored, None, 0, preprocessing=preprocessing, classes=record["classes"])
    if data.classes != record["classes"]:
        raise UserError(
            f"{stored.name} has other classes ({len(data.classes)}: {', '.join(data.classes[:3])}, ...) than the "
            f"checkpoint ({len(record['classes'])}: {', '.join(record['classes'][:3])}, ...)"
        )
    return data


def _settings(trainer: Mapping[str, Any], trained: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trainer's settings with the precision of the training run unless another was asked for."""
    precision = trainer.get("precision") or trained.get("precision") or "32-true"
    if precision.startswith("16") and launch.accelerator({**trainer, "precision": None}) == "cpu":
        say(f"precision   32-true: the run's own, {precision}, needs a GPU")
        precision = "32-true"
    return {**trainer, "precision": precision}


def evaluate(run: RunDir, values: Mapping[str, Any]) -> None:
    """Evaluate as ``values`` (an ``EvalConfig``) says; write ``evaluation.json`` and the predictions to ``run``."""
    config = validate(EvalConfig, values)
    path = checkpoint_path(config.run, config.ckpt, config.which)
    checkpoint = load_checkpoint(path)
    network, weights = load_network(checkpoint, config.weights)
    data = build_data(config, checkpoint["senet"])
    module = _Evaluation(network, data)
    settings = _settings(config.trainer, checkpoint["senet"]["config"]["trainer"])
    trainer = build_trainer(
        settings, run.path, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.validate(module, datamodule=data, verbose=False)
    if not trainer.is_global_zero:
        return
    figures = {key.removeprefix("val/"): value for key, value in module.results.items()}
    figures["count"] = int(figures["count"])
    result = {
        "checkpoint": str(path),
        "weights": weights,
        "model": checkpoint["senet"]["model"]["name"],
        "data": data.config.name,
        "preprocessing": data.preprocessing.to_dict(),
        **figures,
    }
    write_json(run.path / "evaluation.json", result)
    module.write_predictions(run, "eval")
    pre = data.preprocessing
    say(f"checkpoint  {path} ({weights} weights)")
    say(f"data        {data.config.name}, {figures['count']:,} images at {pre.size} px (resize {pre.resize})")
    say(f"top-1 {figures['top1']:.2f} %   top-5 {figures['top5']:.2f} %   loss {figures['loss']:.4f}")
    say(f"written to  {run.path}")
