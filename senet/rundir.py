"""The run directory: the one description of what a run leaves behind, for all who write or read it.

config.yaml      resolved configuration            metrics.csv, steps.csv   per epoch, per logged step
run.json         id, hash, seed, status, machine   summary.json             figures of a finished run
log.txt          console and library messages      curves.png               the training curves
checkpoints/     best, last, previous .ckpt        predictions/             one row per image
report.html      the page of the run               mistakes/                pictures for it
"""

import csv
import datetime
import gzip
import io
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from senet.errors import UserError, in_a_line
from senet.files import atomically, hold, remove_parts, write_json, write_text

Which = Literal["best", "last"]
PREFIX = {"raw": "val", "ema": "val_ema"}
"""What the figures of raw and averaged weights are called: ``val/top1``, ``val_ema/top1``."""
CONFIG_BYTES, CONFIG_DEPTH = 2**20, 32
PREDICTION_COLUMNS = ("id", "image", "label", "predicted", "correct", "top5", "confidence", "loss")


class Predictions(NamedTuple):
    """What a network said of every validation image, sorted by id: columns of equal length N.

    Attributes:
        ids: int64, the images' places in the validation split.
        images: their names, CLASS/FILE.
        labels: class names.
        predicted: class names.
        top5: 1 where the label is among the five most probable classes, else 0; NaN in files that lack it.
        confidence: probability of the predicted class.
        loss: cross-entropy.
    """

    ids: npt.NDArray[np.int64]
    images: Sequence[str]
    labels: npt.NDArray[np.str_]
    predicted: npt.NDArray[np.str_]
    top5: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64]
    loss: npt.NDArray[np.float64]

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each image's label was predicted."""
        return np.asarray(self.labels == self.predicted, dtype=np.bool_)


