import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ranks import run_ranks
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from senet import UserError, create_model
from senet.integrations import timm_norms  # noqa: F401 (timm's norms, to synchronise)
from senet.nn.batchnorm import SyncBatchNorm2d, average_running_statistics, synchronise, unsynchronise


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


def test_timms_norms_keep_their_activation():
    norm = BatchNormAct2d(3)
    expected = norm(_images())
    assert isinstance(synchronise(norm), SyncBatchNorm2d)
    norm.reset_running_stats()
    torch.testing.assert_close(norm(_images()), expected)
    assert float(expected.detach().min()) == 0
    assert type(unsynchronise(norm)) is BatchNormAct2d


def test_no_norm_of_a_network_is_left_alone():
    with torch.device("meta"):
        network = synchronise(create_model("se_inception_resnet_v2"))
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 200
    assert all(isinstance(norm, SyncBatchNorm2d) for norm in norms)


def test_a_norm_that_cannot_span_ranks_is_refused():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.BatchNorm1d(3))
    with pytest.raises(UserError, match=r"^2 is BatchNorm1d"):
        synchronise(network)
    assert type(network[0]) is nn.BatchNorm2d
