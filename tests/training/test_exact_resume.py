"""What a run killed twice in mid-epoch saw: the same images, with the same pixels, on other workers and ranks too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from senet import UserError
from senet.rundir import RunDir
from senet.training.entry import resume_run

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("recording_train.py")


def start(out: Path, ranks: int, kill_at: int | None, *overrides: str) -> int:
    """Run the recording train.py under torchrun; return its status."""
    out.mkdir(exist_ok=True)
    step = [] if kill_at is None else [str(kill_at)]
    result = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"),
            *(f"--nproc-per-node={ranks}", str(SCRIPT), str(out), *step, "--", *overrides),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=12000,
    )
    assert (result.returncode == 0) == (kill_at is None), result.stdout + result.stderr
    return result.returncode


def seen(*outs: Path) -> dict[int, list[str]]:
    """Return the images of every step by the samples before it; a step taken again must be the same again.

    A step that a rank began while the other died lacks images and does not count.
    """
    steps: dict[int, list[str]] = {}
    for out in outs:
        of_all_ranks: dict[int, list[str]] = {}
        for file in out.glob("*.csv"):
            for line in file.read_text().splitlines():
                samples, *images = line.split(",")
                of_all_ranks.setdefault(int(samples), []).extend(images)
        for samples, images in of_all_ranks.items():
            if len(images) < 4:
                continue
            assert steps.setdefault(samples, sorted(images)) == sorted(images)
    return steps


@pytest.mark.slow
def test_killed_twice_on_other_ranks_and_workers(image_tree: Path, tmp_path: Path):
    """16 images, 4 a step: 12 steps undisturbed; or killed after the 3rd and the 7th, on 1, then 2, then 1 rank."""
    run = (
        *(
            "data=imagefolder",
            f"data.root={image_tree}",
            "data.in_memory=false",
            "augment.crop=random_resized",
        ),
        *(
            "data.preprocessing.size=24",
            "data.preprocessing.resize=28",
            "augment.flip=0.5",
            "data.batch_size=4",
        ),
        *(
            "trainer.accelerator=cpu",
            "trainer.max_epochs=3",
            "checkpoint.every_n_steps=2",
            "optimizer.lr=0.01",
        ),
    )
    start(tmp_path / "whole", 1, None, *run, "data.workers=0", f"runs_dir={tmp_path}/runs")
    start(tmp_path / "first", 1, 3, *run, "data.workers=1", f"runs_dir={tmp_path}/broken")
    resume = f"resume={(tmp_path / 'broken' / 'latest').resolve()}"
    two = ("trainer.devices=2", "data.batch_size=2")
    start(tmp_path / "second", 2, 7, resume, *two, "data.workers=2")
    start(tmp_path / "third", 1, None, resume, "trainer.devices=1", "data.batch_size=4", "data.workers=0")
    whole = seen(tmp_path / "whole")
    assert sorted(whole) == list(range(0, 48, 4))
    assert (
        len({image for images in whole.values() for image in images}) == 48
    )  # no crop twice in three epochs
    assert sorted(seen(tmp_path / "second")) == list(range(8, 28, 4))
    assert seen(tmp_path / "first", tmp_path / "second", tmp_path / "third") == whole


def test_the_images_of_a_step_cannot_change(train):
    run = train("data=synthetic", "data.preprocessing.size=8", "augment.pad=1", "debug=one_batch")
    batch = RunDir(run).config()["data"]["batch_size"]
    with pytest.raises(UserError, match=f"takes {batch} images a step, these settings {2 * batch}"):
        resume_run(run, ["trainer.devices=2"])
    resume_run(run, ["trainer.devices=2", f"data.batch_size={batch // 2}"])
    resume_run(
        run, ["trainer.devices=1", f"data.batch_size={batch // 2}", "trainer.accumulate_grad_batches=2"]
    )
