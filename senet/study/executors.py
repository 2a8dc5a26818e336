"""Where jobs run: processes of this machine, or an engine that is an integration, behind three methods."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from senet.errors import UserError
from senet.plugins import integration
from senet.rundir import RunDir

ENGINE_JOBS = 64
"""Most jobs that an engine is given at once where ``launcher.slots`` says nothing; it queues them itself."""
GONE = 1000
"""What stands for the exit status of a process that ended unseen; no process has it, and no signal minus it."""

_FOREIGN = re.compile(
    r"((LOCAL|GROUP|NODE|ROLE)_)?(RANK|WORLD_SIZE)$|(MASTER|TORCHELASTIC|SLURM|PET)_|WANDB_(RUN|SWEEP)"
)
"""The names of what belongs to a process's own ranks, SLURM step or wandb run."""


@dataclass(frozen=True)
class JobSlot:
    """What a job on this machine has for itself: GPUs by their index, and CPU cores."""

    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()


class Executor(Protocol):
    """Starts jobs. A handle is a text that also a later driver can ask about."""

    def submit(self, run: Path, slot: JobSlot) -> str:
        """Start the job of a run directory; return its handle."""

    def poll(self, handle: str) -> int | None:
        """Return the exit status, ``None`` while the job runs, ``GONE`` if it ended unseen."""

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Ask a job to save and end, or with ``now`` end it."""


def job_environment(gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """Return this process's environment without what belongs to its own ranks, SLURM step or wandb run."""
    environment = {key: value for key, value in os.environ.items() if not _FOREIGN.match(key)}
    return environment | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})


def job_command(run: Path) -> list[str]:
    """Return the command of a job's own process; it ends when this process does."""
    return [sys.executable, "-m", "senet.training.jobs", "train", str(run), str(os.getpid())]


def start_job(run: Path, environment: dict[str, str], *, session: bool = False) -> subprocess.Popen[bytes]:
    """Start a job's process, with ``session`` in a process group of its own; its output goes to ``output.txt``."""
    with RunDir(run).output_file.open("ab") as output:
        return subprocess.Popen(
            job_command(run),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=session,
        )


class LocalProcesses:
    """Jobs as process groups of this machine, each with its own cores and GPUs.

    Args:
        study: directory of their runs.
    """

    def __init__(self, study: Path) -> None:
        self._study = study
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, run: Path, slot: JobSlot) -> str:
        """Start a process."""
        before = os.sched_getaffinity(0)
        try:
            if slot.cores:  # a child inherits the cores of the thread that starts it
                os.sched_setaffinity(0, slot.cores)
            process = start_job(run, job_environment(slot.gpus), session=True)
        finally:
            os.sched_setaffinity(0, before)
        handle = str(process.pid)
        self._processes[handle] = process
        return handle

    def poll(self, handle: str) -> int | None:
        """Return how the process ended; one of an earlier driver ends by itself and is only waited for."""
        if handle in self._processes:
            return self._processes[handle].poll()
        try:
            command = Path(f"/proc/{handle}/cmdline").read_bytes()
        except OSError:
            return GONE
        # Another process may have its number by now, the job of another study too.
        mine = b"senet.training.jobs" in command and os.fsencode(self._study) in command
        return None if mine else GONE

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Send SIGTERM to the process, or SIGKILL to its group."""
        process = self._processes.get(handle)
        if process is None or process.poll() is not None:
            return
        if now:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.terminate()


@dataclass(frozen=True)
class LauncherConfig:
    """Where the jobs of a study run.

    Attributes:
        executor: processes of this machine, or an engine.
        slots: "JxD": J jobs at once of D devices each.
        parameters: of the engine.
    """

    executor: Literal["local", "submitit", "ray"]
    slots: str | int | None
    parameters: dict[str, Any]


def build_executor(config: LauncherConfig, study: Path) -> Executor:
    """Return the executor that ``launcher=`` names."""
    name = config.executor
    if name == "local":
        return LocalProcesses(study)
    engine = integration(f"{name}_jobs", package=name, asked=f"launcher={name}", extra=name)
    executor: Executor = engine.executor(study / name, config.parameters)
    return executor


def build_slots(config: LauncherConfig, devices: int, gpus: list[str]) -> list[JobSlot]:
    """Return the slots of ``launcher.slots``: how many jobs run at once, and on this machine with what.

    Args:
        config: the launcher.
        devices: of each job on each machine, as ``trainer.devices`` says.
        gpus: this machine's, empty if the jobs run on its CPU.

    Raises:
        UserError: if the text is not JxD, or D is not ``devices``, or there are not that many GPUs.
    """
    count = _jobs_at_once(config, devices)
    if config.executor != "local":
        return [JobSlot()] * (count or ENGINE_JOBS)
    count = count or max(1, len(gpus) // devices)
    if gpus and count * devices > len(gpus):
        raise UserError(
            f"launcher.slots={config.slots} needs {count * devices} GPUs; there are {len(gpus)} here"
        )
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // count)
    return [
        JobSlot(
            tuple(gpus[i * devices : (i + 1) * devices]),
            tuple(cores[(i * share + k) % len(cores)] for k in range(share)),
        )
        for i in range(count)
    ]


def _jobs_at_once(config: LauncherConfig, devices: int) -> int | None:
    """Return J of ``launcher.slots``, ``None`` if nothing is said."""
    if config.slots is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", str(config.slots), re.ASCII)
    if found is None:
        raise UserError(
            f"launcher.slots={config.slots} must be JxD, e.g. 4x2: 4 jobs at once of 2 devices each"
        )
    jobs, each = map(int, found.groups())
    if each != devices:
        raise UserError(
            f"launcher.slots={config.slots}: {each} devices per job, but trainer.devices={devices}"
        )
    return jobs
