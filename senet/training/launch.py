"""Processes: one group per job, all started from the one resolved configuration that rank 0 wrote.

A job of one process runs in place. A job of N processes is started by torch's elastic agent, which picks the
port, watches the ranks, and ends all of them when one fails. Under ``torchrun`` the processes exist already:
rank 0's configuration is broadcast to the others.
"""

import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from senet.errors import UserError
from senet.training.config import config_hash
from senet.training.console import say
from senet.training.rundir import RunDir

OK, FAILED, MISUSED = 0, 1, 2
"""Exit statuses: success, a failure, a mistake of the user's."""


@dataclass(frozen=True)
class Machines:
    """The machines of one job, which an engine that gives a job several writes into its environment.

    Attributes:
        index: of this machine.
        count: of all machines.
        meeting: HOST:PORT on the first machine, where the ranks find each other.
    """

    index: int = 0
    count: int = 1
    meeting: str = "localhost:0"

    VARIABLE = "SENET_MACHINES"

    @classmethod
    def of_environment(cls) -> "Machines":
        """Read what ``variable`` wrote; without it the job has this machine alone."""
        text = os.environ.get(cls.VARIABLE)
        if text is None:
            return cls()
        index, count, meeting = text.split(",")
        return cls(int(index), int(count), meeting)

    def variable(self) -> dict[str, str]:
        """Return the environment variable for the job's process on this machine."""
        return {self.VARIABLE: f"{self.index},{self.count},{self.meeting}"}


def check_machines(trainer: Mapping[str, Any], found: int) -> None:
    """Refuse a job on another number of machines than ``trainer.num_nodes`` says.

    Raises:
        UserError: saying how to start one on many.
    """
    asked = int(trainer.get("num_nodes") or 1)
    if asked != found:
        raise UserError(
            f"trainer.num_nodes={asked}, but the job runs on {found}: start it on every machine with "
            "torchrun --nnodes, or let SLURM do that: train.py -m launcher=submitit trainer.num_nodes=N ..."
        )


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


def global_batch(batch_size: int, trainer: Mapping[str, Any]) -> int:
    """Return the images of one optimiser step, over all machines, devices and accumulated batches."""
    more = [int(trainer.get(key) or 1) for key in ("num_nodes", "accumulate_grad_batches")]
    return batch_size * process_count(trainer) * math.prod(more)


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
    if local != process_count(trainer):
        raise UserError(
            f"trainer.devices={trainer.get('devices')}, but {local} ranks were started per machine"
        )
    check_machines(trainer, dist.get_world_size() // local)


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
    compare_ranks(f"config {config_hash(config)}, seed {config.get('seed')}", "would not train the same")


def compare_ranks(mine: str, what: str) -> None:
    """Gather one line from every rank and refuse to go on if they are not all the same.

    Raises:
        UserError: on every rank, naming the ranks that differ from rank 0.
    """
    everyone: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    different = [f"rank {r}: {text}" for r, text in enumerate(everyone) if text != everyone[0]]
    if different:
        raise UserError(f"the ranks of this job {what}: rank 0: {everyone[0]}; {'; '.join(different)}")


def run_processes(task: str, run: RunDir, config: Mapping[str, Any]) -> int:
    """Run a job on as many processes as it asks for, in this one if that is one; return the exit status.

    Afterwards the run's record says how it ended, also if no process lived to write it.
    """
    processes = process_count(config["trainer"])
    machines = Machines.of_environment()
    if processes * machines.count > 1 and not under_torchrun():
        status = start_ranks(task, run.path, processes, machines)
    else:
        from senet.training.jobs import run_job  # seconds to import

        status = run_job(task, run, config)
    if status != OK and rank() == 0 and machines.index == 0:
        record = run.record()
        if record["status"] != "interrupted" and not record.get("error"):
            ended = "killed" if status > 128 else "failed"
            run.update(status=ended, error=f"a process ended {describe_exit(status)}")
    return status


def describe_exit(status: int) -> str:
    """Return an exit status in words; a process that a signal ended has 128 + its number, or minus it."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"with status {status}"
    hint = " (kill -9, or the system was out of memory)" if number == signal.SIGKILL else ""
    return f"by {signal.Signals(number).name}{hint}"


def start_ranks(task: str, directory: Path, processes: int, machines: Machines) -> int:
    """Start this machine's ranks of a job, wait for them; return the exit status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=machines.count,
        max_nodes=machines.count,
        nproc_per_node=processes,
        run_id=directory.name,
        rdzv_backend="c10d",
        rdzv_endpoint=machines.meeting,
        rdzv_configs={"is_host": machines.index == 0},
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
        local_addr="127.0.0.1" if machines.meeting.startswith(("localhost:", "127.")) else None,
    )
    command = ["-m", "senet.training.worker", task, str(directory)]
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # the failing rank has said why, in its own words
            logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else max(1, code)  # minus a signal, as the shell counts
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def die_with_parent(parent: int | None = None) -> None:
    """End this process when the one that started it is gone, however it ended: no orphan trains on.

    Args:
        parent: process id of the starter, if it may be gone already; by default the parent there is now.
    """
    parent = parent or os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="die-with-parent").start()


class StopRequest:
    """Ctrl-C and SIGTERM: at once, or in training ``orderly``: all ranks finish the same step, save and end.

    Attributes:
        signal: the first one received.
        orderly: whether whoever holds this looks at ``agreed`` after every step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.orderly = False
        self._first = 0.0
        self._previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self.listen()

    def listen(self) -> None:
        """Take the signals, also back from a library that took them."""
        if threading.current_thread() is threading.main_thread():
            for number in self._previous:
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        first, now = self.signal is None, time.monotonic()
        if first:
            self.signal, self._first = number, now
        if not self.orderly:
            raise KeyboardInterrupt
        if first and rank() == 0:
            say("stopping after this step, with a checkpoint (Ctrl-C again stops at once)")
        # The terminal and the agent may both deliver one Ctrl-C.
        if not first and number == signal.SIGINT and now - self._first > 1.0:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Return whether any rank was asked to stop; all ranks ask this after the same step.

        No rank may leave by itself: the others would wait for it, or use its half of a reduction for another.
        """
        asked = torch.tensor(self.signal is not None, dtype=torch.int32)
        if dist.is_initialized():
            dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    def restore(self) -> None:
        """Give the signals back."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler)
