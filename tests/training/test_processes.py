"""Several processes: the same training as one, exact evaluation, one configuration, no orphans."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pytorch_lightning.utilities import rank_zero_only

from senet import UserError
from senet.rundir import RunDir
from senet.training import launch
from senet.training.callbacks.checkpoints import end_after_this_step
from senet.training.entry import check_run, run_record
from senet.training.launch import Machines
from senet.training.trainer import build_trainer
from senet.weights import read_checkpoint

ROOT = Path(__file__).parents[2]
TINY = ("data=synthetic", "data.preprocessing.size=8", "data.train_images=320", "data.val_images=13",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "augment.pad=1")  # fmt: skip


def only_run(runs: Path) -> Path:
    (path,) = [p for p in runs.iterdir() if not p.is_symlink()]
    return path


@pytest.mark.slow
def test_two_ranks_of_16_equal_one_process_of_32(command, train, tmp_path: Path):
    """Ten steps with SyncBN: the same losses and weights; 13 validation images count 13."""
    ten = (*TINY, "trainer.max_epochs=1", "trainer.sync_batchnorm=true", "optimizer.lr=0.01")
    one = train(*ten, "data.batch_size=32")
    result = command(
        "train.py",
        *ten,
        "data.batch_size=16",
        "trainer.devices=2",
        f"runs_dir={tmp_path}/two",
        "ema.decay=0.9",
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    two = only_run(tmp_path / "two")
    for run in (one, two):
        summary = json.loads((run / "summary.json").read_text())
        assert summary["steps"] == 10
        assert len((run / "predictions" / "last_raw.csv").read_text().splitlines()) == 13 + 1
    result = command(
        "eval.py", f"run={two}", "which=last", "weights=raw", "trainer.devices=2", "trainer.accelerator=cpu"
    )
    assert result.returncode == 0, result.stderr
    evaluation = json.loads(next(two.glob("evaluations/*/evaluation.json")).read_text())
    assert evaluation["count"] == 13
    assert evaluation["loss"] == pytest.approx(
        json.loads((two / "summary.json").read_text())["last"]["val/loss"], abs=1e-6
    )
    losses = [
        [float(line.split(",")[3]) for line in (run / "steps.csv").read_text().splitlines()[1:]]
        for run in (one, two)
    ]
    # A rank logs the loss of its own half; the epoch's mean is over both.
    means = [json.loads((run / "summary.json").read_text())["train_loss"] for run in (one, two)]
    assert means[0] == pytest.approx(means[1], rel=1e-4)
    assert len(losses[0]) == len(losses[1]) == 10
    a, b = (read_checkpoint(run / "checkpoints" / "last.ckpt").state_dict for run in (one, two))
    for key in a:
        torch.testing.assert_close(a[key], b[key], rtol=2e-3, atol=2e-4, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.slow
def test_what_recipes_add_is_the_same_on_two_ranks(command, train, tmp_path: Path):
    """A teacher, PreciseBN and the equal average of two epochs."""
    few = (*TINY, "data.train_images=96", "trainer.sync_batchnorm=true", "optimizer.lr=0.01")
    teacher = train(*few, "model=resnet20", "trainer.max_epochs=1", "name=teacher")
    added = (*few, "trainer.max_epochs=2", f"loss.teacher={teacher}", "batch_norm.precise_batches=3",
             "ema.epochs=2")  # fmt: skip
    one = train(*added, "data.batch_size=32")
    two = tmp_path / "two"
    result = command("train.py", *added, "data.batch_size=16", "trainer.devices=2", f"runs_dir={two}")
    assert result.returncode == 0, result.stderr
    a, b = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, only_run(two)))
    for which in ("raw", "ema"):
        theirs = b.state(which)
        for key, value in a.state(which).items():
            torch.testing.assert_close(
                value, theirs[key], rtol=2e-3, atol=2e-4, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.slow
def test_under_torchrun_too(tmp_path: Path):
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=127.0.0.1",
            "--nproc-per-node=2",
            "train.py",
            *TINY,
            "trainer.devices=2",
            "debug=one_batch",
            f"runs_dir={tmp_path}/runs",
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=12000,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("batch     64 = 32 images x 2 device(s)") == 1
    assert json.loads((only_run(tmp_path / "runs") / "run.json").read_text())["status"] == "finished"


@pytest.mark.slow
def test_two_machines(tmp_path: Path, compose, free_port: int):
    """As an engine starts it: one process of the job on each machine, here both on this one."""
    values = compose(f"runs_dir={tmp_path}/runs", *TINY, "debug=one_batch", "trainer.num_nodes=2")
    values.pop("resume")
    config, _ = check_run(values)
    run = RunDir.create(tmp_path / "runs", config.name, values, run_record(config, []))
    command = [sys.executable, "-m", "senet.training.jobs", "train", str(run.path), str(os.getpid())]
    jobs = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | Machines(i, 2, f"127.0.0.1:{free_port}").variable(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [job.communicate(timeout=12000)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert "batch     64 = 32 images x 2 device(s)" in outputs[0]
    assert run.record()["status"] == "finished"
    assert json.loads(run.summary_file.read_text())["devices"] == 2


@pytest.mark.slow
def test_ranks_that_differ_refuse_to_train(free_port: int):
    import torch.multiprocessing as mp

    results = mp.Manager().list()
    mp.spawn(_disagree, args=(free_port, results), nprocs=2)
    assert len(results) == 2
    assert all("would not train the same" in text and "rank 1" in text for text in results)


def _disagree(rank: int, port: int, results: list) -> None:
    import torch.distributed as dist

    from senet import UserError
    from senet.training.launch import compare_ranks

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        compare_ranks(f"config {rank}, seed 0", "would not train the same")
    except UserError as error:
        results.append(str(error))
    dist.destroy_process_group()


def _start(tmp_path: Path, *overrides: str) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen(
        [
            sys.executable,
            "train.py",
            *TINY,
            "trainer.max_epochs=500",
            "data.batch_size=32",
            f"runs_dir={tmp_path}/runs",
            *overrides,
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline and process.poll() is None:
        found = list((tmp_path / "runs").glob("2*/checkpoints/last.ckpt"))
        if found:
            return process, found[0].parents[1]
        time.sleep(0.1)
    process.kill()
    raise AssertionError(process.communicate())


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_interrupt_saves_and_resume_continues(devices: int, tmp_path: Path, command):
    process, run = _start(tmp_path, f"trainer.devices={devices}")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=1200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "continue with: train.py resume=" in output
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    reached = checkpoint.content["epoch"] + 2
    result = command(
        "train.py", f"resume={run}", f"trainer.max_epochs={reached}", f"trainer.devices={devices}"
    )
    assert result.returncode == 0, result.stderr
    steps = [int(line.split(",")[0]) for line in (run / "steps.csv").read_text().splitlines()[1:]]
    assert steps == list(range(1, reached * (10 // devices) + 1))


def test_lightning_listens_where_we_tell_it_to_stop(tmp_path: Path):
    """A private place of Lightning's: if it moves, this fails before a run stops at the wrong step."""
    trainer = build_trainer({"accelerator": "cpu"}, tmp_path, logger=False)
    assert not trainer.received_sigterm
    end_after_this_step(trainer)
    assert trainer.received_sigterm


