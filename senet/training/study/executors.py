"""Where jobs run: processes of this machine, SLURM through submitit, or a Ray cluster, behind three methods."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from senet.errors import UserError, did_you_mean
from senet.training.launch import Machines

GONE = -1
"""Exit status of a process that ended unseen."""

_FOREIGN = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "RANK", "ROLE_RANK", "WORLD_SIZE")
_FOREIGN_PREFIXES = ("MASTER_", "TORCHELASTIC_", "SLURM_", "WANDB_RUN", "WANDB_SWEEP", "PET_")


@dataclass(frozen=True)
class Slot:
    """What a job on this machine has for itself: GPUs by their index, and CPU cores."""

    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()


class Executor(Protocol):
    """Starts jobs. A handle is a text that also a later driver can ask about."""

    def submit(self, run: Path, slot: Slot) -> str:
        """Start the job of a run directory; return its handle."""

    def poll(self, handle: str) -> int | None:
        """Return the exit status, ``None`` while the job runs, ``GONE`` if it ended unseen."""

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Ask a job to save and end, or with ``now`` end it."""


def job_environment(gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """Return this process's environment without what belongs to its own ranks, SLURM step or wandb run."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if key not in _FOREIGN and not key.startswith(_FOREIGN_PREFIXES)
    }
    return environment | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})


def job_command(run: Path) -> list[str]:
    """Return the command of a job's own process; it ends when this process does."""
    return [sys.executable, "-m", "senet.training.study.job", str(run), str(os.getpid())]


class LocalProcesses:
    """Jobs as process groups of this machine, each with its own cores and GPUs."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, run: Path, slot: Slot) -> str:
        """Start a process; its output goes to ``output.txt`` in the run directory."""
        before = os.sched_getaffinity(0)
        try:
            if slot.cores:  # a child inherits the cores of the thread that starts it
                os.sched_setaffinity(0, slot.cores)
            with (run / "output.txt").open("ab") as output:
                process = subprocess.Popen(
                    job_command(run),
                    env=job_environment(slot.gpus),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
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
        return None if b"senet.training.study.job" in command else GONE

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Send SIGTERM to the process, or SIGKILL to its group."""
        process = self._processes.get(handle)
        if process is None or process.poll() is not None:
            return
        if now:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.terminate()


class RunJob:
    """A job as a function for an engine that runs functions: start its process, wait, return its status.

    Args:
        machines: finds the machines of the job, where it runs; ``None`` if it has one.
    """

    def __init__(self, machines: Callable[[], Machines] | None = None) -> None:
        self._machines = machines

    def __call__(self, run: Path) -> int:
        """Run the job; an interrupt becomes its orderly stop."""
        machines = self._machines() if self._machines else Machines()
        with (run / "output.txt").open("ab") as output:
            process = subprocess.Popen(
                job_command(run),
                env=job_environment() | machines.variable(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._process = process
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.terminate()

    def checkpoint(self, run: Path) -> Any:
        """Save and queue the job again: submitit calls this before a time limit or a preemption."""
        from submitit.helpers import DelayedSubmission

        self._process.terminate()
        self._process.wait()
        return DelayedSubmission(RunJob(self._machines), run)


def slurm_machines() -> Machines:
    """Return the machines that SLURM gave the job of this process, one task on each."""
    from submitit import JobEnvironment

    job = JobEnvironment()
    if job.num_nodes == 1:
        return Machines()
    port = 20_000 + int(job.raw_job_id) % 20_000  # every task must name the same before they can talk
    return Machines(job.node, job.num_nodes, f"{job.hostnames[0]}:{port}")


class Submitit:
    """Jobs through submitit: SLURM, whose jobs outlive the driver, or submitit's local processes.

    Args:
        folder: submitit's files.
        parameters: of ``submitit.AutoExecutor``; ``cluster`` chooses "slurm" or "local".
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise UserError(
                "launcher=submitit needs the submitit package: install senet[submitit]"
            ) from error
        settings = dict(parameters)
        self._folder, self._cluster = folder, str(settings.pop("cluster", "slurm"))
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=self._cluster)
            self._executor.update_parameters(**settings)
        except (RuntimeError, ValueError, NameError, AssertionError) as error:
            raise UserError(f"launcher=submitit: {str(error).strip().splitlines()[0]}") from error
        classes = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
        self._job_class: Any = classes[self._cluster]
        self._jobs: dict[str, Any] = {}

    def submit(self, run: Path, slot: Slot) -> str:
        """Queue a job; the engine chooses its machine."""
        job = self._executor.submit(RunJob(slurm_machines), run)
        self._jobs[job.job_id] = job
        return str(job.job_id)

    def poll(self, handle: str) -> int | None:
        """Return the status that the job's process ended with."""
        if handle not in self._jobs:
            self._jobs[handle] = self._job_class(self._folder, handle)
        job = self._jobs[handle]
        if not job.done():
            return None
        try:
            return int(max(job.results()))
        except Exception:  # it is in the engine's log; the run's record says how far the job came
            return GONE

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Cancel the job: the engine sends SIGTERM first."""
        self.poll(handle)
        self._jobs[handle].cancel(check=False)


class Ray:
    """Jobs as tasks of a Ray cluster; they end with the driver.

    Args:
        parameters: ``address`` of the cluster, and ``cpus`` and ``gpus`` of a job.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            raise UserError("launcher=ray needs the ray package: install senet[ray]") from error
        self._ray = ray
        logging.getLogger("ray").setLevel(logging.ERROR)
        options: dict[str, Any] = {
            "ignore_reinit_error": True,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        ray.init(address=parameters.get("address"), **options)
        resources = {"num_cpus": parameters.get("cpus", 1), "num_gpus": parameters.get("gpus", 0)}
        self._task: Any = ray.remote(max_retries=0, **resources)(lambda run: RunJob()(Path(run)))
        self._tasks: dict[str, Any] = {}

    def submit(self, run: Path, slot: Slot) -> str:
        """Start a task; Ray sets its GPUs."""
        task = self._task.remote(str(run))
        handle = str(task.hex())
        self._tasks[handle] = task
        return handle

    def poll(self, handle: str) -> int | None:
        """Return the status that the task's process ended with."""
        task = self._tasks.get(handle)
        if task is None:
            return GONE
        if not self._ray.wait([task], timeout=0)[0]:
            return None
        try:
            return int(self._ray.get(task))
        except self._ray.exceptions.RayError:
            return GONE

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Interrupt the task, which stops its process in order."""
        self._ray.cancel(self._tasks[handle], force=now)


@dataclass(frozen=True)
class LauncherConfig:
    """Where the jobs of a study run.

    Attributes:
        executor: "local", "submitit" or "ray".
        slots: "JxD": J jobs at once of D devices each.
        parameters: of the engine.
    """

    executor: str
    slots: str | int | None
    parameters: dict[str, Any]


def build_executor(config: LauncherConfig, study: Path) -> Executor:
    """Return the executor that ``launcher=`` names."""
    if config.executor == "local":
        return LocalProcesses()
    if config.executor == "submitit":
        return Submitit(study / "submitit", config.parameters)
    if config.executor == "ray":
        return Ray(config.parameters)
    raise UserError(
        f'launcher.executor="{config.executor}"{did_you_mean(config.executor, ("local", "submitit", "ray"))}'
    )


def build_slots(config: LauncherConfig, devices: int, gpus: list[str]) -> list[Slot]:
    """Return the slots of ``launcher.slots``: how many jobs run at once, and on this machine with what.

    Args:
        config: the launcher.
        devices: of each job on each machine, as ``trainer.devices`` says.
        gpus: this machine's, empty if the jobs run on its CPU.

    Raises:
        UserError: if the text is not JxD, or D is not ``devices``, or there are not that many GPUs.
    """
    local = config.executor == "local"
    count = (max(1, len(gpus) // devices) if gpus else 1) if local else 64
    if config.slots is not None:
        jobs, _, each = str(config.slots).partition("x")
        if not (jobs.isdigit() and each.isdigit() and int(jobs) and int(each)):
            raise UserError(
                f"launcher.slots={config.slots} must be JxD, e.g. 4x2: 4 jobs at once of 2 devices each"
            )
        count = int(jobs)
        if int(each) != devices:
            raise UserError(
                f"launcher.slots={config.slots}: {each} devices per job, but trainer.devices={devices}"
            )
    if not local:
        return [Slot()] * count
    if gpus and count * devices > len(gpus):
        raise UserError(
            f"launcher.slots={config.slots} needs {count * devices} GPUs; there are {len(gpus)} here"
        )
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // count)
    return [
        Slot(
            tuple(gpus[i * devices : (i + 1) * devices]),
            tuple(cores[(i * share + k) % len(cores)] for k in range(share)),
        )
        for i in range(count)
    ]
