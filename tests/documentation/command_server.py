"""Run commands of ``senet``, and the jobs of their studies, in forks of one process that imports once.

Every line of stdin is ``[words, file for what the command says, folder to run it in]`` in JSON, and is answered with
its exit status. The words of a Python program are ``-c`` and its text.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

import senet.study.commands
import senet.training.run  # noqa: F401
from senet import cli
from senet.rundir import RunDir
from senet.study import executors
from senet.training import jobs

torch.set_num_threads(1)


class ForkedJob:
    """What ``executors.start_job`` returns, as far as a driver uses it."""

    def __init__(self, run: Path, environment: dict[str, str], *, session: bool = False) -> None:
        self._status: int | None = None
        command = executors.job_command(run)  # it says whose child the job is
        self.pid = os.fork()
        if self.pid:
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if session:
            os.setsid()
        with RunDir(run).output_file.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = command[2:]
        os._exit(jobs.main())

    def poll(self) -> int | None:
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


executors.start_job = ForkedJob


def run(words: list[str], said: str, folder: str) -> int:
    """Do what a command says, in this process; return its exit status."""
    os.chdir(folder)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - not the server's, which has been read from
    os.dup2(file, 1)
    os.dup2(file, 2)
    if words[0] == "-c":
        exec(compile(words[1], "the page", "exec"), {"__name__": "__main__"})
        return 0
    sys.argv = ["senet", *words]
    return cli.main(words)


def main() -> None:
    print("ready", flush=True)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            sys.exit(run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
