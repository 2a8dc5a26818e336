"""Two ranks with unequal shares of a batch give what one process gives with all of it."""

import os

import pytest
import torch
import torch.distributed as dist
from interpreting import interpret_triton
from ranks import run_ranks
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from senet import SEConfig
from senet.kernels import sync, tail as dispatch
from senet.nn import ResidualTail
from senet.nn.batchnorm import SyncBatchNorm2d, synchronise, unsynchronise

SHARES = (slice(0, 3), slice(3, 5))
KINDS = ("ours", "torch")
DEVICE = "cuda" if torch.cuda.device_count() >= 2 else "cpu"


def tail_and_maps(mean: float = 50.0) -> tuple[ResidualTail, list[torch.Tensor]]:
    torch.manual_seed(0)
    tail = ResidualTail(6, SEConfig(reduction=2))
    nn.init.normal_(tail.bn.weight)
    nn.init.normal_(tail.bn.bias)
    x, shortcut, dy = torch.randn(3, 5, 6, 3, 4).unbind()
    return tail, [x + mean, shortcut, dy]


def gradients(tail: ResidualTail, maps: list[torch.Tensor], kernels: str) -> dict[str, torch.Tensor]:
    x, shortcut, dy = (m.detach().to(DEVICE) for m in maps)
    leaves = {"x": x.requires_grad_(), "shortcut": shortcut.requires_grad_()} | dict(tail.named_parameters())
    y = dispatch.residual_tail(x, shortcut, tail.bn, tail.se, kernels)
    found = torch.autograd.grad(y, list(leaves.values()), dy)
    return dict(zip(leaves, found, strict=True)) | {"y": y.detach()}


def synchronised(kind: str) -> ResidualTail:
    tail, _ = tail_and_maps()
    if kind == "torch":
        tail = nn.SyncBatchNorm.convert_sync_batchnorm(tail)
    return (synchronise(tail) if kind == "ours" else tail).to(DEVICE)


def run_rank(rank: int, port: int, results: str) -> None:
    interpret_triton()  # a new process
    torch.set_num_threads(1)
    if DEVICE == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if DEVICE == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found: dict[str, object] = {}
    for kernels in ("auto", "triton"):
        for kind in KINDS:
            tail = synchronised(kind)
            maps = [m[SHARES[rank]] for m in tail_and_maps()[1]]
            mine = gradients(tail, maps, kernels)
            for name, _ in tail.named_parameters():
                dist.all_reduce(mine[name])
            buffers = {name: b.cpu() for name, b in tail.named_buffers()}
            found[f"{kernels} {kind}"] = {n: t.cpu() for n, t in mine.items()} | buffers
    torch.save(found, f"{results}/{rank}.pt")
    dist.barrier()  # nobody tears down what the other still uses
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_ranks_equal_one_process(tmp_path: object, free_port: int):
    run_ranks(run_rank, free_port, str(tmp_path))
    ranks = [torch.load(f"{tmp_path}/{rank}.pt", weights_only=True) for rank in range(2)]
    tail, maps = tail_and_maps()
    tail = tail.double()
    expected = {
        n: t.cpu() for n, t in gradients(tail.to(DEVICE), [m.double() for m in maps], "eager").items()
    }
    expected |= {n: b.cpu() for n, b in tail.named_buffers()}
    assert set(ranks[0]) == {f"{kernels} {kind}" for kernels in ("auto", "triton") for kind in KINDS}
    for way in ranks[0]:
        for name, exact in expected.items():
            if name in ("x", "shortcut", "y"):
                ours = torch.cat([rank[way][name] for rank in ranks])
            else:
                ours = ranks[0][way][name]
                assert torch.equal(ours, ranks[1][way][name]), (way, name)
            torch.testing.assert_close(
                ours.to(exact.dtype), exact, rtol=2e-4, atol=2e-4, msg=lambda m, at=(way, name): f"{at}: {m}"
            )


def test_environment_reaches_the_ranks():
    """The ranks above are new processes: they interpret Triton because this one's environment says so."""
    assert DEVICE == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


class Watched(TorchDispatchMode):
    """Notes every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_counts_are_made_where_the_sums_are(monkeypatch: pytest.MonkeyPatch):
    """A number that is made on the host and copied holds a GPU up, twice per tail and step."""
    monkeypatch.setattr(sync, "_resolve", lambda group: None)
    monkeypatch.setattr(dist, "get_world_size", lambda group: 1)
    monkeypatch.setattr(dist, "all_gather_into_tensor", lambda out, mine, group: out.copy_(mine))
    monkeypatch.setattr(dist, "all_reduce", lambda totals, group: None)
    with Watched() as watched:
        mean, var, count = sync.gather_statistics(torch.ones(3), torch.full((3,), 2.0), 5, "g")
        sync.mean_gradients(torch.ones(3), torch.ones(3), 5, "g")
    assert (mean.tolist(), var.tolist(), float(count)) == ([1.0] * 3, [2.0] * 3, 5.0)
    assert not watched.seen & {"lift_fresh", "_to_copy", "scalar_tensor", "_local_scalar_dense"}


def test_a_gpu_has_torchs_own_synchronised_norm():
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu = synchronise(torch.nn.Sequential(torch.nn.BatchNorm2d(4, device="cuda")))
    assert type(on_gpu[0]) is torch.nn.SyncBatchNorm
    assert type(synchronise(torch.nn.Sequential(torch.nn.BatchNorm2d(4)))[0]) is SyncBatchNorm2d
    assert type(unsynchronise(on_gpu)[0]) is torch.nn.BatchNorm2d
