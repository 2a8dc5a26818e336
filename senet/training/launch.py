"""The ranks of a job and its machines: how many there are, how they start, meet, compare and stop.

A job of N processes is started by torch's elastic agent, which picks the port, watches the ranks, and ends all of
them when one fails. Under ``torchrun`` the processes exist already.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from senet.errors import UserError, in_a_line
from senet.processes import children, environment, processes
from senet.training.console import MISUSED, rank, say_from_handler

T = TypeVar("T")
PATIENCE = timedelta(minutes=10)
"""How long a rank waits for the others before it gives the job up; NCCL's own default."""
_SILENCE = "not answer within"
_LOST = re.compile(r"gloo|nccl|timed out waiting|connection closed by peer", re.IGNORECASE)
"""What torch says where a rank did not answer."""


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
        return cls(**json.loads(os.environ.get(cls.VARIABLE, "{}")))

    def variable(self) -> dict[str, str]:
        """Return the environment variable for the job's process on this machine."""
        return {self.VARIABLE: json.dumps(asdict(self))}


def check_machines(trainer: Mapping[str, Any], found: int) -> None:
    """Refuse a job on another number of machines than ``trainer.num_nodes`` says.

    Raises:
        UserError: saying how to start one on many.
    """
    asked = trainer.get("num_nodes") or 1
    if asked != found:
        raise UserError(
            f"trainer.num_nodes={asked}, but the job runs on {found}: start it on every machine with "
            "torchrun --nnodes, or let SLURM do that: train.py -m launcher=submitit trainer.num_nodes=N ..."
        )


def accelerator(trainer: Mapping[str, Any]) -> str:
    """Return "cpu", "cuda" or what else the trainer section asks for, "auto" resolved.

    Raises:
        UserError: for a GPU where there is none, or a precision the CPU cannot do.
    """
    kind = str(trainer.get("accelerator", "auto"))
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UserError(
            f"trainer.accelerator={kind}: torch sees no CUDA device here; use trainer.accelerator=cpu, or check "
            "the driver with nvidia-smi"
        )
    if kind == "cpu" and str(trainer.get("precision", "")).startswith("16"):
        raise UserError("trainer.precision=16-mixed needs a GPU; on a CPU use trainer.precision=bf16-mixed")
    return "cuda" if kind == "gpu" else kind


def precision(trainer: Mapping[str, Any]) -> str:
    """Return ``trainer.precision``; "auto" is bf16-mixed where the device computes in bfloat16, else 32-true."""
    asked = str(trainer.get("precision") or "32-true")
    if asked == "auto":
        return "bf16-mixed" if _computes_in_bfloat16(accelerator(trainer)) else "32-true"
    return asked


def dtype_of_maps(trainer: Mapping[str, Any]) -> torch.dtype:
    """Return the type in which the network passes its maps on."""
    types = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}
    return types.get(precision(trainer).partition("-")[0], torch.float32)


def slow_precision(trainer: Mapping[str, Any]) -> str | None:
    """Return a warning if the device has to imitate the precision asked for, which takes many times longer."""
    kind = accelerator(trainer)
    if not precision(trainer).startswith("bf16") or _computes_in_bfloat16(kind):
        return None
    device = "GPU" if kind == "cuda" else kind.upper()
    return (
        f"{precision(trainer)} is imitated: this {device} has no instructions for bfloat16, and takes many "
        "times as long as in float32; use trainer.precision=auto"
    )


