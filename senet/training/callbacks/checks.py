"""What is looked at while a run trains: losses are finite, the ranks agree, the tails run as announced."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from senet.data import Batch
from senet.data.module import ImageData
from senet.errors import UserError
from senet.kernels.operator import FORWARD_PASSES
from senet.rundir import RunDir
from senet.training.console import say
from senet.training.launch import compare_ranks

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PIECE = 2**22  # values at a time, so that the check needs little memory beside the largest layer


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


@torch.no_grad()
def checksum(tensors: Iterable[Tensor]) -> int:
    """Return an integer that any changed bit or exchanged value changes; floating point plays no part.

    ``sum_k odd_k * bits_k`` modulo 2^64 over values read as integers, chained over pieces and tensors.
    """
    total: Tensor | int = 0
    for tensor in tensors:
        for piece in torch.split(tensor.flatten(), _PIECE):
            bits = piece.view(_INTEGERS[piece.element_size()]).long()
            odd = torch.arange(1, 2 * len(bits), 2, device=bits.device)
            total = total * 1_000_003 + (bits * odd).sum()
    return int(total)


class RanksAgree(Callback):
    """Compare config hash, seed and a checksum of all parameters between the ranks.

    Before the first step and every ``every`` optimiser steps. A job of one process has nothing to compare.

    Args:
        identity: what the ranks must have in common besides, in one line.
        every: steps between checks.
    """

    def __init__(self, identity: str, every: int) -> None:
        self.identity, self.every = identity, every
        self._checked = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare before the first step."""
        self._check(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Compare every so many steps; the batches of an accumulated step count once."""
        if trainer.global_step % self.every == 0 and trainer.global_step != self._checked:
            self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._checked = step = trainer.global_step
        if trainer.world_size > 1:
            weights = checksum(pl_module.parameters()) % 2**64
            compare_ranks(f"{self.identity}, weights {weights:016x}", f"no longer agree at step {step}")


class TailsRun(Callback):
    """Count the fused tails of the first training step: compiled code decides for itself, and without a word.

    Args:
        announced: how many were said to run fused.
    """

    def __init__(self, announced: int) -> None:
        self.announced = announced
        self._before: int | None = None

    def on_train_batch_start(self, *_: Any) -> None:
        if self._before is None:
            self._before = FORWARD_PASSES.total()

    def on_train_batch_end(self, *_: Any) -> None:
        assert self._before is not None
        ran = FORWARD_PASSES.total() - self._before
        if ran < self.announced:
            say(
                f"tail      only {ran} of the {self.announced} that were announced ran fused in the first step: "
                "slower than it could be, with the same results; please report it, with the versions in run.json"
            )
        self.announced = 0
