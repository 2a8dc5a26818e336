"""Exact evaluation: every image once on any number of ranks, one record per image; and the job that does it alone.

The figures are means over these records, so that no way of sharing the images out can change them.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from senet.data import AnyDataConfig, Batch
from senet.data.inputs import InputStep
from senet.data.module import ImageData
from senet.errors import UserError
from senet.files import write_json
from senet.nn.batchnorm import average_running_statistics
from senet.rundir import PREFIX, Predictions, RunDir, checkpoint_path
from senet.training import launch
from senet.training.config import EvalConfig
from senet.training.console import say
from senet.training.launch import everyone
from senet.training.trainer import build_trainer
from senet.training.validation import validate
from senet.weights.checkpoint import Checkpoint
from senet.weights.classes import outputs_for
from senet.weights.trained import Trained, read_trained

COLUMNS = ("ids", "labels", "predicted", "top5", "confidence", "loss")


class EvaluationModule(LightningModule):
    """Evaluates one or two networks, raw and averaged weights, in one pass over the validation images.

    Args:
        data: for sizes, class names and sample names.
        channels_last: memory layout of the images.

    Attributes:
        results: top1 and top5 in percent and the mean loss of the last evaluation, by ``PREFIX``; count.
        predictions: what "raw" and "ema" weights said of every image.
    """

    def __init__(self, data: ImageData, channels_last: bool) -> None:
        super().__init__()
        self.data = data
        self.inputs = InputStep(data.preprocessing, data.augment, channels_last)
        self.results: dict[str, float] = {}
        self.predictions: dict[str, Predictions] = {}
        self._batches: dict[str, list[tuple[Tensor, ...]]] = {}

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks to evaluate, under "raw" and "ema"."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """On a GPU, compile the step before the network to one pass over the pixels."""
        if self.trainer.strategy.root_device.type == "cuda" and find_spec("triton"):
            self.inputs.compile()

    def on_validation_epoch_start(self) -> None:
        """Give every rank the same BN statistics."""
        for network in self.networks().values():
            average_running_statistics(network)
        self._batches = {name: [] for name in self.networks()}
        self.data.eval_bad_images.rows.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Let every network predict one batch."""
        images = self.inputs(batch.images)
        for name, network in self.networks().items():
            self._batches[name].append(predict(self.logits(network, images, batch), batch))

    def logits(self, network: nn.Module, images: Tensor, batch: Batch) -> Tensor:
        """Return the logits (B, K) for the K classes of the data."""
        logits: Tensor = network(images)
        return logits

    def on_validation_epoch_end(self) -> None:
        """Gather the predictions of all ranks and insist that every image was counted exactly once.

        Unreadable images, where the run chose to count them, count as wrong in top1 and top5; the loss is the mean
        over the others.
        """
        unreadable = self._unreadable()
        results: dict[str, float] = {"val/unreadable": float(unreadable)} if unreadable else {}
        for name, batches in self._batches.items():
            columns = gather(batches)
            count = len(columns["ids"])
            limit = self.trainer.limit_val_batches  # 1.0 is everything, 1 is one batch
            if isinstance(limit, float) and limit == 1.0:
                distinct, expected = len(set(columns["ids"].tolist())), self.data.val_size - unreadable
                assert count == distinct == expected, (count, distinct, expected)
            for key, value in figures(columns, count + unreadable).items():
                results[f"{PREFIX[name]}/{key}"] = value
            results["val/count"] = float(count + unreadable)
            self.predictions[name] = self._named(columns)
        self._batches = {}
        self.results = results

    def _unreadable(self) -> int:
        """Return how many images no rank could read, and say so."""
        count = sum(everyone(len(self.data.eval_bad_images.images)))
        if count and self.trainer.is_global_zero:
            rows = self.data.eval_bad_images.rows
            example = f", e.g. {rows[0].path} ({rows[0].reason})" if rows else ""
            say(f"{count} validation image(s) cannot be read and count as wrong{example}")
        return count

    def _named(self, columns: dict[str, Tensor]) -> Predictions:
        """Return the columns with the images' and the classes' names."""
        classes = np.array(self.data.classes)
        return Predictions(
            columns["ids"].numpy(),
            [self.data.val.name_of(index) for index in columns["ids"].tolist()],
            classes[columns["labels"].numpy()],
            classes[columns["predicted"].numpy()],
            columns["top5"].double().numpy(),
            columns["confidence"].numpy(),
            columns["loss"].numpy(),
        )

    def write_predictions(self, run: RunDir, label: str) -> None:
        """Write the last evaluation's ``predictions/{label}_{raw,ema}.csv``; rank 0 only."""
        if self.trainer.is_global_zero:
            for name, table in self.predictions.items():
                run.write_predictions(label, name, table)


def predict(logits: Tensor, batch: Batch) -> tuple[Tensor, ...]:
    """Return the ``COLUMNS`` (B,) of a batch with logits (B, K)."""
    logits, labels = logits.float(), batch.labels
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    confidence = logits.softmax(1).gather(1, best[:, :1])[:, 0]
    loss = F.cross_entropy(logits, labels, reduction="none")
    return batch.ids, labels, best[:, 0], (best == labels[:, None]).any(1), confidence, loss


def gather(batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Return the columns of all batches of all ranks on the CPU, sorted by sample id.

    Raises:
        UserError: if there is not one image.
    """
    mine = [torch.cat(column).cpu() for column in zip(*batches, strict=True)]
    shares = [share for share in everyone(mine) if share]
    if not shares:
        raise UserError("none of the validation images can be read: senet check says why")
    columns = [torch.cat(column) for column in zip(*shares, strict=True)]
    order = columns[0].argsort()
    return {name: column[order] for name, column in zip(COLUMNS, columns, strict=True)}


def figures(columns: dict[str, Tensor], count: int) -> dict[str, float]:
    """Return top1 and top5 in percent of ``count`` images, and the mean loss of those that were read."""
    right = columns["predicted"] == columns["labels"]
    return {
        "top1": 100 * float(right.sum()) / count,
        "top5": 100 * float(columns["top5"].sum()) / count,
        "loss": float(columns["loss"].double().mean()),
    }


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
        right = sum(everyone(self.right_among_all))
        self.results["val/top1_among_all"] = 100 * right / self.results["val/count"]


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
        record, asked = run.record() if run.exists() else {}, checkpoint.config["trainer"].get("precision")
        precision = record.get("precision") or asked
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
    found = {key.partition("/")[2]: value for key, value in module.results.items()}
    found["count"] = int(found["count"])
    result = {
        "checkpoint": trained.source,
        "weights": trained.weights,
        "model": trained.network.record["name"],
        "data": data.config.name,
        "preprocessing": data.preprocessing.to_dict(),
        **found,
    }
    write_json(run.evaluation_file, result)
    module.write_predictions(run, "eval")
    pre = data.preprocessing
    chosen = f" ({trained.weights} weights)" if trained.weights else ""
    say(f"checkpoint  {trained.source}{chosen}")
    say(f"data        {data.config.name}, {found['count']:,} images at {pre.size} px (resize {pre.resize})")
    say(f"top-1 {found['top1']:.2f} %   top-5 {found['top5']:.2f} %   loss {found['loss']:.4f}")
    if outputs is not None:
        say(f"among all of the network's classes: top-1 {found['top1_among_all']:.2f} %")
    say(f"page        {conclude(run, module.predictions[module.weights], data.val)}")
    say(f"written to  {run.path}")
