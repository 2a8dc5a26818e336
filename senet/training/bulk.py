"""``eval.py --bulk weights=A,B,...``: several weights one after the other, and one table of them."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from senet.errors import UserError
from senet.rundir import RunDir, read_json
from senet.table import Column, Table
from senet.terminal import complain, terminal_width
from senet.training.console import FAILED, OK, say, under_torchrun

if TYPE_CHECKING:
    from senet.training.config import EvalConfig

COLUMNS: list[Column[dict[str, Any]]] = [
    Column("weights", lambda row: row["source"], words=True),
    Column("top-1, %", lambda row: f"{row['top1']:.2f}" if "top1" in row else "failed"),
    Column("top-5, %", lambda row: f"{row['top5']:.2f}" if "top5" in row else ""),
    Column("loss", lambda row: f"{row['loss']:.4f}" if "loss" in row else ""),
    Column("images", lambda row: f"{row['count']:,}" if "count" in row else ""),
]


def bulk_arguments(arguments: list[str]) -> list[str]:
    """Return the arguments of ``eval.py --bulk weights=A,B`` for Hydra, to which commas mean another thing."""
    if "--bulk" not in arguments:
        return arguments
    given = next((a for a in arguments if a.startswith("weights=")), "weights=")
    specs = [spec for spec in given.removeprefix("weights=").strip("[]").split(",") if spec]
    if not specs:
        raise UserError("--bulk evaluates several weights: give weights=A,B,...")
    listed = ",".join("'" + spec.strip("'").replace("'", "\\'") + "'" for spec in specs)
    others = [a for a in arguments if a not in ("--bulk", given)]
    return [*others, f"weights=[{listed}]"]


def evaluate_all(specs: Iterable[object], make: Callable[[str], tuple[RunDir, "EvalConfig"]]) -> int:
    """Evaluate what ``make`` makes of each of ``specs``; print a table, and those that failed; return the status."""
    from senet.training.jobs import run_processes  # seconds

    if under_torchrun():
        raise UserError("--bulk starts its own processes: use trainer.devices=N, not torchrun")
    rows: list[dict[str, Any]] = []
    for spec in map(str, specs):
        row: dict[str, Any] = {"source": spec}
        try:
            run, config = make(spec)
            status = run_processes("eval", run, config)
            if run.record().get("status") == "interrupted":
                return status
            if status == OK:
                row |= read_json(run.evaluation_file)
            else:
                row["error"] = run.record().get("error") or "failed"
        except UserError as error:
            row["error"] = str(error)
        rows.append(row)
        say("")
    say(Table(COLUMNS, rows).text(width=terminal_width()))
    failed = [row for row in rows if "error" in row]
    for row in failed:
        complain(f"error: {row['source']}: {row['error']}")
    return FAILED if failed else OK
