"""One rank of a job: ``python -m senet.training.worker TASK DIRECTORY``, started by ``launch.start_ranks``."""

import sys
from pathlib import Path

from senet.training.console import setup_console
from senet.training.jobs import run_job
from senet.training.launch import die_with_parent, rank
from senet.training.rundir import RunDir


def main() -> int:
    """Run the job that ``DIRECTORY/config.yaml`` describes; return the exit status."""
    die_with_parent()
    setup_console(rank())
    task, directory = sys.argv[1], RunDir(Path(sys.argv[2]))
    return run_job(task, directory, directory.config())


if __name__ == "__main__":
    sys.exit(main())
