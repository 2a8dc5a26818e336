"""What engines that start jobs elsewhere have in common: submitit and Ray run functions, a job is a process."""

from pathlib import Path

from senet.study.executors import job_environment, start_job
from senet.training.launch import Machines


class RunJob:
    """A job as a function for an engine that runs functions: start its process, wait, return its status."""

    def __call__(self, run: Path) -> int:
        """Run the job; an interrupt becomes its orderly stop."""
        self._process = start_job(run, job_environment() | self.machines().variable())
        while True:
            try:
                return self._process.wait()
            except KeyboardInterrupt:
                self._process.terminate()

    def machines(self) -> Machines:
        """Return the machines of the job; asked where it runs."""
        return Machines()
