"""Jobs of a study through submitit: SLURM, whose jobs outlive the driver, or submitit's local processes."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import DelayedSubmission

from senet.errors import UserError, did_you_mean
from senet.integrations.engine import RunJob
from senet.study.executors import GONE, JobSlot
from senet.training.launch import Machines

JOBS: dict[str, Any] = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}
"""The class of the jobs of every cluster that submitit can be told."""
TIMEOUTS = 1000
"""How often a job is queued again because its time is up; submitit gives up after three."""


class RequeuedJob(RunJob):
    """A job on the machines that SLURM gave it, queued again where its time is up."""

    def machines(self) -> Machines:
        """Return what ``slurm_machines`` finds."""
        return slurm_machines()

    def checkpoint(self, run: Path) -> Any:
        """Save and queue the job again: submitit calls this before a time limit or a preemption."""
        self._process.terminate()
        # A signal's handler, which has interrupted ``wait`` in this very thread: that holds a lock which it would want.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(RequeuedJob(), run)


def slurm_machines() -> Machines:
    """Return the machines that SLURM gave the job of this process, one task on each."""
    job = submitit.JobEnvironment()
    if job.num_nodes == 1:
        return Machines()
    port = 20_000 + int(job.raw_job_id) % 20_000  # every task must name the same before they can talk
    return Machines(job.node, job.num_nodes, f"{job.hostnames[0]}:{port}")


def executor(folder: Path, parameters: Mapping[str, Any]) -> "SubmititJobs":
    """Return the executor of ``launcher=submitit``."""
    return SubmititJobs(folder, parameters)


class SubmititJobs:
    """The executor.

    Args:
        folder: submitit's files.
        parameters: of ``submitit.AutoExecutor``; ``cluster`` chooses "slurm" or "local".
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any]) -> None:
        settings = dict(parameters)
        cluster = str(settings.pop("cluster", "slurm"))
        if cluster not in JOBS:
            raise UserError(f'launcher.parameters.cluster="{cluster}"{did_you_mean(cluster, JOBS)}')
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
            self._executor.update_parameters(**settings)
        except (RuntimeError, ValueError, NameError, AssertionError) as error:
            raise UserError(f"launcher=submitit: {str(error).strip().splitlines()[0]}") from error
        self._folder = folder
        self._job_class = JOBS[cluster]
        self._jobs: dict[str, Any] = {}

    def submit(self, run: Path, slot: JobSlot) -> str:
        """Queue a job; the engine chooses its machine."""
        job = self._executor.submit(RequeuedJob(), run)
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
