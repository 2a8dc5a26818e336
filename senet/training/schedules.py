"""Learning-rate schedules as pure functions of the samples seen: nothing to save, nothing to restore."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from senet.errors import UserError
from senet.ranges import Between, Count, Natural, NotNegative, Share, ShareBelowOne


@dataclass(frozen=True)
class Progress:
    """Where a run stands, in samples over all devices.

    Attributes:
        samples: seen so far.
        epoch_samples: in one epoch.
        total_samples: in the whole run.
        val_losses: validation loss after each epoch so far, for the plateau schedule.
    """

    samples: int
    epoch_samples: int
    total_samples: int
    val_losses: tuple[float, ...] = ()

    @property
    def epochs(self) -> float:
        """Epochs seen, with a fraction."""
        return self.samples / self.epoch_samples

    @property
    def share(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return min(1.0, self.samples / self.total_samples)


@dataclass(frozen=True)
class Schedule:
    """What all schedules share: a warm-up.

    Attributes:
        name: which schedule.
        warmup_epochs: length of the warm-up.
        warmup_start: share of the learning rate at its start.
        warmup_shape: "linear" up to the full rate, or "constant" at ``warmup_start``.
    """

    warmup_epochs: NotNegative = 0.0
    warmup_start: Share = 0.0
    warmup_shape: Literal["linear", "constant"] = "linear"

    def factor(self, at: Progress) -> float:
        """Return the share of the base learning rate to use now."""
        if at.epochs < self.warmup_epochs:
            if self.warmup_shape == "constant":
                return self.warmup_start
            return self.warmup_start + (1 - self.warmup_start) * at.epochs / self.warmup_epochs
        return self.decay(at)

    def decay(self, at: Progress) -> float:
        """Return the share after the warm-up."""
        raise NotImplementedError


@dataclass(frozen=True)
class CosineSchedule(Schedule):
    """Half a cosine from 1 to ``final`` between the end of the warm-up and the end of the run.

    Attributes:
        final: share of the learning rate at the end.
    """

    final: Share = 0.0
    name: Literal["cosine"] = "cosine"

    def decay(self, at: Progress) -> float:
        """Return the share after the warm-up."""
        warmup = self.warmup_epochs * at.epoch_samples
        done = min(1.0, max(0.0, at.samples - warmup) / max(1.0, at.total_samples - warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class StepSchedule(Schedule):
    """Multiply by ``gamma`` at each milestone.

    Attributes:
        milestones: as shares of the run, so that a shorter run keeps the recipe's shape; the paper's "divide
            by 10 every 30 of 100 epochs" is [0.3, 0.6, 0.9].
        gamma: the factor.
    """

    milestones: tuple[Between, ...] = (0.3, 0.6, 0.9)
    gamma: Between = 0.1
    name: Literal["step"] = "step"

    def __post_init__(self) -> None:
        if any(not 0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise UserError(
                f"schedule.milestones={list(self.milestones)} are rising shares of the run between 0 and 1"
            )

    def decay(self, at: Progress) -> float:
        """Return the share after the warm-up."""
        return math.prod([self.gamma for m in self.milestones if at.samples >= m * at.total_samples])


@dataclass(frozen=True)
class PlateauSchedule(Schedule):
    """Multiply by ``gamma`` when the validation loss has not improved for ``patience`` epochs.

    The paper's ablation recipe (v4 section 6) drops by 10 on plateaus, three times in total.

    Attributes:
        patience: epochs without improvement before a drop.
        gamma: the factor.
        drops: how often at most.
        threshold: improvement that counts, relative to the best loss.
    """

    patience: Count = 10
    gamma: Between = 0.1
    drops: Natural = 3
    threshold: ShareBelowOne = 1e-3
    name: Literal["plateau"] = "plateau"

    def decay(self, at: Progress) -> float:
        """Return the share after the warm-up."""
        best, waited, drops = math.inf, 0, 0
        for loss in at.val_losses:
            if loss < best * (1 - self.threshold) or math.isinf(best):
                best, waited = loss, 0
            else:
                waited += 1
            if waited >= self.patience and drops < self.drops:
                drops, waited = drops + 1, 0
        return self.gamma**drops


AnySchedule = Annotated[CosineSchedule | StepSchedule | PlateauSchedule, Field(discriminator="name")]
