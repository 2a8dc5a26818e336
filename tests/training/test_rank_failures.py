"""One of two ranks fails: the run ends within bounds, says why in the words of that rank, and keeps its directory."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "model=se_resnet20", "data=imagefolder", "data.in_memory=false", "data.preprocessing.size=16",
    "data.preprocessing.resize=20", "data.batch_size=2", "data.workers=1", "augment.crop=random_resized",
    "trainer.max_epochs=3", "trainer.accelerator=cpu", "trainer.devices=2", "optimizer.lr=0.01",
)  # fmt: skip
FAULTS = {
    "image": (r"3\.jpg cannot be decoded", 2),
    "raises": (r"IndexError: what went wrong \(traceback in \S*log\.txt\)", 1),
    "nan": (r"the loss became nan at step 3 .*in a batch of 2 images", 2),
    "killed": (r"a process ended by SIGKILL \(kill -9, or the system was out of memory\)", 137),
    "terminated": ("", 143),
    "stopped": (r"rank 1, process \d+, was stopped \(SIGSTOP\) and did not answer within 0\.5 min", 1),
    "stuck": (r"the data workers have not delivered a batch for 3 s: .* a file of the batch train/", 2),
    "worker": (r"data worker \d+ (was ended by a signal, Killed|ended without a word) \(kill -9, or", 1),
}
"""What happens to rank 1, the line that says so, and the exit status."""


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_the_cause_is_shown(image_tree: Path, tmp_path: Path, fault: str):
    message, status = FAULTS[fault]
    root = tmp_path / "images"
    shutil.copytree(image_tree, root)
    if fault == "image":
        (root / "train" / "cat" / "3.jpg").write_bytes(b"no image")
    result = subprocess.run(
        [sys.executable, "train.py", *SETTINGS, f"data.root={root}", f"runs_dir={tmp_path}/runs"],
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "SENET_FAULT": fault}
        | {"PYTHONPATH": f"{Path(__file__).with_name('rank_faults')}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    (run,) = (path for path in (tmp_path / "runs").iterdir() if not path.is_symlink())
    record = json.loads((run / "run.json").read_text())
    assert result.returncode == status, result.stderr
    assert (run / "log.txt").stat().st_size > 0
    assert "Connection closed" not in result.stderr + result.stdout + str(record["error"])
    if fault == "terminated":
        assert record["status"] == "interrupted"
        assert "continue with: train.py resume=" in result.stdout
        return
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr), result.stderr
    assert re.search(message, record["error"])
    assert record["status"] == ("killed" if fault == "killed" else "failed")


@pytest.mark.slow
def test_a_lost_rank_is_said_where_nothing_watches_the_ranks(free_port: int):
    ranks = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("lost_rank.py"))],
            cwd=ROOT,
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = ranks[0].communicate(timeout=1200)[0]
        assert said == "rank 0 lost the connection to another rank, which ended without a word\n"
    finally:
        for process in ranks:
            process.kill()
            process.communicate()
