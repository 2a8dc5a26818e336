"""Batch statistics over several processes (SyncBN): one collective forwards, one backwards, and running ones."""

from collections.abc import Callable
from types import ModuleType

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import distributed_c10d

from senet.kernels.passes import Moments


def is_synchronised(bn: nn.Module) -> bool:
    """Whether ``bn`` takes its statistics over all ranks: torch's class, or one that says ``across_ranks``."""
    return isinstance(bn, nn.SyncBatchNorm) or bool(getattr(bn, "across_ranks", False))


def group_of(bn: nn.Module) -> str:
    """Return the name of the process group that now shares the batch statistics of ``bn``, "" for none."""
    if not bn.training or not is_synchronised(bn) or not dist.is_available() or not dist.is_initialized():
        return ""
    group: dist.ProcessGroup = getattr(bn, "process_group", None) or distributed_c10d._get_default_group()
    return str(group.group_name) if group.size() > 1 else ""


def _resolve(group: str) -> dist.ProcessGroup:
    # Operators take strings, not groups; torch's functional collectives resolve them in the same way.
    resolve: Callable[[str], dist.ProcessGroup] = vars(distributed_c10d)["_resolve_process_group"]
    return resolve(group)


def batch_statistics(
    passes: ModuleType, moments: Moments, eps: float, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, rsqrt(variance + eps) and unbiased variance (C,) of the batch, that of all ranks of ``group``."""
    mean, var, inv, unbiased = passes.combine(moments, eps)
    if group:
        mean, var, count = gather_statistics(mean, var, len(moments.mean) * moments.pixels, group)
        inv, unbiased = torch.rsqrt(var + eps), var * (count / (count - 1).clamp(min=1))
    return mean, inv, unbiased


def gather_statistics(mean: Tensor, var: Tensor, count: int, group: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and biased variance (C,) over all ranks' values, and how many values per channel they are.

    Means and variances are combined around the common mean; sums of squares would lose digits where the mean
    is large. Ranks may hold different numbers of values.
    """
    process_group = _resolve(group)
    mine = torch.cat((mean, var, mean.new_full((1,), count)))
    gathered = mine.new_empty(dist.get_world_size(process_group) * mine.numel())
    dist.all_gather_into_tensor(gathered, mine, group=process_group)
    ranks = gathered.view(-1, mine.numel())
    counts = ranks[:, -1:]
    means, variances = ranks[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    var = (share * (variances + (means - mean).square())).sum(0)
    return mean, var, total


def mean_gradients(dweight: Tensor, dbias: Tensor, count: int, group: str) -> tuple[Tensor, Tensor]:
    """Return BN's parameter gradients (C,) over all ranks, divided by all ranks' values per channel.

    This is what reaches x through the statistics. The parameters' own gradients stay each rank's own: the
    data-parallel wrapper averages those.
    """
    totals = torch.cat((dweight, dbias, dweight.new_full((1,), count)))
    dist.all_reduce(totals, group=_resolve(group))
    dweight, dbias = (totals[:-1] / totals[-1]).chunk(2)
    return dweight, dbias


@torch.no_grad()
def update_running_statistics(bn: nn.BatchNorm2d, mean: Tensor, unbiased: Tensor) -> None:
    """Move the running statistics by BN's momentum, or for momentum=None to the mean over all batches."""
    if bn.running_mean is None or bn.running_var is None or bn.num_batches_tracked is None:
        return
    bn.num_batches_tracked.add_(1)
    running = [bn.running_mean, bn.running_var]
    batch = [mean.to(bn.running_mean.dtype), unbiased.to(bn.running_var.dtype)]
    if bn.momentum is None:
        share = bn.num_batches_tracked.to(bn.running_mean.dtype).reciprocal()
        torch._foreach_lerp_(running, batch, [share, share])
    else:
        torch._foreach_lerp_(running, batch, bn.momentum)
