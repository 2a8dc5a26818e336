"""A study without its weights: small enough for a repository, whole enough for every table, interval and test."""

import gzip
import shutil
from pathlib import Path

from senet.errors import UserError
from senet.files import atomically, write_json
from senet.ledger import Ledger
from senet.rundir import RunDir

HERE_ONLY = ("pid", "host", "resumed")
"""What ``run.json`` says of the machine's processes, which is nobody else's business."""


def archive(study: Path, out: Path) -> int:
    """Copy what a study's report is made of to ``out``, from its finished runs; return how many they are.

    Per run: configuration, record, summary, metrics by epoch, and the predictions of the last epoch, compressed. What
    lies there of the same run is replaced; ``senet report OUT`` reads it as it reads the study.

    Raises:
        UserError: if no run has finished.
    """
    ledger = Ledger.open(study)
    ledger.reconcile()
    done = [job for job in ledger.jobs.values() if job.status == "finished"]
    if not done:
        raise UserError(f"{study}: no run has finished yet")
    if out.resolve() == ledger.path:
        raise UserError(f"{out} is the study itself: name another directory")
    if Ledger.lies_in(out) and Ledger.open(out).head.get("name") != ledger.head.get("name"):
        raise UserError(
            f"{out} holds another study, {Ledger.open(out).head.get('name')}: name another directory"
        )
    for job in done:
        _archive_run(ledger.directory(job), RunDir(out / job.run))
    for job in ledger.jobs.values():
        job.handle = None
    ledger.path, ledger.file = out, out / ledger.file.name
    ledger.save()
    return len(done)


def _archive_run(run: RunDir, kept: RunDir) -> None:
    predictions = [run.predictions_file("last", weights) for weights in ("raw", "ema")]
    (kept.path / predictions[0].parent.name).mkdir(parents=True, exist_ok=True)
    kept.write_config(run.config() | {"runs_dir": "runs"})  # wherever that was
    # Without validation there are no metrics.
    for file in filter(Path.is_file, (run.summary_file, run.metrics_file)):
        shutil.copyfile(file, kept.path / file.name)
    record = {key: value for key, value in run.record().items() if key not in HERE_ONLY}
    write_json(kept.record_file, record)
    for file in predictions:
        packed = file.with_name(f"{file.name}.gz")
        if file.is_file():
            # No time stamp and no name in it: the same predictions are the same bytes.
            content = gzip.compress(file.read_bytes(), mtime=0)
        elif packed.is_file():  # of an archive that went on as a study
            content = packed.read_bytes()
        else:
            continue
        with atomically(kept.path / file.parent.name / packed.name) as temporary:
            temporary.write_bytes(content)
