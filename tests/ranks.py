"""Two processes that talk over gloo, forked from a server that has imported torch and senet once."""

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing as mp


def run_ranks(function: Callable[..., None], *arguments: object) -> None:
    """Call ``function(rank, *arguments)`` in two processes; fails if one fails."""
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed", "senet.nn"])
    mp.start_processes(function, args=arguments, nprocs=2, start_method="forkserver")
