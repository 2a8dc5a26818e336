"""Signals to every process of a run, data workers too, as schedulers and containers send them."""

import os
import select
import signal
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

import senet.training.run  # noqa: F401 - once, for all forks
from senet.doctor.faults import TrainJob, send
from senet.doctor.trials import saved_step, steps_done
from senet.processes import processes
from senet.rundir import RunDir
from senet.training.console import say, setup_console
from senet.training.launch import STOP_SIGNALS, StopRequest

SETTINGS = ("model=se_resnet20", "data=imagefolder", "data.in_memory=false", "data.preprocessing.size=8",
            "data.preprocessing.resize=8", "data.batch_size=8", "data.workers=2", "augment.crop=random_resized",
            "trainer.max_epochs=5000", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
            "optimizer.lr=0.01")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_the_step_is_saved_and_the_status_says_which(
    image_tree: Path, tmp_path: Path, number: signal.Signals
):
    with TrainJob((*SETTINGS, f"data.root={image_tree}", f"runs_dir={tmp_path}"), tmp_path / "output") as job:
        job.wait_until(lambda: any(steps_done(RunDir(p)) > 3 for p in tmp_path.glob("2*")), "steps")
        assert len(job.workers()) >= 2, job.output.read_text()
        send(number, job.everyone())
        status = job.wait()
    (run,) = map(RunDir, tmp_path.glob("2*"))
    assert status == 128 + number, job.output.read_text()
    assert run.record()["status"] == "interrupted"
    assert saved_step(run) == steps_done(run)
    assert job.said() == f"stopped; continue with: train.py resume={run.path}"
    assert job.output.read_text().count("stopping after this step") == 1
    if number != signal.SIGTERM:  # once is enough: from here on nothing knows which it was
        return
    resume = (f"resume={run.path}", f"trainer.max_epochs={saved_step(run) // 2 + 1}")  # two steps an epoch
    with TrainJob(resume, tmp_path / "resumed") as job:
        assert job.wait() == 0, job.output.read_text()
    rows = run.steps_file.read_text().splitlines()[1:]
    assert [int(row.partition(",")[0]) for row in rows] == list(range(1, len(rows) + 1))


def test_a_signal_amid_a_write_is_answered(tmp_path: Path):
    """A full pipe keeps the process in its write, where the stream's own buffer would refuse another line."""
    reader, writer = os.pipe()
    process = get_context("fork").Process(target=_writes, args=(reader, writer))
    process.start()
    os.close(writer)
    assert process.pid
    with open(reader) as pipe:
        assert select.select([pipe], [], [], 600)[0]
        while processes()[process.pid].state != "S":
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGHUP)
        said = pipe.read()
    process.join()
    assert process.exitcode == 0
    assert said.count("stopping after this step") == 1
    assert said.count("x") == 1_000_000


def _writes(reader: int, writer: int) -> None:
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    setup_console()
    stop = StopRequest()
    stop.orderly = True
    say("x" * 1_000_000)
    sys.exit(0 if stop.signal == signal.SIGHUP else 1)
