"""Stop at the first loss that is not finite, and say which images it came from."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from senet.data import Batch
from senet.data.module import ImageData
from senet.errors import UserError
from senet.rundir import RunDir


class FiniteLossGuard(Callback):
    """Look at every loss, on a GPU a few steps late so as not to wait for it.

    Checkpoints are written only after ``check()``, so none ever holds weights from after the failure.

    Args:
        run: whose checkpoints the messages speak of.
        every: steps between looks on a GPU; on a CPU every step is looked at.
    """

    def __init__(self, run: RunDir, every: int = 20) -> None:
        self.run, self.every = run, every
        self._pending: list[tuple[int, int, Tensor, Tensor]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Remember the loss and the sample ids."""
        loss = outputs["loss"].detach()
        self._pending.append((trainer.global_step, trainer.current_epoch, loss, batch.ids))
        if loss.device.type == "cpu" or len(self._pending) >= self.every:
            self.check(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look before evaluating."""
        self.check(pl_module)

    def check(self, pl_module: LightningModule) -> None:
        """Look at the remembered losses.

        Raises:
            UserError: naming step, epoch and images of the first loss that is not finite.
        """
        pending, self._pending = self._pending, []
        if not pending or torch.isfinite(torch.stack([entry[2] for entry in pending])).all():
            return
        step, epoch, loss, ids = next(entry for entry in pending if not torch.isfinite(entry[2]))
        data = pl_module.data
        assert isinstance(data, ImageData)
        names = [data.train.name_of(int(index)) for index in ids[:4]] if data.train else []
        raise UserError(
            f"the loss became {float(loss)} at step {step} (epoch {epoch}), in a batch of {len(ids)} images "
            f"{', '.join(names)}, ...; {self._way_out()}"
        )

    def check_results(self, results: Mapping[str, float], step: int) -> None:
        """Look at the figures of a validation.

        Raises:
            UserError: naming the first figure that is not finite.
        """
        for key, value in results.items():
            if not math.isfinite(value):
                raise UserError(f"{key} became {value} at step {step}; {self._way_out()}")

    def check_state(self, pl_module: LightningModule) -> None:
        """Look at all that a checkpoint would hold of the network: weights, averages, BN statistics.

        Raises:
            UserError: naming the first tensor that is not finite.
        """
        tensors = {k: v for k, v in pl_module.state_dict().items() if v.is_floating_point()}
        finite = torch.stack([torch.isfinite(v).all() for v in tensors.values()]).tolist()
        for name, good in zip(tensors, finite, strict=True):
            if not good:
                raise UserError(f"{name} is not finite after step {pl_module.global_step}; {self._way_out()}")

    def _way_out(self) -> str:
        kept = self.run.checkpoint("last").is_file()
        last = "checkpoints/last.ckpt is from before it" if kept else "there is no checkpoint from before it"
        return f"{last}: lower optimizer.lr, set trainer.gradient_clip_val, or use bf16 instead of fp16"