class RunDir:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.record_file = path / "run.json"
        self.log_file = path / "log.txt"
        self.output_file = path / "output.txt"
        self.metrics_file = path / "metrics.csv"
        self.steps_file = path / "steps.csv"
        self.skipped_file = path / "skipped_images.csv"
        self.held_out_file = path / "held_out_images.csv"
        self.summary_file = path / "summary.json"
        self.evaluation_file = path / "evaluation.json"
        self.curves_file = path / "curves.png"
        self.page_file = path / "report.html"
        self.mistakes = path / "mistakes"
        self.checkpoints = path / "checkpoints"
        self._predictions = path / "predictions"
        self._reserve = path / ".reserve"

    # Making and opening -----------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, runs_dir: Path, name: str, config: Mapping[str, Any], record: Mapping[str, Any]
    ) -> "RunDir":
        """Make a new directory ``runs_dir/DATE-TIME_NAME_ID``; two runs can never get the same.

        Raises:
            UserError: if it cannot be made there.
        """
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        # What a file system may refuse in a name: its separator, control characters, more than 255 bytes.
        name = re.sub(r"[^\w.=,+ -]+", "-", name)[:60]
        runs_dir = runs_dir.expanduser()
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            while True:
                run_id = secrets.token_hex(3)
                path = runs_dir / f"{stamp}_{name}_{run_id}"
                with suppress(FileExistsError):
                    path.mkdir()
                    break
        except OSError as error:
            raise UserError(
                f"runs_dir={runs_dir}: no run can be written there ({error.strerror}); set runs_dir=DIR"
            ) from error
        run = cls(path)
        run.checkpoints.mkdir()
        run._predictions.mkdir()
        run.write_config(config)
        write_json(run.record_file, {"id": run_id, **record})
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run directory.

        Raises:
            UserError: if ``path`` is not one.
        """
        run = cls(path)
        if not run.exists():
            home = path.parent.parent
            hint = f"; it is a file of the run {home}" if path.is_file() and cls(home).exists() else ""
            if (path / "study.json").is_file():
                hint = f"; it is a study: name one of the runs in {path.resolve()}"
            raise UserError(f"{path} is not a run directory: it has no config.yaml and run.json{hint}")
        return run

    def exists(self) -> bool:
        """Whether this is a run directory."""
        return self.config_file.is_file() and self.record_file.is_file()

    def discard(self) -> None:
        """Remove a run that failed before its first checkpoint for a mistake the user can mend."""
        latest = self.path.parent / "latest"
        if latest.is_symlink() and os.readlink(latest) == self.path.name:
            latest.unlink()
        shutil.rmtree(self.path)

    def start_over(self) -> None:
        """Remove what an attempt without a checkpoint left behind, all but what it said."""
        keep = {self.config_file, self.record_file, self.log_file, self.output_file}
        for path in set(self.path.iterdir()) - keep - set(self.path.glob(".lock*")):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.checkpoints.mkdir()
        self._predictions.mkdir()

    # What a run says of itself ----------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration.

        Raises:
            UserError: if the file cannot be read.
        """
        try:
            text = _bounded(self.config_file)
            loaded = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)))
        except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
            raise _damaged(self.config_file, error) from error
        if not isinstance(loaded, dict):
            raise _damaged(self.config_file, "it holds no configuration")
        return {str(key): value for key, value in loaded.items()}

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration."""
        write_text(self.config_file, OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def record(self) -> dict[str, Any]:
        """Return ``run.json``; see ``read_json``."""
        return read_json(self.record_file)

    def update(self, **values: Any) -> None:
        """Change fields of ``run.json``, on a full disk too: a run keeps some room for its last words."""
        record = self.record() | values
        try:
            write_json(self.record_file, record)
        except OSError:
            self._reserve.unlink(missing_ok=True)
            write_json(self.record_file, record)

    def summary(self) -> dict[str, Any]:
        """Return ``summary.json``; see ``read_json``."""
        return read_json(self.summary_file)

    def hold(self, *, wait: bool = False, part: int = 0) -> None:
        """Keep the run for this process as long as it lives; a ``part`` of it is another machine's.

        Raises:
            UserError: if another process trains it and ``wait`` is not asked for.
        """
        try:
            hold(self.path / (f".lock{part}" if part else ".lock"), wait=wait)
        except BlockingIOError as error:
            raise UserError(f"{self.path} is still running ({error.strerror})") from error
        if not part:
            for folder in (self.path, self.checkpoints, self._predictions):
                remove_parts(folder)
            with suppress(OSError):
                self._reserve.write_bytes(bytes(2**15))

    # Checkpoints, metrics, predictions --------------------------------------------------------------------

    def checkpoint(self, which: str) -> Path:
        """Return the path of the "best" or "last" checkpoint, or of the "previous" one before the last."""
        return self.checkpoints / f"{which}.ckpt"

    def to_go_on_from(self) -> list[Path]:
        """Return the checkpoints that are there, the newest first: a run goes on from any of them."""
        paths = (self.checkpoint(which) for which in ("last", "previous", "best"))
        return [path for path in paths if path.exists()]

    def keep_last(self) -> None:
        """Give the last checkpoint, which is about to be replaced, the name of the one before it."""
        last = self.checkpoint("last")
        # There is none yet, or the file system has no links: then there is one less.
        with suppress(OSError), atomically(self.checkpoint("previous")) as temporary:
            os.link(last, temporary)

    def metrics(self) -> list[dict[str, str]]:
        """Return the rows of ``metrics.csv``, one per epoch so far; empty if there is none."""
        return read_rows(self.metrics_file)

    def held_out(self) -> list[str] | None:
        """Return the images that the run held out of its training images; None if it did not."""
        if not self.held_out_file.exists():
            return None
        return [row["image"] for row in read_rows(self.held_out_file)]

    def write_held_out(self, images: Sequence[str]) -> None:
        """Keep the list of the images that are held out."""
        text = io.StringIO()
        csv.writer(text).writerows([("image",), *((image,) for image in images)])
        write_text(self.held_out_file, text.getvalue())

    def predictions_file(self, label: str, weights: str) -> Path:
        """Return the path of the predictions of "raw" or "ema" weights at "last", "best" or "eval"."""
        return self._predictions / f"{label}_{weights}.csv"

    def write_predictions(self, label: str, weights: str, table: Predictions) -> None:
        """Write one row per image."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(PREDICTION_COLUMNS)
        right = table.right.astype(int)
        for i, index in enumerate(table.ids.tolist()):
            row = index, table.images[i], table.labels[i], table.predicted[i], right[i]
            writer.writerow([*row, int(table.top5[i]), f"{table.confidence[i]:.6f}", f"{table.loss[i]:.6f}"])
        write_text(self.predictions_file(label, weights), text.getvalue())

    def predictions(self, label: str, weights: str) -> Predictions | None:
        """Read what ``write_predictions`` wrote, also compressed as in an archive; None if there is no such file.

        Raises:
            ValueError: if it cannot be read, holds no rows, or others than predictions.
        """
        file = self.predictions_file(label, weights)
        if not file.is_file():
            file = file.with_name(f"{file.name}.gz")
        if not file.is_file():
            return None
        try:
            rows = read_rows(file)
        except (OSError, EOFError, zlib.error, csv.Error) as error:
            raise ValueError(f"{file.name} cannot be read ({in_a_line(error)})") from error
        if not rows or not {*PREDICTION_COLUMNS} - {"top5"} <= rows[0].keys():
            raise ValueError(f"{file.name} holds no predictions")
        rows.sort(key=lambda row: int(row["id"]))
        return Predictions(
            np.array([int(row["id"]) for row in rows], np.int64),
            [row["image"] for row in rows],
            np.array([row["label"] for row in rows]),
            np.array([row["predicted"] for row in rows]),
            np.array([float(row.get("top5", "nan")) for row in rows]),
            np.array([float(row["confidence"]) for row in rows]),
            np.array([float(row["loss"]) for row in rows]),
        )


