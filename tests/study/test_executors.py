"""Engines behind the three methods: submitit's local executor runs a real process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from senet import UserError
from senet.integrations import submitit_jobs
from senet.rundir import RunDir
from senet.study import commands, executors
from senet.study.executors import GONE, JobSlot, LauncherConfig, build_executor, build_slots, job_environment
from senet.training.launch import Machines

SCRIPT = """
import pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: ((run / "stopped").touch(), sys.exit(143)))
(run / "ready").touch()
time.sleep(0.2 if (run / "short").exists() else 60)
sys.exit(7)
"""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch) -> tuple[Path, Path]:
    """Two run directories whose jobs are a few lines: one ends with status 7, one waits to be stopped."""
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(executors, "job_command", lambda run: [sys.executable, str(script), str(run)])
    short, long = (RunDir.create(tmp_path, name, {}, {}).path for name in ("short", "long"))
    (short / "short").touch()
    return short, long


def ended(executor: executors.Executor, handle: str) -> int:
    deadline = time.monotonic() + 1200
    while (status := executor.poll(handle)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return status


def test_local_processes(runs: tuple[Path, Path], tmp_path: Path):
    executor = executors.LocalProcesses(tmp_path)
    short, long = (executor.submit(run, JobSlot()) for run in runs)
    assert ended(executor, short) == 7
    while not (runs[1] / "ready").exists():
        time.sleep(0.01)
    executor.stop(long)
    assert ended(executor, long) == 143
    assert (runs[1] / "stopped").exists()
    assert executors.LocalProcesses(tmp_path).poll(short) == GONE


def test_a_process_number_that_another_study_has_now_is_not_waited_for(tmp_path: Path):
    """An earlier driver wrote it down; since then the machine has given it away again."""
    run = tmp_path / "theirs" / "run"
    words = [sys.executable, "-c", "print(1, flush=True); input()", "senet.training.jobs", "train", str(run)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline()  # it runs, under its own name
        handle = str(process.pid)
        assert executors.LocalProcesses(tmp_path / "theirs").poll(handle) is None
        assert executors.LocalProcesses(tmp_path / "ours").poll(handle) == GONE
        process.kill()


@pytest.mark.slow
def test_submitit(runs: tuple[Path, Path], tmp_path: Path):
    executor = build_executor(
        LauncherConfig("submitit", None, {"cluster": "local", "timeout_min": 20}), tmp_path
    )
    assert isinstance(executor, submitit_jobs.SubmititJobs)
    # The engine's process imports the package itself: there the command is that of a real job, which fails
    # for want of a configuration.
    handle = executor.submit(runs[0], JobSlot())
    assert ended(executor, handle) not in (0, GONE)
    # A later driver asks about the same handle.
    assert ended(submitit_jobs.SubmititJobs(tmp_path / "submitit", {"cluster": "local"}), handle) not in (
        0,
        GONE,
    )


@pytest.mark.timeout(120)  # it once waited for itself
def test_a_job_whose_time_is_up_is_stopped_within_the_signals_handler(runs: tuple[Path, Path], monkeypatch):
    """As submitit does it: the signal interrupts the very call that waits for the process."""
    job, run, queued = submitit_jobs.RequeuedJob(), runs[1], []
    monkeypatch.setattr(submitit_jobs, "slurm_machines", Machines)

    def time_is_up(*_: object) -> None:
        queued.append(job.checkpoint(run))
        sys.exit(-1)

    def interrupt() -> None:
        while not (run / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, time_is_up)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(SystemExit):
            job(run)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert job._process.wait() == 143
    assert (run / "stopped").exists()
    assert isinstance(queued[0].function, submitit_jobs.RequeuedJob)
    assert queued[0].args == (run,)


def test_slurm_queues_a_job_again_as_often_as_it_needs(tmp_path: Path, monkeypatch):
    """By itself submitit drops a job when its time is up for the fourth time."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    jobs = submitit_jobs.SubmititJobs(tmp_path / "submitit", {"timeout_min": 30})
    assert jobs._executor._executor.max_num_timeout >= 1000


