"""Exact evaluation as a Lightning module: every image once on any number of ranks, one record per image."""

import csv
import io
from importlib.util import find_spec
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from senet.data import Batch
from senet.data.inputs import InputStep
from senet.data.module import ImageData
from senet.nn.batchnorm import average_running_statistics
from senet.training.console import say
from senet.training.metrics import EvalSums, Predictions
from senet.training.rundir import RunDir, write_atomically

PREFIX = {"raw": "val", "ema": "val_ema"}
"""What the figures of raw and averaged weights are called: ``val/top1``, ``val_ema/top1``."""


class EvaluationModule(LightningModule):
    """Evaluates one or two networks, raw and averaged weights, in one pass over the validation images.

    Args:
        data: for sizes, class names and sample names.
        channels_last: memory layout of the images.

    Attributes:
        results: top1 and top5 in percent and the mean loss of the last evaluation, by ``PREFIX``; count.
    """

    def __init__(self, data: ImageData, channels_last: bool) -> None:
        super().__init__()
        self.data = data
        self.inputs = InputStep(data.preprocessing, data.augment, channels_last)
        self.results: dict[str, float] = {}
        self._running: dict[str, tuple[EvalSums, Predictions]] = {}
        self._tables: dict[str, str] = {}

    def networks(self) -> dict[str, nn.Module]:
        """Return the networks to evaluate, under "raw" and "ema"."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """On a GPU, compile the step before the network to one pass over the pixels."""
        if self.trainer.strategy.root_device.type == "cuda" and find_spec("triton"):
            self.inputs.compile()

    def on_validation_epoch_start(self) -> None:
        """Give every rank the same BN statistics and start the sums."""
        for network in self.networks().values():
            average_running_statistics(network)
        self._running = {name: (EvalSums(self.device), Predictions()) for name in self.networks()}
        self.data.eval_ledger.rows.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Evaluate every network on one batch."""
        images = self.inputs(batch.images)
        for name, network in self.networks().items():
            logits = network(images)
            sums, predictions = self._running[name]
            sums.update(logits, batch.labels)
            predictions.update(logits, batch.labels, batch.ids)

    def on_validation_epoch_end(self) -> None:
        """Reduce over ranks and insist that every image was counted exactly once.

        Unreadable images, where the run chose to count them, count as wrong in top1 and top5; the loss is the mean
        over the others.
        """
        results: dict[str, float] = {}
        unreadable = self._unreadable()
        for name, (sums, predictions) in self._running.items():
            figures = sums.compute()
            count = int(figures.pop("count"))
            columns = predictions.gather()
            limit = self.trainer.limit_val_batches  # 1.0 is everything, 1 is one batch
            if isinstance(limit, float) and limit == 1.0:
                distinct = len(set(columns["ids"].tolist()))
                expected = self.data.val_size - unreadable
                assert count == distinct == expected, (count, distinct, expected)
            if unreadable:
                readable = count / (count + unreadable)
                figures |= {key: figures[key] * readable for key in ("top1", "top5")}
                results["val/unreadable"] = float(unreadable)
            results |= {f"{PREFIX[name]}/{key}": value for key, value in figures.items()}
            results["val/count"] = float(count + unreadable)
            self._tables[name] = self._as_csv(columns)
        self._running = {}
        self.results = results

    def _unreadable(self) -> int:
        """Return how many images no rank could read, and say so."""
        count = torch.tensor(len(self.data.eval_ledger.images), device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(count)
        if count and self.trainer.is_global_zero:
            rows = self.data.eval_ledger.rows
            example = f", e.g. {rows[0].path} ({rows[0].reason})" if rows else ""
            say(f"{int(count)} validation image(s) cannot be read and count as wrong{example}")
        return int(count)

    def _as_csv(self, columns: dict[str, Tensor]) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "image", "label", "predicted", "correct", "confidence", "loss"])
        classes = self.data.classes
        values: list[list[Any]] = [
            columns[name].tolist() for name in ("ids", "labels", "predicted", "confidence", "loss")
        ]
        for index, label, predicted, confidence, loss in zip(*values, strict=True):
            writer.writerow(
                [
                    index,
                    self.data.val.name_of(index),
                    classes[label],
                    classes[predicted],
                    int(label == predicted),
                    f"{confidence:.6f}",
                    f"{loss:.6f}",
                ]
            )
        return text.getvalue()

    def write_predictions(self, run: RunDir, label: str) -> None:
        """Write the last evaluation's ``predictions/{label}_{raw,ema}.csv``; rank 0 only."""
        if self.trainer.is_global_zero:
            for name, text in self._tables.items():
                write_atomically(run.predictions / f"{label}_{name}.csv", text)
