"""The residual tails run as they were announced, or a run says that they do not."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from senet.kernels.operator import FORWARD_PASSES
from senet.training.console import say


class TailsRun(Callback):
    """Count the fused tails of the first training step: compiled code decides for itself, and without a word.

    Args:
        announced: how many were said to run fused.
    """

    def __init__(self, announced: int) -> None:
        self.announced = announced
        self._before: int | None = None

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, index: int) -> None:
        if self._before is None:
            self._before = FORWARD_PASSES.total()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, index: int
    ) -> None:
        assert self._before is not None
        ran = FORWARD_PASSES.total() - self._before
        if ran < self.announced:
            say(
                f"tail      only {ran} of the {self.announced} that were announced ran fused in the first step: "
                "slower than it could be, with the same results; please report it, with the versions in run.json"
            )
        self.announced = 0
