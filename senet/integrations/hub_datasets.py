"""Image data sets of the Hugging Face Hub, by name, or saved on a disk by ``datasets``."""

from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from senet.data.config import SplitName
from senet.data.files import Names, Records
from senet.errors import UserError
from senet.files import read_regular

NAMES: dict[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("validation", "val", "valid", "test")}


class HubRecords(Records):
    """One split, whose images stay encoded as they were stored.

    Args:
        table: of ``datasets``, its images not decoded.
        split: what it is called there.
        image: its column of images.
        labels: int64 (N,).
        classes: class names.
    """

    def __init__(self, table: Any, split: str, image: str, labels: Tensor, classes: list[str]) -> None:
        self.table, self.split, self.image = table, split, image
        self.labels, self.classes = labels, classes
        self.names = Names.of(f"{classes[label]}/{index}" for index, label in enumerate(labels.tolist()))
        self.fingerprint: str = table._fingerprint  # of its content and how it was made

    def read(self, index: int) -> bytes:
        cell = self.table[index][self.image]
        if cell is None:
            raise ValueError("the row has no image")
        data: bytes | None = cell["bytes"]
        return read_regular(cell["path"]) if data is None else data

    def identity(self) -> str:
        return f"content:{self.fingerprint}"


def open_split(name: str, split: SplitName, classes: list[str] | None) -> HubRecords:
    """Return a split of the data set ``name``.

    Args:
        name: OWNER/NAME of the Hub, or a folder that ``save_to_disk`` wrote or ``load_dataset`` reads.
        split: which one; where there is no validation split, the test split is.
        classes: of the training split.

    Raises:
        UserError: if it cannot be had, or has no such split, no images or no class labels.
    """
    saved = Path(name).expanduser()
    try:
        is_saved = any((saved / file).is_file() for file in ("dataset_dict.json", "state.json"))
        tables: Any = (
            datasets.load_from_disk(str(saved))
            if is_saved
            else datasets.load_dataset(str(saved) if saved.is_dir() else name)
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"data.dataset={name} cannot be had: {reason}") from error
    if isinstance(tables, datasets.Dataset):  # saved by itself
        tables = {"train": tables}
    found = next((wanted for wanted in NAMES[split] if wanted in tables), None)
    if found is None:
        hint = "" if split == "train" else "; or set data.val_fraction=0.2"
        raise UserError(f"data.dataset={name} has no {split} split; it has {', '.join(tables)}{hint}")
    table = tables[found]
    image = _column(table, name, datasets.Image)
    label = _column(table, name, datasets.ClassLabel)
    named: list[str] = table.features[label].names
    if classes is not None and named != classes:
        raise UserError(f"data.dataset={name}: {found} has other classes than the network was trained on")
    given: list[int | None] = table[label][:]
    if any(value is None or value < 0 for value in given):
        raise UserError(f"data.dataset={name}: {found} has images without a label")
    labels = torch.tensor(given, dtype=torch.int64)
    return HubRecords(table.cast_column(image, datasets.Image(decode=False)), found, image, labels, named)


def _column(table: Any, name: str, kind: type) -> str:
    columns = [column for column, feature in table.features.items() if isinstance(feature, kind)]
    if len(columns) != 1:
        have = ", ".join(f"{column} ({type(feature).__name__})" for column, feature in table.features.items())
        raise UserError(
            f"data.dataset={name} needs one column of {kind.__name__}, not {len(columns)}; it has {have}"
        )
    column: str = columns[0]
    return column
