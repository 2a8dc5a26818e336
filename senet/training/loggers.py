"""Loggers: two CSV files that survive a resume, and thin openings of wandb and TensorBoard."""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from senet.errors import UserError
from senet.training.config import LoggerConfig, WandbConfig
from senet.training.rundir import RunDir


class CsvTable:
    """A CSV file whose header grows with new columns and whose rows can be cut back to a step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] = []
        if path.exists():
            with path.open(newline="") as file:
                self.columns = next(csv.reader(file), [])

    def read(self) -> list[dict[str, str]]:
        """Return all rows."""
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; an unknown column rewrites the file with a wider header."""
        new = [column for column in row if column not in self.columns]
        if new:
            rows = self.read()
            self.columns += new
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def cut_after(self, step: int) -> None:
        """Drop rows of later steps: a resumed run writes them again."""
        if self.path.exists():
            self._write([row for row in self.read() if int(row["step"]) <= step])

    def _write(self, rows: list[dict[str, str]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        temporary.replace(self.path)


class CsvFiles(Logger):
    """``metrics.csv`` with a row per validation and ``steps.csv`` with a row per logged training step."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.epochs = CsvTable(directory / "metrics.csv")
        self.steps = CsvTable(directory / "steps.csv")

    @property
    def name(self) -> str:
        """Lightning asks for it."""
        return "csv"

    @property
    def version(self) -> str:
        """Lightning asks for it."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row, to the file its kind belongs to."""
        table = self.epochs if any(key.startswith("val") for key in metrics) else self.steps
        values = {k: (int(v) if k == "epoch" else round(float(v), 6)) for k, v in metrics.items()}
        table.append({"step": step, **values})

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The configuration lies beside the files."""

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Drop what lies beyond the checkpoint a run continues from."""
        self.epochs.cut_after(step)
        self.steps.cut_after(step)


def build_loggers(config: LoggerConfig, run: RunDir, values: Mapping[str, Any]) -> list[Logger]:
    """Return the CSV files and the chosen loggers, each continued if the run is resumed."""
    loggers: list[Logger] = [CsvFiles(run.path)]
    if config.tensorboard:
        try:
            loggers.append(TensorBoardLogger(run.path, name="tensorboard", version=""))
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the tensorboard package: install senet[tensorboard]"
            ) from error
    if config.wandb is not None:
        loggers.append(_wandb(config.wandb, run, values))
    return loggers


def _wandb(config: WandbConfig, run: RunDir, values: Mapping[str, Any]) -> Logger:
    import wandb

    logging.getLogger("wandb").setLevel(logging.WARNING)
    record = run.record()
    # One id per run directory: a resume continues the same wandb run, another job can never join it.
    logger = WandbLogger(
        save_dir=run.path,
        name=record["title"],
        id=run.path.name.replace("_", "-"),
        project=config.project,
        group=config.group or str(values["name"]),
        entity=config.entity,
        offline=config.offline,
        tags=list(config.tags),
        resume=None if config.offline else "allow",
        config=dict(values),
        settings=wandb.Settings(silent=True, quiet=True, console="off"),
    )
    return logger


def finish_loggers(loggers: list[Logger], exit_code: int) -> None:
    """Close every logger; wandb is told whether the run succeeded."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                logger.experiment.finish(exit_code=exit_code)
        else:
            logger.finalize("success" if exit_code == 0 else "failed")
