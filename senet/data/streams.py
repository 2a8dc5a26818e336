"""Named random streams: every random number of a run is a pure function of one seed and a name.

The order of an epoch is the stream ("order", epoch); the augmentation of a sample is ("augment", epoch, id);
the randomness of a training step (dropout, mixing) is ("step", step, rank). Nothing depends on the number of
workers, on the number of devices (but for the step's rank), or on what happened before a resume.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
