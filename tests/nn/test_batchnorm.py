import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ranks import run_ranks
from torch import nn

from senet.nn.batchnorm import average_running_statistics, synchronise, unsynchronise


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4)
    )


def _images() -> torch.Tensor:
    # A large mean: E[x^2] - mean^2 in float32 would lose most digits.
    return torch.randn(7, 3, 5, 5, generator=torch.Generator().manual_seed(1)) + 50


def _rank(rank: int, port: int, results: dict) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    network = synchronise(_network())
    share = _images()[[0, 1, 2, 3]] if rank == 0 else _images()[[4, 5, 6]]  # unequal shares
    loss = network(share).square().sum()
    loss.backward()
    grads = [p.grad.clone() for p in network.parameters()]
    for grad in grads:
        dist.all_reduce(grad)
    plain = nn.BatchNorm2d(2)
    plain.running_mean += rank
    average_running_statistics(plain)
    if rank == 0:
        results["grads"] = [g.tolist() for g in grads]
        results["buffers"] = [b.tolist() for b in network.buffers()]
        results["averaged"] = plain.running_mean.tolist()
    dist.destroy_process_group()


def test_two_ranks_equal_one_process(free_port: int):
    results = mp.Manager().dict()
    run_ranks(_rank, free_port, results)
    network = _network()
    network(_images()).square().sum().backward()
    for ours, parameter in zip(results["grads"], network.parameters(), strict=True):
        torch.testing.assert_close(torch.tensor(ours), parameter.grad, rtol=1e-3, atol=1e-3)
    for ours, buffer in zip(results["buffers"], network.buffers(), strict=True):
        torch.testing.assert_close(torch.tensor(ours), buffer, rtol=1e-5, atol=1e-5, check_dtype=False)
    assert results["averaged"] == [0.5, 0.5]


def test_conversion_keeps_keys_and_can_be_undone():
    network = _network()
    keys = list(network.state_dict())
    synchronise(network)
    assert list(network.state_dict()) == keys
    assert type(unsynchronise(network)[1]) is nn.BatchNorm2d
