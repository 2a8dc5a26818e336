"""One job from its start to its record: as many processes as it asks for, each doing its task to the end.

A job of one process runs in place; the ranks of a larger one, and the jobs of a study, are processes of their own:
``python -m senet.training.jobs TASK DIRECTORY [PARENT]``, which ends when process PARENT is gone.
"""

import gc
import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from senet.errors import UserError, in_a_line
from senet.rundir import RunDir
from senet.terminal import complain
from senet.training import launch
from senet.training.config import EvalConfig, RunConfig
from senet.training.console import FAILED, MISUSED, OK, log_to_file, rank, say, setup_console, under_torchrun
from senet.training.environment import keep_freed_memory
from senet.training.launch import Machines, StopRequest

CONFIGS: dict[str, type[RunConfig | EvalConfig]] = {"train": RunConfig, "eval": EvalConfig}
"""What ``config.yaml`` holds, by task."""
_LOST_WORKER = re.compile(
    r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+)|exited unexpectedly)"
)
OUT_OF_MEMORY = "out of memory: lower data.batch_size, or set fit_memory=true"


def run_processes(task: str, run: RunDir, config: RunConfig | EvalConfig) -> int:
    """Run ``task`` ("train" or "eval") on as many processes as it asks for; return the exit status.

    Afterwards the run's record says how it ended, also if no process lived to write it. With ``fit_memory`` a
    training that runs out of memory goes on from its last checkpoint with smaller batches.
    """
    status = _run_once(task, run, config)
    while (smaller := _smaller(run, config, status)) is not None:
        config = smaller
        run.write_config(config.values)
        run.update(config_hash=config.hash)
        accumulated = config.trainer["accumulate_grad_batches"]
        say(
            f"out of memory: on with data.batch_size={config.data.batch_size} and trainer.accumulate_grad_batches="
            f"{accumulated}; a step has {config.global_batch} images as before, BN's statistics are of fewer"
        )
        gc.collect()  # what the failed attempt still holds
        torch.cuda.empty_cache()
        status = _run_once(task, run, config)
    return status


def _smaller(run: RunDir, config: RunConfig | EvalConfig, status: int) -> RunConfig | None:
    """Return how to go on after an attempt that ran out of memory, if that is how it ended and we may."""
    if status != FAILED or not isinstance(config, RunConfig) or not config.fit_memory or under_torchrun():
        return None
    out_of_memory = str(run.record().get("error")).startswith(OUT_OF_MEMORY)
    return config.with_smaller_batches() if out_of_memory else None


def _run_once(task: str, run: RunDir, config: RunConfig | EvalConfig) -> int:
    """Start the processes of one attempt."""
    processes = launch.process_count(config.trainer)
    machines = Machines.of_environment()
    if processes * machines.count > 1 and not under_torchrun():
        command = ["-m", "senet.training.jobs", task, str(run.path)]
        status = launch.start_ranks(command, run.path.name, processes, machines)
    else:
        status = run_job(run, config)
    if status != OK and rank() == 0 and machines.index == 0:
        with suppress(OSError, UserError):  # no room, or no run directory any more: that was said
            record = run.record()
            if launch.is_silence(record.get("error")):
                return FAILED
            # The rank that made the mistake may still be closing when another has ended for its lost connection.
            if status == FAILED and record.get("error"):
                return record.get("exit_status") or FAILED
            # A rank that was killed could not say so: what the others say is that their connections broke.
            if record["status"] != "interrupted" and (status > 128 or not record.get("error")):
                ended = "killed" if status > 128 else "failed"
                run.update(status=ended, error=f"a process ended {launch.describe_exit(status)}")
    return status


def run_job(run: RunDir, config: RunConfig | EvalConfig) -> int:
    """Do this rank's part of a run or an evaluation; return the exit status.

    The record's ``status`` becomes "finished", "interrupted" or "failed" (with ``error``, one line).
    """
    if rank() != 0:
        return _guarded(run, config)
    run.update(status="running", pid=os.getpid(), host=os.uname().nodename, error=None, exit_status=None)
    with log_to_file(run.log_file):
        return _guarded(run, config)


