"""Which samples an epoch draws, how often and in what order: pure functions of (seed, epoch)."""

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from senet.data.config import DataConfig, SamplingConfig
from senet.data.streams import stream
from senet.errors import UserError


@dataclass(frozen=True)
class EpochSizes:
    """The side of the training images in each epoch: ``size``, or the last of ``sizes`` that has begun."""

    sizes: tuple[tuple[int, int], ...]
    size: int

    def __call__(self, epoch: int) -> int:
        """Return the side in pixels."""
        return next((side for first, side in reversed(self.sizes) if epoch >= first), self.size)

    @property
    def largest(self) -> int:
        """The largest side there is."""
        return max([self.size, *(side for _, side in self.sizes)])


def by_class(
    labels: Tensor, ids: Tensor, generator: torch.Generator, at_least: int = 1, asked: str = ""
) -> list[Tensor]:
    """Return the ids of each class that occurs, in random order.

    Raises:
        UserError: if a class has fewer than the number that the key ``asked`` for.
    """
    shuffled = ids[torch.randperm(len(ids), generator=generator)]
    of_class = labels[shuffled]
    order = torch.argsort(of_class, stable=True)
    counts = torch.bincount(of_class)
    found = list(torch.split(shuffled[order], counts[counts > 0].tolist()))
    for members in found:
        if len(members) < at_least:
            raise UserError(
                f"data.sampling.{asked}={at_least}: class {int(labels[members[0]])} has only {len(members)} images"
            )
    return found


