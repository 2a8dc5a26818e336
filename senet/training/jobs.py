"""One job from start to end on every rank: agree, do it, record how it ended."""

import os
import signal
import traceback
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.utilities.exceptions import SIGTERMException

from senet.errors import UserError
from senet.training import launch
from senet.training.console import log_to_file
from senet.training.heap import keep_freed_memory
from senet.training.launch import FAILED, MISUSED, OK
from senet.training.rundir import RunDir


def run_job(task: str, run: RunDir, config: Mapping[str, Any]) -> int:
    """Run ``task`` ("train" or "eval") in ``run``; return the exit status.

    The record's ``status`` becomes "finished", "interrupted" or "failed" (with ``error``, one line).
    """
    if launch.rank() != 0:
        return _guarded(task, run, config)
    run.update(status="running", pid=os.getpid(), host=os.uname().nodename, error=None)
    with log_to_file(run.log_file):
        return _guarded(task, run, config)


def _start(task: str, run: RunDir, config: Mapping[str, Any], stop: launch.StopRequest) -> None:
    """Do the task; its module takes seconds to import."""
    if task == "train":
        from senet.training.run import train

        train(run, config, stop)
    else:
        from senet.training.evaluate import evaluate

        evaluate(run, config)


def _guarded(task: str, run: RunDir, config: Mapping[str, Any]) -> int:
    """Run a task and turn however it ends into a record and an exit status."""
    stop = launch.StopRequest()
    try:
        if launch.accelerator(config["trainer"]) == "cpu":
            keep_freed_memory()
        if launch.under_torchrun():
            if not dist.is_initialized():
                launch.join_group(config["trainer"])
            launch.agree(config)
        _start(task, run, config, stop)
    except (SIGTERMException, KeyboardInterrupt, SystemExit):  # Lightning exits on a KeyboardInterrupt
        status = 128 + (stop.signal or signal.SIGTERM)
        _record(run, status="interrupted")
        return status
    except UserError as error:
        _record(run, status="failed", error=str(error), any_rank=True)
        return MISUSED
    except (torch.OutOfMemoryError, MemoryError) as error:
        _record(run, status="failed", error=f"out of memory: lower data.batch_size ({error})", any_rank=True)
        return FAILED
    except Exception as error:
        if "allocate memory" in str(error):  # what torch says on a CPU
            _record(run, status="failed", error="out of memory: lower data.batch_size", any_rank=True)
            return FAILED
        with run.log_file.open("a") as file:
            file.write(f"rank {launch.rank()}\n{traceback.format_exc()}")
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        text = f"{type(error).__name__}: {reason} (traceback in {run.log_file})"
        _record(run, status="failed", error=text, any_rank=True)
        return FAILED
    else:
        _record(run, status="finished")
        return OK
    finally:
        stop.restore()
        if dist.is_initialized():
            dist.destroy_process_group()


def _record(run: RunDir, *, any_rank: bool = False, **values: Any) -> None:
    if any_rank or launch.rank() == 0:
        run.update(**values)
