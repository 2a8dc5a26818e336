"""Loggers: two CSV files that survive a resume; those of other libraries are integrations."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from senet.files import no_room_for, write_text
from senet.plugins import integration
from senet.rundir import RunDir, read_rows
from senet.training.config import RunConfig
from senet.training.launch import StopRequest

EXTRAS = {"tensorboard": "tensorboard", "mlflow": "mlflow"}
"""Of senet, which bring the loggers that it does not need itself."""


class CsvTable:
    """A CSV file whose header grows with new columns.

    Args:
        path: of the file.
        step: where the run continues; rows of later steps, and what a kill left of one, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        rows = read_rows(path)
        self.columns = list(rows[0]) if rows else []
        if rows:
            self._write([row for row in rows if None not in row.values() and int(row["step"]) <= step])

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; an unknown column rewrites the file with a wider header."""
        new = [column for column in row if column not in self.columns]
        if new:
            rows = read_rows(self.path)
            self.columns += new
            self._write(rows)
        with no_room_for(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


class CsvFiles(Logger):
    """``metrics.csv`` with a row per validation and ``steps.csv`` with a row per logged training step."""

    name = "csv"
    version = ""

    def __init__(self, run: RunDir, step: int) -> None:
        super().__init__()
        self.epochs = CsvTable(run.metrics_file, step - 1)  # Lightning counts a validation's step from 0
        self.steps = CsvTable(run.steps_file, step)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row, to the file its kind belongs to."""
        table = self.epochs if any(key.startswith("val") for key in metrics) else self.steps
        values = {key: round(float(value), 6) for key, value in metrics.items()}
        values |= {"epoch": int(metrics["epoch"]), "lr": float(f"{metrics['lr']:.6g}")}  # which may be tiny
        table.append({"step": step, **values})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The configuration lies beside the files."""


def build_loggers(config: RunConfig, run: RunDir, step: int, stop: StopRequest) -> list[Logger]:
    """Return the CSV files, cut back to ``step``, and the chosen loggers, each continued if the run is resumed.

    One that fails while it trains asks ``stop`` to end the run.
    """
    loggers: list[Logger] = [CsvFiles(run, step)]
    for name, settings in vars(config.logger).items():
        if settings:
            theirs = integration(
                f"{name}_logger", package=name, asked=f"logger={name}", extra=EXTRAS.get(name)
            )
            loggers.append(theirs.open_logger(settings, run, config.values))
    for logger in loggers:
        for method in ("log_metrics", "save", "finalize"):
            careful = stop.after(f"the logger {type(logger).__name__}")(getattr(logger, method))
            setattr(logger, method, careful)
    return loggers
