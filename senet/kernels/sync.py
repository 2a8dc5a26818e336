"""Batch statistics over several processes (SyncBN): one collective forwards, one backwards."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import distributed_c10d


def _resolve(group: str) -> dist.ProcessGroup:
    # Operators take strings, not groups; torch's functional collectives resolve them in the same way.
    resolve: Callable[[str], dist.ProcessGroup] = vars(distributed_c10d)["_resolve_process_group"]
    return resolve(group)


def gather_statistics(mean: Tensor, var: Tensor, count: int, group: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and biased variance (C,) over all ranks' values, and how many values per channel they are.

    Means and variances are combined around the common mean; sums of squares would lose digits where the mean
    is large. Ranks may hold different numbers of values.
    """
    process_group = _resolve(group)
    mine = torch.cat((mean, var, mean.new_tensor([count])))
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
    totals = torch.cat((dweight, dbias, dweight.new_tensor([count])))
    dist.all_reduce(totals, group=_resolve(group))
    dweight, dbias = (totals[:-1] / totals[-1]).chunk(2)
    return dweight, dbias
