"""Named random streams: every random number of a run is a pure function of one seed and a name.

The order of an epoch is the stream ("order", epoch); the augmentation of a sample is ("augment", epoch, id) in a
worker, and for what follows in batches ``uniform`` of ("batch", epoch) and its id; the randomness of a training step
(dropout, mixing) is ("step", step, rank). Nothing depends on the number of workers, on the number of devices (but for
the step's rank), or on what happened before a resume.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stream_seed(seed: int, *name: str | int) -> int:
    """Return a 63-bit seed for the stream ``name`` of the run's ``seed``."""
    text = "/".join(str(part) for part in (seed, *name))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def stream(seed: int, *name: str | int) -> torch.Generator:
    """Return a CPU generator at the start of the stream ``name``."""
    return torch.Generator().manual_seed(stream_seed(seed, *name))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's CPU generator start from ``seed`` within the block; no other generator is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def uniform(seed: int, ids: Tensor, draws: Tensor, width: int) -> Tensor:
    """Return numbers in [0, 1), float32 (B, width), each a function of seed, id, draw and column alone.

    Sample by sample the sequence of a SplitMix64 (Steele, Lea, Flood 2014) that starts at the hash of seed, id, draw.

    Args:
        seed: below 2 ** 64.
        ids: int64 (B,).
        draws: int64 (B,).
        width: numbers per sample.
    """
    start = _split_mix(_split_mix(np.uint64(seed), ids.numpy()), draws.numpy())
    bits = _split_mix(start[:, None], np.arange(width))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24))


def _split_mix(state: Any, index: Any) -> Any:
    """Return the ``index``-th number, from 0, of the SplitMix64 that starts at ``state``; uint64 arrays."""
    bits = state + np.uint64(0x9E3779B97F4A7C15) * (index.astype(np.uint64) + np.uint64(1))
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
