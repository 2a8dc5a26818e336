"""The one reader of our checkpoints: the record of a run, and its network with raw or averaged weights."""

import argparse
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, Literal, TypeGuard
from zipfile import BadZipFile, ZipFile

import torch
from torch import Tensor

from senet.data.preprocessing import Preprocessing
from senet.errors import UserError
from senet.models import Network
from senet.models.factory import rebuild
from senet.rundir import RunDir

Averaging = Literal["auto", "raw", "ema"]
"""The trained weights, their average, or "auto": those by which the run chose its best checkpoint."""

PREFIX = {"raw": "model.", "ema": "ema.module."}
"""How the keys of the trained weights and of their average begin."""

SEAL = "digests"
"""The part of a checkpoint that has a digest of each of the others."""


@dataclass(frozen=True)
class Checkpoint:
    """What ``ClassificationModule`` and Lightning wrote.

    Attributes:
        path: of the file, for messages.
        content: of the file; ``content["senet"]`` is our part of it, in plain containers.
    """

    path: Path
    content: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """Our part of the file, as ``ClassificationModule.on_save_checkpoint`` wrote it."""
        return self.content["senet"]

    @property
    def config(self) -> dict[str, Any]:
        """The run's resolved configuration."""
        return self.record["config"]

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the classifier's rows."""
        return self.record["classes"]

    @property
    def preprocessing(self) -> Preprocessing:
        """The images that the network was validated on."""
        return Preprocessing(**self.record["preprocessing"])

    @property
    def step(self) -> int:
        """Optimiser steps so far."""
        return int(self.content["global_step"])

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, under the names that training gave them."""
        return self.content["state_dict"]

    def choose(self, weights: Averaging) -> Literal["raw", "ema"]:
        """Return which weights "auto" stands for."""
        return self.record.get("selected_by", "raw") if weights == "auto" else weights

    def state(self, weights: Averaging = "auto") -> dict[str, Tensor]:
        """Return the network's weights under its own names.

        Raises:
            UserError: if the run kept no average.
        """
        prefix = PREFIX[self.choose(weights)]
        found = {k.removeprefix(prefix): v for k, v in self.state_dict.items() if k.startswith(prefix)}
        if not found:
            raise UserError(f"{self.path} has no averaged weights (the run had no ema): use weights=raw")
        return found

    def network(self, weights: Averaging = "auto") -> Network:
        """Rebuild the network, in evaluation mode."""
        network = rebuild(self.record["model"])
        network.load_state_dict(self.state(weights), strict=True)
        return network.eval()


def seal(content: dict[str, Any]) -> None:
    """Add a digest of every part of a checkpoint that is about to be written; ``read_checkpoint`` compares them."""
    content[SEAL] = {part: digest(value) for part, value in content.items()}


def digest(value: object) -> str:
    """Return 32 hex digits that any other bit of plain containers and tensors changes, strides aside."""
    found = hashlib.blake2b(digest_size=16)

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            found.update(f"{value.dtype}{tuple(value.shape)}".encode())
            found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping | list | tuple):
            items = [*value.items()] if isinstance(value, Mapping) else value
            found.update(f"{len(items)} items ".encode())
            for item in items:
                add(item)
        else:
            found.update(f"{value!a} ".encode())

    add(value)
    return found.hexdigest()


def newest_checkpoint(run: RunDir) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint of a run that is whole, if it has any, and what is wrong with newer ones.

    Raises:
        UserError: if there are some and all are damaged.
    """
    last, paths = run.checkpoint("last"), run.to_go_on_from()
    damaged = [f"{last}: there is no such checkpoint"] if paths and last not in paths else []
    for path in paths:
        try:
            found = read_checkpoint(path)
        except UserError as error:
            damaged.append(str(error))
            continue
        if not (lost := sorted(found.content.get(SEAL, {}).keys() - found.content.keys())):
            return found, damaged
        damaged.append(f"{path} lacks {', '.join(lost)}")
    if paths:
        raise UserError(f"no checkpoint of the run can be read: {'; '.join(damaged)}")
    return None, []


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one of our checkpoints.

    Raises:
        UserError: if the file is missing, damaged, or was not written by senet.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such checkpoint")
    return as_checkpoint(path, read_torch_file(path))


def as_checkpoint(path: Path, content: object) -> Checkpoint:
    """Return what was read from ``path`` as one of our checkpoints.

    Raises:
        UserError: if it is none, or a part of it is not what was written; parts that were taken out may be absent.
    """
    if not is_ours(content):
        raise UserError(f"{path} was not written by senet: it has no record of its network and preprocessing")
    if isinstance(digests := content.get(SEAL), dict):
        for part in content.keys() - {SEAL}:
            if digests.get(part) != digest(content[part]):
                raise UserError(f'{path} is damaged: its "{part}" is not what was written')
    return Checkpoint(path, content)


def is_ours(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether the content of a file is that of one of our checkpoints."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("senet"), dict)
        and isinstance(content.get("state_dict"), dict)
        and "model" in content["senet"]
    )


def check_archive(path: Path) -> None:
    """Compare the checksums of what ``torch.save`` wrote; files of before torch 1.6 have none.

    Raises:
        BadZipFile: or one of the many others that the reader of a damaged archive raises.
    """
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            with ZipFile(file) as archive:
                if bad := archive.testzip():
                    raise BadZipFile(bad)


def read_torch_file(path: Path) -> Any:
    """Return what ``torch.save`` wrote, tensors and plain containers only, on the CPU.

    The checksums of the archive are compared first: torch itself passes over them.

    Raises:
        UserError: if the file is damaged or holds anything else.
    """
    try:
        check_archive(path)
        # What training programs write beside tensors, and what does nothing when it is read.
        with torch.serialization.safe_globals([argparse.Namespace, PosixPath]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except Exception as error:
        foreign = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = (
            f"it holds {foreign[1]}, a class that reading would run; save its state_dict() alone"
            if foreign
            else "it is damaged or cut short, or torch did not write it"
        )
        raise UserError(f"{path} cannot be read as weights or a checkpoint: {why}") from error
