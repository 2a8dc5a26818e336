"""Evaluation figures as sums and counts, so that any split of the images over ranks gives the same result."""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class EvalSums:
    """Counts of images, of top-1 and top-5 hits, and the summed cross-entropy, over all batches and ranks."""

    def __init__(self, device: torch.device) -> None:
        # count, top-1 hits, top-5 hits, loss: float64 counts exactly far beyond any data set.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(4, dtype=dtype, device=device)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add one batch of logits (B, K) and labels (B,)."""
        logits = logits.float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        batch = torch.stack([torch.tensor(len(labels), device=loss.device), top[:, 0].sum(), top.sum(), loss])
        self.sums += batch.to(self.sums.dtype)

    def compute(self) -> dict[str, float]:
        """Return count, top1 and top5 in percent, and the mean loss, reduced over all ranks."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.sums)
        count, top1, top5, loss = self.sums.tolist()
        n = max(count, 1.0)
        return {"count": count, "top1": 100 * top1 / n, "top5": 100 * top5 / n, "loss": loss / n}


@dataclass
class Predictions:
    """What a network said of every image: columns of equal length."""

    ids: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    confidence: list[Tensor] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)

    def update(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Add one batch."""
        logits = logits.float()
        confidence, predicted = logits.softmax(1).max(1)
        self.ids.append(ids)
        self.labels.append(labels)
        self.predicted.append(predicted)
        self.confidence.append(confidence)
        self.loss.append(F.cross_entropy(logits, labels, reduction="none"))

    def gather(self) -> dict[str, Tensor]:
        """Return the columns of all ranks on the CPU, sorted by sample id."""
        columns = {name: torch.cat(parts).cpu() for name, parts in vars(self).items() if parts}
        if dist.is_available() and dist.is_initialized():
            shares: list[dict[str, Tensor]] = [{} for _ in range(dist.get_world_size())]
            dist.all_gather_object(shares, columns)
            columns = {name: torch.cat([share[name] for share in shares if share]) for name in vars(self)}
        order = columns["ids"].argsort()
        return {name: column[order] for name, column in columns.items()}