def test_machines_of_a_slurm_job(monkeypatch):
    """As SLURM says it on the second of four machines: the same meeting point on each."""
    values = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "1234567", "SLURM_JOB_NODELIST": "gpu[02-04,07]"}
    sizes = {"SLURM_JOB_NUM_NODES": "4", "SLURM_NTASKS": "4", "SLURM_NODEID": "1", "SLURM_PROCID": "1"}
    for name, value in (values | sizes | {"SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(name, value)
    machines = submitit_jobs.slurm_machines()
    assert machines == Machines(1, 4, "gpu02:34567")
    monkeypatch.setenv(*next(iter(machines.variable().items())))
    assert Machines.of_environment() == machines
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    assert submitit_jobs.slurm_machines() == Machines()


def test_mistakes_with_ray_are_one_line(tmp_path: Path, monkeypatch):
    ray = pytest.importorskip("ray")

    def refuse(address: str, **options: object) -> None:
        raise ConnectionError(
            "Could not find any running Ray instance.\nPlease specify the one to connect to."
        )

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(UserError, match=r'parameters\.cpu: .*did you mean "cpus"'):
        build_executor(LauncherConfig("ray", None, {"address": None, "cpu": 2}), tmp_path)
    with pytest.raises(UserError, match=r"address=auto: .*Could not find any running Ray instance\.$"):
        build_executor(LauncherConfig("ray", None, {"address": "auto"}), tmp_path)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    jobs = build_executor(LauncherConfig("ray", None, {"cpus": 1}), tmp_path)
    jobs.stop("of an earlier driver")  # whose tasks ended with it; the runner may ask before it looks
    assert jobs.poll("of an earlier driver") == GONE


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_a_missing_engine_is_one_line(name: str, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"senet.integrations.{name}_jobs", raising=False)
    with pytest.raises(UserError, match=rf"install senet\[{name}\]"):
        build_executor(LauncherConfig(name, None, {}), tmp_path)


def test_jobs_get_gpus_that_there_are(monkeypatch):
    """CUDA hides the devices from the first on that it does not know."""
    monkeypatch.setattr(commands.launch, "accelerator", lambda trainer: "gpu")
    monkeypatch.setattr(commands.torch.cuda, "device_count", lambda: 2)
    for visible, found in {"3,5,9": ["3", "5"], "5,3": ["5", "3"], "": ["0", "1"]}.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert commands._gpus({}) == found
    local = LauncherConfig("local", None, {})
    assert len(commands._slots(local, {"devices": 2})) == 1
    with pytest.raises(
        UserError, match=r"trainer\.devices=\[0, 1\]: every job of a study has GPUs of its own"
    ):
        commands._slots(local, {"devices": [0, 1]})


def test_slots_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    local = LauncherConfig("local", "4x2", {})
    slots = build_slots(local, 2, [str(i) for i in range(8)])
    assert [slot.gpus for slot in slots] == [("0", "1"), ("2", "3"), ("4", "5"), ("6", "7")]
    assert [slot.cores for slot in slots] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert len(build_slots(LauncherConfig("local", None, {}), 2, [str(i) for i in range(8)])) == 4
    assert len(build_slots(LauncherConfig("local", None, {}), 2, [])) == 1
    for wrong in ("²x2", "0x2", "4x", "4x2x1"):
        with pytest.raises(UserError, match="must be JxD"):
            build_slots(LauncherConfig("local", wrong, {}), 2, [])
    with pytest.raises(UserError, match="needs 8 GPUs; there are 4"):
        build_slots(local, 2, ["0", "1", "2", "3"])


def test_a_job_sees_nothing_of_its_starters_ranks(monkeypatch):
    foreign = {"LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x",
               "SLURM_NTASKS": "4", "WANDB_RUN_ID": "y"}  # fmt: skip
    for key, value in foreign.items():
        monkeypatch.setenv(key, value)
    environment = job_environment(("3", "4"))
    assert not foreign.keys() & environment.keys()
    assert environment["CUDA_VISIBLE_DEVICES"] == "3,4"
    assert environment["PATH"] == os.environ["PATH"]
