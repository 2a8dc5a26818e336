"""All ranks hold the same configuration, seed and weights, or the job stops."""

from collections.abc import Iterable
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from senet.training.launch import compare_ranks

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PIECE = 2**22  # values at a time, so that the check needs little memory beside the largest layer


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

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare every so many steps; the batches of an accumulated step count once."""
        if trainer.global_step % self.every == 0 and trainer.global_step != self._checked:
            self._check(trainer, pl_module)

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._checked = step = trainer.global_step
        if trainer.world_size > 1:
            weights = checksum(pl_module.parameters()) % 2**64
            compare_ranks(f"{self.identity}, weights {weights:016x}", f"no longer agree at step {step}")
