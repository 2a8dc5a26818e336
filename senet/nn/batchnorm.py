"""BatchNorm over several processes: statistics of the global batch on any device, and shared running ones."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from senet.errors import UserError
from senet.kernels import aten_passes, sync
from senet.kernels.passes import Norm, memory_format


class _OverAllRanks(torch.autograd.Function):
    """BN with the statistics of all ranks' batches: what the fused tail does, without what follows BN there."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, group: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=memory_format(x))
        mean, inv, unbiased = sync.batch_statistics(aten_passes, aten_passes.moments(x), eps, group)
        y = torch.empty_like(x)
        aten_passes.normalise(x, mean, weight * inv, bias, y)
        ctx.save_for_backward(x, weight, mean, inv)
        ctx.group = group
        ctx.mark_non_differentiable(mean, unbiased)
        return y, mean, unbiased

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        x, weight, mean, inv = ctx.saved_tensors
        dy = dy.contiguous(memory_format=memory_format(x))
        dbias, dweight = aten_passes.channel_sums(dy, x, mean, inv)
        through = sync.mean_gradients(dweight, dbias, x.numel() // x.shape[1], ctx.group)
        dx = aten_passes.grad_input(dy, x, Norm(mean, inv, weight, weight), None, None, through, 1.0)
        return dx, dweight, dbias, None, None


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d on a CPU whose training statistics span all ranks; torch's own SyncBatchNorm wants a GPU.

    With one process, or in evaluation, it is ``nn.BatchNorm2d``. The ranks may hold batches of unequal size.
    """

    across_ranks = True  # tells senet.kernels, which does the same inside a fused residual tail

    def forward(self, x: Tensor) -> Tensor:
        group = sync.group_of(self)
        if not group:
            return super().forward(x)
        y: Tensor
        y, mean, unbiased = _OverAllRanks.apply(x, self.weight, self.bias, self.eps, group)
        sync.update_running_statistics(self, mean, unbiased)
        return y


ACROSS_RANKS: dict[type[_BatchNorm], tuple[type[_BatchNorm], type[_BatchNorm]]] = {
    nn.BatchNorm2d: (SyncBatchNorm2d, nn.SyncBatchNorm)
}
"""What a norm becomes on a CPU and on a GPU; ``senet.integrations.timm_norms`` adds timm's."""


def synchronise(model: nn.Module) -> nn.Module:
    """Make every BatchNorm of ``model`` span all ranks, in place: same modules, same keys.

    Those on a GPU become torch's own, those on a CPU ours.

    Raises:
        UserError: for a BatchNorm that cannot; nothing is changed then.
    """
    becoming: dict[_BatchNorm, type[_BatchNorm]] = {}
    for name, norm in model.named_modules():
        if not isinstance(norm, _BatchNorm) or sync.is_synchronised(norm):
            continue
        kinds = ACROSS_RANKS.get(type(norm))
        if kinds is None or not norm.affine:
            raise UserError(
                f"{name} is {norm}, which has no statistics over all ranks: drop sync_batchnorm, or take BatchNorm2d"
            )
        becoming[norm] = kinds[norm.weight.is_cuda]
    for norm, kind in becoming.items():
        vars(norm).update(alone=type(norm), process_group=None)
        norm.__class__ = kind
    return model


def unsynchronise(model: nn.Module) -> nn.Module:
    """Undo ``synchronise``."""
    for module in model.modules():
        if "alone" in vars(module):
            module.__class__ = vars(module).pop("alone")
            del vars(module)["process_group"]
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
