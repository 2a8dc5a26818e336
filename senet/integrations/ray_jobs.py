"""Jobs of a study as tasks of a Ray cluster; they end with the driver."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import torch

from senet.errors import UserError, did_you_mean, in_a_line
from senet.integrations.engine import RunJob
from senet.study.executors import GONE, JobSlot
from senet.training.console import say

PARAMETERS = {"address", "cpus", "gpus"}


def executor(folder: Path, parameters: Mapping[str, Any]) -> "RayJobs":
    """Return the executor of ``launcher=ray``; Ray keeps its files elsewhere."""
    return RayJobs(parameters)


class RayJobs:
    """The executor.

    Args:
        parameters: ``address`` of the cluster, and ``cpus`` and ``gpus`` of a job.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        for name in parameters.keys() - PARAMETERS:
            raise UserError(
                f"launcher.parameters.{name}: there is no such one{did_you_mean(name, PARAMETERS)}"
            )
        logging.getLogger("ray").setLevel(logging.ERROR)
        options: dict[str, Any] = {
            "ignore_reinit_error": True,
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        try:
            ray.init(address=parameters.get("address"), **options)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"launcher=ray launcher.parameters.address={parameters.get('address')}: {in_a_line(error)}"
            ) from error
        if torch.cuda.is_available() and not parameters.get("gpus"):
            say("launcher  Ray reserves no GPU for a job: set launcher.parameters.gpus=1")
        resources = {"num_cpus": parameters.get("cpus", 1), "num_gpus": parameters.get("gpus", 0)}
        self._task: Any = ray.remote(max_retries=0, **resources)(lambda run: RunJob()(Path(run)))
        self._tasks: dict[str, Any] = {}

    def submit(self, run: Path, slot: JobSlot) -> str:
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
        if not ray.wait([task], timeout=0)[0]:
            return None
        try:
            return int(ray.get(task))
        except ray.exceptions.RayError:
            return GONE

    def stop(self, handle: str, *, now: bool = False) -> None:
        """Interrupt the task, which stops its process in order; one of an earlier driver has ended with it."""
        if handle in self._tasks:
            ray.cancel(self._tasks[handle], force=now)
