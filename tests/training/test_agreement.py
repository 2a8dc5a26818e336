"""All ranks hold the same weights: any changed bit or exchanged value is seen, and the rank is named."""

from types import SimpleNamespace

import pytest
import torch

from senet.training.callbacks.checks import RanksAgree, checksum


def test_checksum_sees_every_bit_and_every_place():
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 5, generator=generator), torch.randn(4, generator=generator).half()]
    reference = checksum(tensors)
    assert checksum([t.clone() for t in tensors]) == reference
    assert (
        checksum([tensors[0].t().contiguous().t(), tensors[1]]) == reference
    )  # memory layout is no difference
    for index, tensor in enumerate(tensors):
        integers = tensor.view(torch.int32 if index == 0 else torch.int16).flatten()
        for place in range(len(integers)):
            changed = integers.clone()
            changed[place] ^= 1  # the last bit of the mantissa
            pair = list(tensors)
            pair[index] = changed.view(tensor.dtype).view_as(tensor)
            assert checksum(pair) != reference
    assert checksum([tensors[0].flip(0), tensors[1]]) != reference
    assert checksum([torch.tensor([0.0])]) != checksum([torch.tensor([-0.0])])


@pytest.mark.slow
def test_a_rank_that_drifts_stops_all_at_the_next_check(free_port: int):
    import torch.multiprocessing as mp

    results = mp.Manager().list()
    mp.spawn(_drift, args=(free_port, results), nprocs=2)
    assert len(results) == 2
    for steps, text in results:
        assert steps == [0, 2, 4]
        assert "no longer agree at step 4" in text
        assert "rank 1: config" in text
        assert "weights" in text


def _drift(rank: int, port: int, results: list) -> None:
    import torch.distributed as dist

    from senet import UserError

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    module = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(module.weight)
    torch.nn.init.ones_(module.bias)
    trainer = SimpleNamespace(global_step=0, world_size=2)
    callback, checked = RanksAgree("config 0, seed 0", every=2), [0]
    callback.on_train_start(trainer, module)
    try:
        for step in range(1, 9):
            trainer.global_step = step
            if step == 3 and rank == 1:
                module.bias.data[0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
            if step % 2 == 0:
                checked.append(step)
            callback.on_train_batch_end(trainer, module, None, None, 0)
    except UserError as error:
        results.append((checked, str(error)))
    dist.destroy_process_group()