def _guarded(run: RunDir, config: RunConfig | EvalConfig) -> int:
    """Do a task and turn however it ends into a record and an exit status."""
    stop = StopRequest()
    try:
        try:
            if launch.accelerator(config.trainer) == "cpu":
                keep_freed_memory()
            if under_torchrun():
                if not dist.is_initialized():
                    launch.join_group(config.trainer)
                launch.compare_ranks(config.identity, "would not train the same")
            _do(run, config, stop)
            status, end = OK, {"status": "finished"}
        except (KeyboardInterrupt, SystemExit):  # Lightning exits on either signal, in its own way
            status, end = 128 + (stop.signal or signal.SIGTERM), {"status": "interrupted"}
        if stop.failure:  # of something that did not touch the training
            saved = f"the training so far is saved in {run.checkpoint('last')}"
            status, end = FAILED, {"status": "failed", "error": f"{stop.failure}; {saved}"}
        if rank() == 0:
            _record(run, **end)
        return status
    except Exception as error:
        status, text = _explain(run, error)
        alone = not dist.is_initialized()
        # The rank that failed first has said why; for the others only a connection broke.
        if alone or status == MISUSED or not run.record().get("error"):
            _record(run, status="failed", error=text, exit_status=status)
        return status
    finally:
        stop.restore()
        if dist.is_initialized():
            dist.destroy_process_group()


def _do(run: RunDir, config: RunConfig | EvalConfig, stop: StopRequest) -> None:
    """Call the task; its module takes seconds to import."""
    if isinstance(config, RunConfig):
        from senet.training.run import train

        train(run, config, stop)
    else:
        from senet.training.evaluation import evaluate

        evaluate(run, config)


def _explain(run: RunDir, error: Exception) -> tuple[int, str]:
    """Return the exit status of a failure and one line that says what it was."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException  # seconds

    if isinstance(error, UserError):
        return MISUSED, str(error)
    if isinstance(error, MisconfigurationException) or "`val_check_interval`" in str(
        error
    ):  # Lightning's own
        return MISUSED, f"trainer: {str(error).partition('. ')[0].strip()}"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return FAILED, f"{OUT_OF_MEMORY} ({error})"
    if "allocate memory" in str(error):  # what torch says on a CPU
        return FAILED, OUT_OF_MEMORY
    if not run.path.is_dir():
        return FAILED, f"{run.path} was removed while it was trained in"
    where = f" (traceback in {run.log_file})"
    try:
        with run.log_file.open("a") as file:
            file.write(f"rank {rank()}\n{''.join(traceback.format_exception(error))}")
    except OSError:  # no room, or the directory is gone
        where = ""
    if lost := _LOST_WORKER.search(str(error)):
        how = f"was ended by a signal, {lost[2]}" if lost[2] else "ended without a word"
        why = "kill -9, or the system was out of memory"
        return FAILED, f"data worker {lost[1]} {how} ({why}): lower data.workers"
    return FAILED, (launch.describe_lost(error) or in_a_line(error)) + where


def _record(run: RunDir, **values: Any) -> None:
    """Write to the run's record; where that cannot be, say the error."""
    try:
        run.update(**values)
    except (OSError, UserError) as error:
        complain(f"error: {values.get('error') or error}")


def main() -> int:
    """Run the job that ``DIRECTORY/config.yaml`` describes, from its last checkpoint if there is one."""
    task, directory, *parent = sys.argv[1:]
    launch.die_with_parent(int(parent[0]) if parent else None)
    setup_console()
    run = RunDir.open(Path(directory))
    if parent:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell that runs in the background has it ignored
        run.hold(wait=True, part=Machines.of_environment().index)
    try:
        config = CONFIGS[task].of(run.config())
    except UserError as error:
        run.update(status="failed", error=str(error))
        return MISUSED
    return run_processes(task, run, config)


if __name__ == "__main__":
    sys.exit(main())
