"""The run directory: one place that holds everything of a run, made once and never shared.

config.yaml      resolved configuration            metrics.csv, steps.csv   per epoch, per logged step
run.json         id, hash, seed, status, machine   summary.json             figures of a finished run
log.txt          console and library messages      curves.png               the training curves
checkpoints/     best.ckpt, last.ckpt              predictions/             one row per image
"""

import datetime
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from senet.errors import UserError


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_atomically(path, json.dumps(value, indent=2, default=str) + "\n")


class RunDir:
    """Paths and records of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.log_file = path / "log.txt"
        self.checkpoints = path / "checkpoints"
        self.predictions = path / "predictions"
        self.summary_file = path / "summary.json"
        self.record_file = path / "run.json"

    @classmethod
    def create(
        cls, runs_dir: Path, name: str, config: Mapping[str, Any], record: Mapping[str, Any]
    ) -> "RunDir":
        """Make a new directory ``runs_dir/DATE-TIME_NAME_ID``; two runs can never get the same."""
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        runs_dir.mkdir(parents=True, exist_ok=True)
        while True:
            run_id = secrets.token_hex(3)
            path = runs_dir / f"{stamp}_{name}_{run_id}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                continue
        run = cls(path)
        run.checkpoints.mkdir()
        run.predictions.mkdir()
        write_atomically(run.config_file, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
        write_json(run.record_file, {"id": run_id, **record})
        return run

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run directory.

        Raises:
            UserError: if ``path`` is not one.
        """
        run = cls(path)
        if not run.config_file.is_file() or not run.record_file.is_file():
            raise UserError(f"{path} is not a run directory: it has no config.yaml and run.json")
        return run

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        loaded = OmegaConf.to_container(OmegaConf.load(self.config_file))
        assert isinstance(loaded, dict)
        return {str(key): value for key, value in loaded.items()}

    def record(self) -> dict[str, Any]:
        """Return ``run.json``."""
        loaded: dict[str, Any] = json.loads(self.record_file.read_text())
        return loaded

    def update(self, **values: Any) -> None:
        """Change fields of ``run.json``."""
        write_json(self.record_file, self.record() | values)

    def is_running(self) -> bool:
        """Whether the process that last wrote "running" is alive on this machine."""
        record = self.record()
        if record.get("status") != "running" or record.get("host") != os.uname().nodename:
            return False
        pid = int(record.get("pid", 0))
        return pid > 0 and Path(f"/proc/{pid}").exists() and pid != os.getpid()

    def discard(self) -> None:
        """Remove a run that failed before its first checkpoint for a mistake the user can mend."""
        latest = self.path.parent / "latest"
        if latest.is_symlink() and os.readlink(latest) == self.path.name:
            latest.unlink()
        shutil.rmtree(self.path)

    def start_over(self) -> None:
        """Remove what an attempt without a checkpoint left behind, all but what it said."""
        keep = {
            self.config_file,
            self.record_file,
            self.log_file,
            self.path / "output.txt",
            self.path / ".lock",
        }
        for path in set(self.path.iterdir()) - keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.checkpoints.mkdir()
        self.predictions.mkdir()


def link_latest(path: Path) -> None:
    """Let ``latest`` beside ``path`` point to it."""
    link = path.parent / "latest"
    temporary = path.parent / f".latest.{os.getpid()}"
    try:
        temporary.symlink_to(path.name, target_is_directory=True)
        os.replace(temporary, link)
    except OSError:  # a file system without links: the path is printed all the same
        temporary.unlink(missing_ok=True)


def checkpoint_path(run: str | None, ckpt: str | None, which: str) -> Path:
    """Return the file ``ckpt``, or the ``which`` ("best", "last") checkpoint of the run directory ``run``."""
    if ckpt is not None:
        return Path(ckpt)
    assert run is not None
    return RunDir.open(Path(run)).checkpoints / f"{which}.ckpt"
