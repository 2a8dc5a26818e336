"""The process of one job: ``python -m senet.training.study.job RUN_DIR PID``; it ends when process PID is gone."""

import fcntl
import signal
import sys
from pathlib import Path

from senet.training.console import setup_console
from senet.training.launch import Machines, die_with_parent, run_processes
from senet.training.rundir import RunDir


def main() -> int:
    """Train the run, from its last checkpoint if there is one; return the exit status."""
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that runs in the background has it ignored
    setup_console()
    run = RunDir.open(Path(sys.argv[1]))
    name = f".lock{Machines.of_environment().index or ''}"
    with (run.path / name).open("w") as lock:  # held until this process ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        return run_processes("train", run, run.config())


if __name__ == "__main__":
    sys.exit(main())
