"""Named streams, and numbers that belong to a sample."""

import numpy as np
import torch

from senet.data.streams import _split_mix, uniform


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.int64)


def test_split_mix_is_the_published_generator():
    """The first outputs of its authors' C program from the state 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert _split_mix(np.uint64(1234567), np.arange(4)).tolist() == expected


def test_a_samples_numbers_are_the_same_in_any_company():
    ids, draws = torch.arange(50), torch.arange(50) % 3
    everything = uniform(7, ids, draws, 5)
    some = torch.tensor([4, 33, 17])
    assert uniform(7, some, draws[some], 5).equal(everything[some])
    assert uniform(7, some, draws[some], 3).equal(everything[some, :3])
    assert not (uniform(8, ids, draws, 5) == everything).any()
    assert not (uniform(7, ids, draws + 1, 5) == everything).any()


def test_numbers_are_uniform_and_independent():
    count = 100_000
    for seed in (0, 2**63 - 1):
        numbers = torch.cat(
            [
                uniform(seed, torch.arange(count), zeros(count), 3),
                uniform(seed, torch.arange(count), zeros(count) + 1, 2),
            ],
            1,
        ).double()
        assert 0 <= numbers.min() < 1e-4
        assert 1 - 1e-4 < numbers.max() < 1
        for column in numbers.unbind(1):
            counts = torch.histc(column, 64, 0, 1)
            chi2 = ((counts - count / 64) ** 2 / (count / 64)).sum()
            assert 25 < chi2 < 115  # 63 degrees of freedom: p = 1e-5 on either side
        neighbours = torch.cat([numbers[1:], numbers[:-1]], 1)
        correlation = torch.corrcoef(neighbours.T).fill_diagonal_(0)
        assert correlation.abs().max() < 5 / count**0.5
