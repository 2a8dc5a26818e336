"""BatchNorm over several processes: statistics of the global batch on any device, and shared running ones."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AllReduceSum(torch.autograd.Function):
    """Sum over all ranks; the gradient is summed as well, as every rank's output depends on every input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose training statistics span all ranks; torch's own SyncBatchNorm runs on GPUs only.

    With one process, or in evaluation, it is ``nn.BatchNorm2d``. The ranks may hold batches of unequal size.
    """

    across_ranks = True  # tells senet.kernels, which does the same inside a fused residual tail

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        wide = x.float()
        count = wide.new_full((1,), wide.numel() / wide.shape[1])
        sums: Tensor = _AllReduceSum.apply(torch.cat([wide.sum((0, 2, 3)), count]))
        total = sums[-1].detach()
        mean = sums[:-1] / total
        # Two passes: E[x^2] - mean^2 cancels where the mean is large.
        squares: Tensor = _AllReduceSum.apply((wide - mean[:, None, None]).square().sum((0, 2, 3)))
        var = squares / total
        self._track(mean.detach(), (squares / (total - 1).clamp(min=1)).detach())
        scale = torch.rsqrt(var + self.eps) * self.weight
        shift = self.bias - mean * scale
        y: Tensor = (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)


def synchronise(model: nn.Module) -> nn.Module:
    """Make every BatchNorm2d of ``model`` span all ranks, in place: same modules, same keys."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d
    return model


def unsynchronise(model: nn.Module) -> nn.Module:
    """Undo ``synchronise``."""
    for module in model.modules():
        if type(module) is SyncBatchNorm2d:
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
    return model


@torch.no_grad()
def average_running_statistics(model: nn.Module) -> None:
    """Average the running means and variances over all ranks, so that every rank evaluates one network."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    buffers = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for buffer, mean in zip(buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
