"""Small runs that are hurt, resumed to their end, and compared bit for bit with runs that nothing happened to."""

import random
import tempfile
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from senet.data.sets import FakeConfig
from senet.doctor.faults import Fault, TrainJob
from senet.errors import UserError
from senet.rundir import RunDir
from senet.weights import read_checkpoint
from senet.weights.checkpoint import digest

GLOBAL_BATCH, EPOCHS, CLASSES, PER_CLASS, EVERY = 8, 3, 4, 16, 3
STEPS = EPOCHS * CLASSES * PER_CLASS // GLOBAL_BATCH
SETTINGS = (
    "model=se_resnet20", "mixing.mixup=0.2", "data=imagefolder", "data.in_memory=false", "data.workers=1",
    "data.preprocessing.size=16", "data.preprocessing.resize=20", "augment.crop=random_resized",
    f"trainer.max_epochs={EPOCHS}", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
    f"checkpoint.every_n_steps={EVERY}", "ema.decay=0.9", "optimizer.lr=0.01",
)  # fmt: skip
"""A run of seconds with all that a resume must restore: random crops, mixup, momentum, BN, an average."""
PARTS = ("weights", "average", "optimiser", "BN", "record", "metrics.csv", "steps.csv", "predictions")
"""What is compared. The record is what a checkpoint says of the run: figures, samples seen, sums of the epoch."""
_BN = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Outcome:
    """What was seen of one fault.

    Attributes:
        fault: that was tried.
        said: how the run ended, in its own words where it could say any.
        ended: seconds from the fault until no process was left.
        repeated: steps that were done and had to be done again.
        recovered: seconds from the resume until the run was past where it had been.
        wrong: the ``PARTS`` that ended otherwise than the undisturbed run's, and "directory" if anything in it could
            not be read before it was resumed.
    """

    fault: Fault
    said: str
    ended: float
    repeated: int
    recovered: float
    wrong: list[str]


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
        photographs = FakeConfig(
            root=str(self.images), num_classes=CLASSES, train_per_class=PER_CLASS, sides=(24, 32)
        )
        photographs.write()
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
                try:
                    status, ended = job.wait(everyone), time.monotonic() - at
                finally:
                    if mend:
                        mend()
            if status != 0:
                break
        else:
            raise UserError(f"{fault.name}: a run ended before it could be hurt, three times")
        step, said = steps_done(run), job.said()
        wrong = [] if is_readable(run) else ["directory"]
        saved = step if wrong else saved_step(run)
        found: dict[str, str] = {}
        at = time.monotonic()
        with TrainJob([f"resume={run.path}"], run.path.parent / "resumed.txt") as job:
            job.wait_until(lambda: steps_done(run) > step, "a resumed run")
            recovered = time.monotonic() - at
            failed = job.wait() != 0
            with suppress(UserError):  # what is lost differs
                found = {} if failed else digests(run)
        said += f"; resumed: {job.said()}" if failed else ""
        said = said.replace(str(run.path), "RUN").replace(str(self.images), "DIR")
        wrong += [part for part in PARTS if found.get(part) != whole[part]]
        return Outcome(fault, said, ended, max(0, step - saved), recovered, wrong)

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


# What a run left behind -----------------------------------------------------------------------------------


def digests(run: RunDir) -> dict[str, str]:
    """Return a digest of each of ``PARTS`` of a finished run, which any changed bit changes.

    Raises:
        UserError: if a checkpoint is missing or damaged.
    """
    parts: defaultdict[str, dict[object, object]] = defaultdict(dict)
    for which in ("last", "best"):
        checkpoint = read_checkpoint(run.checkpoint(which))
        for key, value in checkpoint.state_dict.items():
            part = "BN" if key.endswith(_BN) else "average" if key.startswith("ema.") else "weights"
            parts[part][which, key] = value
        parts["optimiser"][which] = checkpoint.content["optimizer_states"]
        # Its configuration names folders.
        parts["record"][which] = {key: value for key, value in checkpoint.record.items() if key != "config"}
    for file in (run.metrics_file, run.steps_file):
        parts[file.name][""] = file.read_bytes()
    for file in sorted(run.predictions_file("last", "raw").parent.iterdir()):
        parts["predictions"][file.name] = file.read_bytes()
    return {name: digest(parts[name]) for name in PARTS}


def is_readable(run: RunDir) -> bool:
    """Whether the records, tables and checkpoints that are there can all be read."""
    try:
        run.record(), run.config(), run.metrics()
        for which in ("last", "best"):
            if run.checkpoint(which).exists():
                read_checkpoint(run.checkpoint(which))
                run.predictions(which, "raw")
    except (UserError, ValueError, OSError):
        return False
    return True


def steps_done(run: RunDir) -> int:
    """Return the last step of ``steps.csv``, 0 if there is none."""
    try:
        *_, last = run.steps_file.read_text().splitlines()
        return int(last.partition(",")[0])
    except (OSError, ValueError):  # it is not there yet, or has no whole row
        return 0


def saved_step(run: RunDir) -> int:
    """Return the step of the last checkpoint, 0 without one."""
    last = run.checkpoint("last")
    return read_checkpoint(last).step if last.exists() else 0
