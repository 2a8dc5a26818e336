"""Processes: one group per job, all started from the one resolved configuration that rank 0 wrote.

A job of one process runs in place. A job of N processes is started by torch's elastic agent, which picks the
port, watches the ranks, and ends all of them when one fails. Under ``torchrun`` the processes exist already:
rank 0's configuration is broadcast to the others.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from senet.errors import UserError
from senet.training.config import config_hash
from senet.training.console import say

OK, FAILED, MISUSED = 0, 1, 2
"""Exit statuses: success, a failure, a mistake of the user's."""


def accelerator(trainer: Mapping[str, Any]) -> str:
    """Return "cpu", "gpu" or what else the trainer section asks for, "auto" resolved.

    Raises:
        UserError: for a GPU where there is none, or a precision the CPU cannot do.
    """
    kind = str(trainer.get("accelerator", "auto"))
    if kind == "auto":
        kind = "gpu" if torch.cuda.is_available() else "cpu"
    if kind in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={kind}: torch sees no CUDA device here; use trainer.accelerator=cpu, or check "
            "the driver with nvidia-smi"
        )
    if kind == "cpu" and str(trainer.get("precision", "")).startswith("16"):
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed")
    return kind


def process_count(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes on this machine that ``trainer.devices`` asks for.

    Raises:
        UserError: for more GPUs than there are, or a value that is no device count.
    """
    devices = trainer.get("devices", 1)
    gpu = accelerator(trainer) in ("gpu", "cuda")
    available = torch.cuda.device_count() if gpu else None
    if devices in ("auto", -1, "-1"):
        count = available or 1
    elif isinstance(devices, list | tuple):
        count = len(devices)
    else:
        try:
            count = int(devices)
        except ValueError as error:
            raise UserError(
                f'trainer.devices={devices!r} must be a number, a list of GPU indices, or "auto"'
            ) from error
    if count < 1 or (available is not None and count > available):
        raise UserError(
            f"trainer.devices={devices}: there are {available or 'no'} GPUs here"
            if gpu
            else f"trainer.devices={devices} must be 1 or more"
        )
    return count


def under_torchrun() -> bool:
    """Whether an outside launcher has already started the ranks of this job."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's rank over all machines."""
    return int(os.environ.get("RANK", 0))


def join_group(trainer: Mapping[str, Any]) -> None:
    """Join the process group the environment describes, and share the cores among the local ranks."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if accelerator(trainer) == "cpu" and local > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    backend = "cpu:gloo,cuda:nccl" if accelerator(trainer) in ("gpu", "cuda") else "gloo"
    dist.init_process_group(backend)


def broadcast(value: Any) -> Any:
    """Return rank 0's ``value`` on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def agree(config: Mapping[str, Any]) -> None:
    """Compare the configuration's hash and seed between all ranks before anything is trained.

    Raises:
        UserError: naming the ranks that differ.
    """
    mine = f"config {config_hash(config)}, seed {config.get('seed')}"
    everyone: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    different = [f"rank {r}: {text}" for r, text in enumerate(everyone) if text != everyone[0]]
    if different:
        raise UserError(
            f"the ranks of this job would not train the same: rank 0: {everyone[0]}; {'; '.join(different)}"
        )


def start_ranks(task: str, directory: Path, processes: int) -> int:
    """Start ``processes`` ranks of a job, wait for them, and return the exit status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=directory.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
        local_addr="127.0.0.1",
    )
    command = ["-m", "senet.training.worker", task, str(directory)]
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # the failing rank has said why, in its own words
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def die_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended: no orphan trains on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()


class StopRequest:
    """Turns Ctrl-C into the orderly stop that SIGTERM already is: finish the step, save, exit."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._first = 0.0
        self._previous = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_interrupt(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._first = number, now
            if rank() == 0:
                say("stopping after this step, with a checkpoint (Ctrl-C again stops at once)")
            os.kill(os.getpid(), signal.SIGTERM)
        elif now - self._first > 1.0:  # the terminal and the agent may both deliver one Ctrl-C
            raise KeyboardInterrupt

    def restore(self) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._previous)
