"""Small runs that are hurt, resumed to their end, and compared with runs that nothing happened to."""

import random
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from senet.data.sets import FakeConfig
from senet.doctor.faults import Fault
from senet.doctor.job import TrainJob
from senet.doctor.parts import PARTS, digests, is_readable, saved_step, steps_done
from senet.errors import UserError
from senet.rundir import RunDir

GLOBAL_BATCH, EPOCHS, CLASSES, PER_CLASS, EVERY = 8, 3, 4, 16, 3
STEPS = EPOCHS * CLASSES * PER_CLASS // GLOBAL_BATCH
SETTINGS = (
    "model=se_resnet20", "mixing.mixup=0.2", "data=imagefolder", "data.in_memory=false", "data.workers=1",
    "data.preprocessing.size=16", "data.preprocessing.resize=20", "augment.crop=random_resized",
    f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
    f"checkpoint.every_n_steps={EVERY}", "ema.decay=0.9", "optimizer.lr=0.01",
)  # fmt: skip
"""A run of seconds with all that a resume must restore: random crops, mixup, momentum, BN, an average."""


@dataclass(frozen=True)
class Outcome:
    """What was seen of one fault.

    Attributes:
        fault: that was tried.
        step: the last step in ``steps.csv`` when it had happened.
        said: how the run ended, in its own words where it could say any.
        ended: seconds from the fault until no process was left.
        readable: whether everything in the run directory could be read before it was resumed.
        repeated: steps that were done and had to be done again.
        recovered: seconds from the resume until the run was past where it had been.
        same: for each of ``PARTS``, whether it ended as the undisturbed run's.
    """

    fault: Fault
    step: int
    said: str
    ended: float
    readable: bool
    repeated: int
    recovered: float
    same: Mapping[str, bool]

    @property
    def right(self) -> bool:
        """Whether nothing was lost."""
        return self.readable and all(self.same.values())


class Trials:
    """Hurts small runs and compares them.

    Args:
        out: folder of the images and runs.
        seed: of the moments.
    """

    def __init__(self, out: Path, seed: int) -> None:
        import senet.training.run  # noqa: F401 - once, for all jobs

        self.out, self.random = out, random.Random(seed)
        self.images = out / "images"
        FakeConfig(
            root=str(self.images), num_classes=CLASSES, train_per_class=PER_CLASS, sides=(24, 32)
        ).write()
        self._whole: dict[int, dict[str, str]] = {}

    def whole(self, ranks: int) -> dict[str, str]:
        """Return the digests of the undisturbed run on so many ranks, which is trained when first asked for.

        Raises:
            UserError: if it did not end well.
        """
        if ranks not in self._whole:
            with self._start(ranks, "whole") as job:
                if job.wait() != 0:
                    raise UserError(f"the run without a fault did not end well: {job.said()}")
                self._whole[ranks] = digests(_run_of(job))
        return self._whole[ranks]

    def try_out(self, fault: Fault) -> Outcome:
        """Hurt a run at a random moment, resume it to its end, and compare it with the undisturbed one.

        Raises:
            UserError: if it ended before it could be hurt, three times.
        """
        whole = self.whole(fault.ranks)
        for _ in range(3):
            with self._start(fault.ranks, "hurt") as job:
                run = self._await_moment(fault, job)
                at, everyone = time.monotonic(), job.everyone()
                mend = fault.hurt(job, self.images)
                status, ended = job.wait(everyone), time.monotonic() - at
                mend()
            if status != 0:
                break
        else:
            raise UserError(f"{fault.name}: a run ended before it could be hurt, three times")
        step, readable, saved, said = steps_done(run), is_readable(run), saved_step(run), job.said()
        at = time.monotonic()
        with TrainJob([f"resume={run.path}"], run.path.parent / "resumed.txt") as job:
            job.wait_until(lambda: steps_done(run) > step, "a resumed run")
            recovered = time.monotonic() - at
            found = digests(run) if (failed := job.wait()) == 0 else {}
        said += f"; resumed: {job.said()}" if failed else ""
        said = said.replace(str(run.path), "RUN").replace(str(self.images), "DIR")
        same = {part: found.get(part) == whole[part] for part in PARTS}
        return Outcome(fault, step, said, ended, readable, max(0, step - saved), recovered, same)

    def _start(self, ranks: int, name: str) -> TrainJob:
        runs = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.out))
        where = f"data.root={self.images}", f"runs_dir={runs}"
        devices = f"trainer.devices={ranks}", f"data.batch_size={GLOBAL_BATCH // ranks}"
        return TrainJob([*SETTINGS, *where, *devices], runs / "output.txt")

    def _await_moment(self, fault: Fault, job: TrainJob) -> RunDir:
        """Wait for a random moment; return the run."""
        earliest, latest = (round(share * STEPS) for share in fault.within)
        after, pause = self.random.randint(earliest, latest), self.random.uniform(0.0, 0.3)
        job.wait_until(lambda: any(job.output.parent.glob("2*/run.json")), "a run to start")
        run = _run_of(job)
        job.wait_until(lambda: steps_done(run) >= after, "steps to be done")
        if fault.saving:
            job.wait_until(lambda: any(run.checkpoints.glob(".*.part")), "a checkpoint", pause=0.0)
        else:
            time.sleep(pause)
        return run


def _run_of(job: TrainJob) -> RunDir:
    """Return the run that a job started.

    Raises:
        UserError: if there is none.
    """
    for record in job.output.parent.glob("2*/run.json"):
        return RunDir(record.parent)
    raise UserError(f"a run did not start: {job.said()}")