@pytest.mark.parametrize("devices", [-1, "auto", 1, "1", None])
def test_a_cpu_is_one_device(devices, tmp_path: Path):
    settings = {"accelerator": "cpu"} | ({} if devices is None else {"devices": devices})
    assert launch.process_count(settings) == 1
    assert build_trainer(settings, tmp_path, logger=False).num_devices == 1


def test_a_list_of_devices_names_gpus_that_there_are(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match="a list names GPUs"):
        launch.process_count({"accelerator": "cpu", "devices": [0, 1]})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch.process_count({"accelerator": "gpu", "devices": [1]}) == 1
    assert launch.process_count({"accelerator": "gpu", "devices": "auto"}) == 2
    for devices in ([0, 0], [2], []):
        with pytest.raises(UserError, match="a list names GPUs"):
            launch.process_count({"accelerator": "gpu", "devices": devices})
    with pytest.raises(UserError, match="there are 2 GPUs here"):
        launch.process_count({"accelerator": "gpu", "devices": 3})


def test_a_run_beside_others_that_are_no_ranks_of_it_leaves_its_records(
    train, monkeypatch: pytest.MonkeyPatch
):
    """As where Kubeflow sets RANK, or ``srun`` SLURM_PROCID, for jobs of one process each."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # what Lightning makes of it when it is imported
    run = RunDir(train(*TINY, "debug=one_batch"))
    assert run.record()["status"] == "finished"
    assert len(run.metrics()) == 1
    assert run.log_file.is_file()


@pytest.mark.slow
def test_no_orphans_when_the_launcher_is_killed(tmp_path: Path):
    process, _ = _start(tmp_path, "trainer.devices=2")
    group = os.getpgid(process.pid)
    children = [int(p) for p in subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)],
                capture_output=True, text=True).stdout.split()]  # fmt: skip
    assert len(children) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    deadline = time.monotonic() + 200
    while any(_alive(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in children if _alive(pid)], group


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
