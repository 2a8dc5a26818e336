"""timm's BatchNorm with an activation over several processes, for the networks that are built of it."""

from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from senet.nn.batchnorm import ACROSS_RANKS, SyncBatchNorm2d


class _WithActivation(nn.Module):
    """What timm's ``BatchNormAct2d`` does after it has normalised."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Any:
        return self.act(self.drop(super().forward(x)))


class _SyncBatchNormAct2d(_WithActivation, SyncBatchNorm2d):
    pass


class _SyncBatchNormActOnGPU(_WithActivation, nn.SyncBatchNorm):
    pass


ACROSS_RANKS[BatchNormAct2d] = (_SyncBatchNormAct2d, _SyncBatchNormActOnGPU)
