"""An evaluation job: a checkpoint on the data it was made for, or on other data with the same preprocessing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from senet.data import AnyDataConfig, Batch
from senet.data.module import ImageData
from senet.errors import UserError
from senet.files import write_json
from senet.rundir import RunDir, checkpoint_path
from senet.training import launch
from senet.training.config import EvalConfig
from senet.training.console import say
from senet.training.evaluation import EvaluationModule
from senet.training.trainer import build_trainer
from senet.training.validation import validate
from senet.weights.checkpoint import Checkpoint
from senet.weights.classes import outputs_for
from senet.weights.trained import Trained, read_trained


class _Evaluation(EvaluationModule):
    """Evaluates a network among those of its classes that the data has.

    Args:
        trained: its network may have any number of outputs.
        data: what it is evaluated on.
        outputs: the place of the output for each class of the data; None for all, in order.
    """

    def __init__(self, trained: Trained, data: ImageData, outputs: list[int] | None) -> None:
        super().__init__(data, channels_last=True)
        self.model = trained.network.to(memory_format=torch.channels_last)
        self.weights = trained.weights or "raw"
        self.outputs = None if outputs is None else torch.tensor(outputs)
        self.right_among_all = 0

    def networks(self) -> dict[str, nn.Module]:
        return {self.weights: self.model}

    def logits(self, network: nn.Module, images: Tensor, batch: Batch) -> Tensor:
        logits: Tensor = network(images)
        if self.outputs is None:
            return logits
        outputs = self.outputs.to(logits.device)
        self.right_among_all += int((logits.argmax(1) == outputs[batch.labels]).sum())
        return logits[:, outputs]

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        if self.outputs is None:
            return
        right = torch.tensor(self.right_among_all, device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(right)
        self.results["val/top1_among_all"] = 100 * int(right) / self.results["val/count"]


def build_data(config: EvalConfig, trained: Trained) -> tuple[ImageData, list[int] | None]:
    """Return the data to evaluate on, and the network's outputs for its classes; None for all, in order."""
    stored: AnyDataConfig | None = config.data
    if stored is None:
        if trained.checkpoint is None:
            raise UserError(f"{trained.source}: say on which images, e.g. data=imagefolder data.root=DIR")
        stored = validate(AnyDataConfig, trained.checkpoint.config["data"])
    if config.root is not None:
        stored = stored.moved(config.root, f"root={config.root}")
    if config.batch_size is not None:
        stored = replace(stored, batch_size=config.batch_size, eval_batch_size=None)
    if config.workers is not None:
        stored = replace(stored, workers=config.workers)
    preprocessing = trained.preprocessing
    if config.size is not None:
        preprocessing = preprocessing.at(config.size)
    if config.data is None and trained.checkpoint is not None:
        held_out = RunDir(trained.checkpoint.path.parent.parent).held_out()
        classes = trained.checkpoint.classes
        data = ImageData(stored, None, 0, preprocessing=preprocessing, classes=classes, held_out=held_out)
        if data.classes != trained.checkpoint.classes:
            raise UserError(_others(data, trained))
        return data, None
    data = ImageData(stored, None, 0, preprocessing=preprocessing)
    if set(data.classes).isdisjoint(trained.classes or ()) and trained.checkpoint is not None:
        raise UserError(_others(data, trained))
    count = int(str(trained.network.record["num_classes"]))
    outputs = outputs_for(data.classes, trained.classes, count, trained.source)
    if trained.classes is None:
        say(f"classes     {trained.source} does not name them: taken for the data's, in their order")
    return data, None if outputs == list(range(count)) else outputs


def _others(data: ImageData, trained: Trained) -> str:
    names = trained.class_names()
    return (
        f"{data.config.name} has other classes ({len(data.classes)}: {', '.join(data.classes[:3])}, ...) than the "
        f"checkpoint ({len(names)}: {', '.join(names[:3])}, ...)"
    )


def _settings(trainer: Mapping[str, Any], checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return the trainer's settings with the precision of the training run unless another was asked for."""
    precision = trainer.get("precision")
    if precision is None and checkpoint is not None:
        run = RunDir(checkpoint.path.parent.parent)  # whose record says what "auto" was
        precision = (run.record() if run.exists() else {}).get("precision") or checkpoint.config[
            "trainer"
        ].get("precision")
    precision = precision or "32-true"
    if precision.startswith("16") and launch.accelerator({**trainer, "precision": None}) == "cpu":
        say(f"precision   32-true: the run's own, {precision}, needs a GPU")
        precision = "32-true"
    settings = {**trainer, "precision": precision}
    if (warning := launch.slow_precision(settings)) is not None:
        say(f"precision   {warning}")
    return settings


def evaluate(run: RunDir, config: EvalConfig) -> None:
    """Evaluate as ``config`` says; write ``evaluation.json``, the predictions and a page to ``run``."""
    from senet.analysis.run_page import conclude  # draws: nothing before needs matplotlib

    source = config.spec or str(checkpoint_path(config.run, config.ckpt, config.which).resolve())
    trained = read_trained(source, weights=config.averaging)
    data, outputs = build_data(config, trained)
    module = _Evaluation(trained, data, outputs)
    if trained.words:
        say(f"weights     {trained.words}")
    if outputs is not None:
        count = trained.network.record["num_classes"]
        say(f"classes     {len(outputs)} of the network's {count}: it chooses among these alone")
    settings = _settings(config.trainer, trained.checkpoint)
    trainer = build_trainer(settings, run.path, logger=False, enable_checkpointing=False)
    try:
        trainer.validate(module, datamodule=data, verbose=False)
    finally:
        data.close()
    if not trainer.is_global_zero:
        return
    figures = {key.partition("/")[2]: value for key, value in module.results.items()}
    figures["count"] = int(figures["count"])
    result = {
        "checkpoint": trained.source,
        "weights": trained.weights,
        "model": trained.network.record["name"],
        "data": data.config.name,
        "preprocessing": data.preprocessing.to_dict(),
        **figures,
    }
    write_json(run.evaluation_file, result)
    module.write_predictions(run, "eval")
    pre = data.preprocessing
    chosen = f" ({trained.weights} weights)" if trained.weights else ""
    say(f"checkpoint  {trained.source}{chosen}")
    say(f"data        {data.config.name}, {figures['count']:,} images at {pre.size} px (resize {pre.resize})")
    say(f"top-1 {figures['top1']:.2f} %   top-5 {figures['top5']:.2f} %   loss {figures['loss']:.4f}")
    if outputs is not None:
        say(f"among all of the network's classes: top-1 {figures['top1_among_all']:.2f} %")
    say(f"page        {conclude(run, module.predictions[module.weights], data.val)}")
    say(f"written to  {run.path}")
