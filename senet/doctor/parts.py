"""The parts of what a run left behind, each with a digest that any changed bit changes."""

from senet.errors import UserError
from senet.rundir import RunDir
from senet.weights import read_checkpoint
from senet.weights.checkpoint import Checkpoint, digest

PARTS = ("weights", "average", "optimiser", "BN", "record", "metrics.csv", "steps.csv", "predictions")
"""What is compared. The record is what a checkpoint says of the run: figures, samples seen, sums of the epoch."""
_BN = ("running_mean", "running_var", "num_batches_tracked")


def digests(run: RunDir) -> dict[str, str]:
    """Return the digest of each of ``PARTS`` of a finished run.

    Raises:
        UserError: if a checkpoint is missing or damaged.
    """
    checkpoints = {which: read_checkpoint(run.checkpoint(which)) for which in ("last", "best")}
    tables = run.metrics_file, run.steps_file, *sorted(run.predictions_file("last", "raw").parent.iterdir())
    found = {which: _of_checkpoint(checkpoint) for which, checkpoint in checkpoints.items()}
    parts: dict[str, object] = {
        part: {which: parts[part] for which, parts in found.items()} for part in found["last"]
    }
    texts = {table.name: table.read_bytes() for table in tables}
    parts |= {name: texts.pop(name) for name in ("metrics.csv", "steps.csv")} | {"predictions": texts}
    return {name: digest(parts[name]) for name in PARTS}


def _of_checkpoint(checkpoint: Checkpoint) -> dict[str, object]:
    state = checkpoint.state_dict
    kinds = {
        key: "BN" if key.endswith(_BN) else "average" if key.startswith("ema.") else "weights"
        for key in state
    }
    parts: dict[str, object] = {
        kind: {key: state[key] for key in state if kinds[key] == kind}
        for kind in ("weights", "average", "BN")
    }
    record = {key: value for key, value in checkpoint.record.items() if key != "config"}  # it names folders
    return parts | {"optimiser": checkpoint.content["optimizer_states"], "record": record}


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
