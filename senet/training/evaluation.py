"""Exact evaluation as a Lightning module: every image once on any number of ranks, one record per image.

The figures are means over these records, so that no way of sharing the images out can change them.
"""

from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from senet.data import Batch
from senet.data.inputs import InputStep
from senet.data.module import ImageData
from senet.nn.batchnorm import average_running_statistics
from senet.rundir import PREFIX, Predictions, RunDir
from senet.training.console import say
from senet.training.launch import everyone

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
    """Return the columns of all batches of all ranks on the CPU, sorted by sample id."""
    mine = [torch.cat(column).cpu() for column in zip(*batches, strict=True)]
    shares = [share for share in everyone(mine) if share]
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