def fold_parts(config: SamplingConfig, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sorted ids to train on and those held out; all and none without folds.

    Raises:
        UserError: if a class has fewer images than there are folds.
    """
    held = torch.zeros(len(labels), dtype=torch.bool)
    if config.folds is not None:
        generator = stream(config.subset_seed, "folds")
        for members in by_class(labels, torch.arange(len(labels)), generator, config.folds, "folds"):
            held[members[config.fold :: config.folds]] = True
    return _parts(held)


def _parts(held: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sorted ids of the samples that are not held out and of those that are, by a mask of all."""
    return torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()


def hold_out(config: DataConfig, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sorted ids to train on and those held out, by folds or by ``val_fraction``; all and none without.

    Raises:
        UserError: if a class has too few images, or the fraction leaves none.
    """
    fraction = config.val_fraction
    if fraction is None:
        return fold_parts(config.sampling, labels)
    if config.sampling.folds is not None:
        raise UserError("give data.val_fraction or data.sampling.folds, not both")
    if not 0 < fraction < 1:
        raise UserError(f"data.val_fraction={fraction} must lie between 0 and 1, e.g. 0.2")
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = stream(config.sampling.subset_seed, "validation")
    for members in by_class(labels, torch.arange(len(labels)), generator):
        if len(members) < 2:
            raise UserError(
                f"data.val_fraction={fraction}: class {int(labels[members[0]])} has a single image, which cannot be "
                "trained on and validated"
            )
        held[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return _parts(held)


def named(names: Collection[str], of: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the sorted ids of ``of`` to train on and those that ``names`` holds out.

    Raises:
        UserError: for a name that is not there any more.
    """
    missing = set(names) - set(of)
    if missing:
        raise UserError(
            f"{min(missing)} was held out for validation when the run began and is not there any more"
        )
    return _parts(torch.tensor([name in names for name in of]))


def subset(config: SamplingConfig, labels: Tensor, ids: Tensor) -> Tensor:
    """Return the sorted ids that ``fraction`` or ``per_class`` keeps of each class, at least one.

    Raises:
        UserError: if a class has fewer than ``per_class`` images.
    """
    if config.fraction is None and config.per_class is None:
        return ids
    kept = []
    generator = stream(config.subset_seed, "subset")
    for members in by_class(labels, ids, generator, config.per_class or 1, "per_class"):
        count = config.per_class or max(1, round(len(members) * (config.fraction or 1)))
        kept.append(members[:count])
    return torch.cat(kept).sort().values


def read_weights(file: Path, labels: Tensor, classes: list[str], names: Sequence[str]) -> Tensor:
    """Return the weight of every image, float64 (N,).

    Raises:
        UserError: for a row that is not NAME,WEIGHT, names neither a class nor an image, or what another named.
    """
    rows: dict[str, float] = {}
    try:
        with file.expanduser().open(newline="", encoding="utf-8-sig") as lines:
            for name, weight, *_ in filter(None, csv.reader(lines)):
                if name in rows:
                    raise ValueError(f"{name} is there twice")
                rows[name] = float(weight)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"data.sampling.weights={file}: {error}; rows must be NAME,WEIGHT") from error
    of_class = torch.tensor([rows.pop(name, 1.0) for name in classes], dtype=torch.float64)
    weights = of_class[labels]
    if rows:
        for index, name in enumerate(names):
            weights[index] = rows.pop(name, float(weights[index]))
    if rows:
        raise UserError(f"data.sampling.weights={file}: {next(iter(rows))} is neither a class nor an image")
    if not (weights >= 0).all() or not weights.isfinite().all():
        raise UserError(f"data.sampling.weights={file}: weights must be finite and 0 or more")
    return weights


class EpochOrder:
    """The sample ids of each epoch, in order: the same on every rank and after every resume.

    Args:
        config: how they are drawn.
        ids: int64 (n,), the samples there are.
        labels: int64 (N,), of all samples of the data set.
        seed: of the run.
        weights: float64 (N,), for ``draw="weighted"``.

    Raises:
        UserError: if no sample has a weight.
    """

    def __init__(
        self, config: SamplingConfig, ids: Tensor, labels: Tensor, seed: int, weights: Tensor | None = None
    ) -> None:
        self.config, self.ids, self.labels, self.seed, self.weights = config, ids, labels, seed, weights
        if weights is not None and not weights[ids].sum() > 0:
            raise UserError("data.sampling.weights: all images that are trained on have a weight of 0")

    def __len__(self) -> int:
        return len(self.ids)

    def __call__(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return ids and draws, both int64 (n,); the draw counts the earlier occurrences of the same id."""
        generator = stream(self.seed, "order", epoch)
        total, repeats = len(self.ids), self.config.repeats
        order = self._drawn(generator)
        order = order[: -(-total // repeats)].repeat_interleave(repeats)[:total]
        if repeats == 1 and self.config.draw == "shuffle":
            return order, torch.zeros_like(order)
        return order, occurrences(order)

    def _drawn(self, generator: torch.Generator) -> Tensor:
        total = len(self.ids)
        if self.config.draw == "class_balanced":
            return self._balanced(generator)
        if self.config.draw == "weighted":
            assert self.weights is not None
            # Inverse of the cumulative sum: torch.multinomial stops at 2**24 choices.
            edges = self.weights[self.ids].cumsum(0)
            points = torch.rand(total, generator=generator, dtype=torch.float64) * edges[-1]
            return self.ids[torch.searchsorted(edges, points, right=True).clamp_(max=total - 1)]
        return self.ids[torch.randperm(total, generator=generator)]

    def _balanced(self, generator: torch.Generator) -> Tensor:
        members = by_class(self.labels, self.ids, generator)
        total, classes = len(self.ids), len(members)
        # Which classes get the remainder changes from epoch to epoch.
        extra = set(torch.randperm(classes, generator=generator)[: total % classes].tolist())
        drawn = []
        for index, ids in enumerate(members):
            wanted = total // classes + (index in extra)
            rounds = -(-wanted // len(ids))
            again = [ids[torch.randperm(len(ids), generator=generator)] for _ in range(rounds - 1)]
            drawn.append(torch.cat([ids, *again])[:wanted])
        return torch.cat(drawn)[torch.randperm(total, generator=generator)]


def occurrences(ids: Tensor) -> Tensor:
    """Return for each position how often its value occurred before it, int64 like ``ids`` (n,)."""
    ordered, order = ids.sort(stable=True)
    result = torch.empty_like(ids)
    result[order] = torch.arange(len(ids)) - torch.searchsorted(
        ordered, ordered
    )  # since the first of its value
    return result
