"""Two data-parallel ranks with fused tails: eager's gradients, and no copy that the wrapper warns of."""

import warnings

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from senet import SEConfig
from senet.kernels import tail as dispatch
from senet.nn import ResidualTail, set_kernels

SHAPE = (2, 64, 32, 32)  # large enough for a CPU to fuse


class TailOfMaps(nn.Module):
    """A tail behind a convolution, so that gradients arrive in the order of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 1)
        self.tail = ResidualTail(64, SEConfig(reduction=4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.conv(x), x)


def gradients(rank: int, kernels: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network = TailOfMaps().to(memory_format=torch.channels_last)
    nn.init.normal_(network.tail.bn.bias)
    set_kernels(network, kernels)
    wrapped = DistributedDataParallel(network, gradient_as_bucket_view=True)
    torch.manual_seed(1 + rank)
    for _ in range(2):
        x = torch.randn(SHAPE).contiguous(memory_format=torch.channels_last)
        wrapped.zero_grad()
        wrapped(x).square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def run_rank(rank: int, port: int, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    calls: list[str] = []
    fused_tail = dispatch.fused_tail
    dispatch.fused_tail = lambda *arguments: calls.append(arguments[-1]) or fused_tail(*arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fused = gradients(rank, "auto")
        assert calls == ["aten"] * 2
        eager = gradients(rank, "eager")
    assert len(calls) == 2
    torch.save({"fused": fused, "eager": eager}, f"{results}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_ranks_have_eagers_gradients_and_no_strides_to_mend(tmp_path: object, free_port: int):
    run_ranks(run_rank, free_port, str(tmp_path))
    ranks = [torch.load(f"{tmp_path}/{rank}.pt", weights_only=True) for rank in range(2)]
    for fused, eager, other in zip(ranks[0]["fused"], ranks[0]["eager"], ranks[1]["fused"], strict=True):
        assert torch.equal(fused, other)
        torch.testing.assert_close(fused, eager, rtol=1e-4, atol=1e-6)