def _computes_in_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def process_count(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes on this machine that ``trainer.devices`` asks for.

    Raises:
        UserError: for other GPUs than there are, or a value that is no device count.
    """
    devices = trainer.get("devices", 1)
    gpus = range(torch.cuda.device_count()) if accelerator(trainer) == "cuda" else None
    if devices in ("auto", -1, "-1"):
        return len(gpus or (0,))
    if isinstance(devices, list | tuple):
        if not devices or gpus is None or len({*devices} & {*gpus}) < len(devices):
            raise UserError(
                f"trainer.devices={devices}: a list names GPUs that there are, each once by its number from 0"
            )
        return len(devices)
    try:
        count = int(devices)
    except (TypeError, ValueError) as error:
        raise UserError(
            f'trainer.devices={devices!r} must be a number, a list of GPU indices, or "auto"'
        ) from error
    if count < 1:
        raise UserError(f"trainer.devices={devices} must be 1 or more")
    if gpus is not None and count > len(gpus):
        raise UserError(f"trainer.devices={devices}: there are {len(gpus) or 'no'} GPUs here")
    return count


def world_size(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes on all machines."""
    return process_count(trainer) * int(trainer.get("num_nodes") or 1)


def join_group(trainer: Mapping[str, Any]) -> None:
    """Join the process group the environment describes, and share the cores among the local ranks."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if accelerator(trainer) == "cpu" and local > 1:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local))
    backend = "cpu:gloo,cuda:nccl" if accelerator(trainer) == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    if local != process_count(trainer):
        raise UserError(
            f"trainer.devices={trainer.get('devices')}, but {local} ranks were started per machine"
        )
    check_machines(trainer, dist.get_world_size() // local)


def everyone(mine: T) -> list[T]:
    """Return what every rank of the job has to say, by rank."""
    if not dist.is_initialized():
        return [mine]
    said: list[T] = [mine] * dist.get_world_size()
    dist.all_gather_object(said, mine)
    return said


def compare_ranks(mine: str, what: str) -> None:
    """Compare one line of every rank and refuse to go on if they are not all the same.

    Raises:
        UserError: on every rank, naming the ranks that differ from rank 0.
    """
    first, *others = everyone(mine)
    different = [f"rank {r}: {text}" for r, text in enumerate(others, start=1) if text != first]
    if different:
        raise UserError(f"the ranks of this job {what}: rank 0: {first}; {'; '.join(different)}")


def describe_lost(error: Exception) -> str | None:
    """Return what an error says of another rank that is gone or silent; None for any other error."""
    if not dist.is_initialized() or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
        return None
    silent = f"did {_SILENCE} {PATIENCE.total_seconds() / 60:g} min"
    ranks = {pid: environment(pid).get("RANK") for pid in children(os.getppid())}
    stopped = [pid for pid, entry in processes().items() if ranks.get(pid) and entry.state in "Tt"]
    if stopped:
        whose = " and ".join(f"rank {ranks[pid]}, process {pid}," for pid in stopped)
        return f"{whose} was stopped (SIGSTOP) and {silent}"
    if re.search("timed out|timeout", str(error), re.IGNORECASE):
        return f"another rank hangs: it {silent}"
    return f"rank {rank()} lost the connection to another rank, which ended without a word"


def is_silence(error: str | None) -> bool:
    """Whether a run failed for a rank that did not answer, which is killed afterwards."""
    return _SILENCE in (error or "")


def describe_exit(status: int) -> str:
    """Return an exit status in words; a process that a signal ended has 128 + its number, or minus it."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"with status {status}"
    hint = " (kill -9, or the system was out of memory)" if number == signal.SIGKILL else ""
    return f"by {signal.Signals(number).name}{hint}"


def start_ranks(command: list[str], run_id: str, processes: int, machines: Machines) -> int:
    """Start this machine's ranks of a job, each ``python COMMAND``; return the exit status of the first that failed."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=machines.count,
        max_nodes=machines.count,
        nproc_per_node=processes,
        run_id=run_id,
        rdzv_backend="c10d",
        rdzv_endpoint=machines.meeting,
        rdzv_configs={"is_host": machines.index == 0},
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
        local_addr="127.0.0.1" if machines.meeting.startswith(("localhost:", "127.")) else None,
    )
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):  # the failing rank has said why, in its own words
            logging.getLogger(name).setLevel(logging.CRITICAL)
    # Which signals the agent passes on to the ranks.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ",".join(number.name for number in STOP_SIGNALS)
    try:
        elastic_launch(config, sys.executable)(*command)
    except ChildFailedError as error:
        return _cause([failure.exitcode for failure in error.failures.values()])
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


def _cause(codes: list[int]) -> int:
    """Return the exit status of the rank that failed of itself, by how all of them ended.

    A rank that was killed takes the connections of the others with it; a mistake was told in its own words.
    """
    killed = [
        code for code in codes if code < 0 and code != -signal.SIGTERM
    ]  # by which the agent ends the rest
    own = killed or [code for code in codes if code == MISUSED] or codes
    return 128 - own[0] if own[0] < 0 else max(1, own[0])  # minus a signal, as the shell counts


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


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What asks a run to save and end: a terminal, a container, a scheduler before its time limit."""


def stop_handlers() -> dict[signal.Signals, Any]:
    """Return who handles the stop signals now, but for a SIGHUP that nohup has ignored: so it stays."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    return {n: h for n, h in handlers.items() if (n, h) != (signal.SIGHUP, signal.SIG_IGN)}


class StopRequest:
    """A signal to stop: at once, or in training ``orderly``: all ranks finish the same step, save and end.

    Attributes:
        signal: the first one received.
        failure: what went wrong beside the training, which ends the run in the same way.
        orderly: whether whoever holds this looks at ``agreed`` after every step.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.failure: str | None = None
        self.orderly = False
        self._first = 0.0
        # Elsewhere Python lets nobody take them.
        self._previous = stop_handlers() if threading.current_thread() is threading.main_thread() else {}
        self.listen()

    def listen(self) -> None:
        """Take the signals, also back from a library that took them."""
        for number in self._previous:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        first, now = self.signal is None, time.monotonic()
        if first:
            self.signal, self._first = number, now
        if not self.orderly:
            raise KeyboardInterrupt
        if first and rank() == 0:
            say_from_handler("stopping after this step, with a checkpoint (Ctrl-C again stops at once)")
        # The terminal and the agent may both deliver one Ctrl-C.
        if not first and number == signal.SIGINT and now - self._first > 1.0:
            raise KeyboardInterrupt

    def agreed(self) -> bool:
        """Return whether any rank was asked to stop; all ranks ask this after the same step.

        No rank may leave by itself: the others would wait for it, or use its half of a reduction for another.
        """
        asked = torch.tensor((self.signal is not None, self.failure is not None), dtype=torch.int32)
        if dist.is_initialized():
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            if asked[1]:
                self.failure = next(text for text in everyone(self.failure) if text)
        return bool(asked.any())

    @contextmanager
    def after(self, what: str) -> Iterator[None]:
        """Let a failure of ``what`` end the run once its state is saved: nothing else that fails may cost a step."""
        try:
            yield
        except Exception as error:
            self.failure = self.failure or f"{what} failed: {in_a_line(error)}"

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