def _bounded(file: Path) -> str:
    """Return the text of a configuration that does not grow when it is read: a resolved one has no references.

    Raises:
        ValueError: if it is too large, nested too deeply, or refers to parts of itself.
    """
    if file.stat().st_size > CONFIG_BYTES:
        raise ValueError(f"it has more than {CONFIG_BYTES:,} bytes")
    text, depth = file.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        refers = isinstance(event, yaml.ScalarEvent) and "${" in event.value
        if refers or depth > CONFIG_DEPTH or isinstance(event, yaml.AliasEvent):
            raise ValueError("it refers to parts of itself, or is nested too deeply")
    return text


def _damaged(file: Path, why: Exception | str) -> UserError:
    reason = str(why).strip().splitlines()
    return UserError(
        f"{file} cannot be read ({reason[0] if reason else type(why).__name__}): it is damaged, half-written or of "
        "another version; the checkpoints beside it may be whole: start a run from them with model.weights=FILE"
    )


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object of ours.

    Raises:
        UserError: if the file cannot be read or holds none.
    """
    try:
        loaded = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(file, error) from error
    if not isinstance(loaded, dict):
        raise _damaged(file, "it holds no record")
    return loaded


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header, compressed if its name ends in .gz; empty if there is no file."""
    if not file.is_file():
        return []
    opener: Any = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return list(csv.DictReader(lines))


def link_latest(path: Path, folder: Path | None = None) -> None:
    """Let ``latest`` in a folder above ``path``, or else beside it, point to it."""
    folder = folder or path.parent
    with suppress(OSError), atomically(folder / "latest") as temporary:
        # On a file system without links the path is printed all the same.
        temporary.symlink_to(path.relative_to(folder), target_is_directory=True)


def checkpoint_path(run: str | None, ckpt: str | None, which: str) -> Path:
    """Return the file ``ckpt``, or the ``which`` ("best", "last") checkpoint of the run directory ``run``."""
    if ckpt is not None:
        path = Path(ckpt).expanduser()
        if path.is_dir():
            raise UserError(f"ckpt={ckpt} is a directory: run= takes the directory of a run, ckpt= a file")
        return path
    assert run is not None
    return RunDir.open(Path(run).expanduser()).checkpoint(which)
