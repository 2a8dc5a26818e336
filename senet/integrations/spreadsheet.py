"""Labels in a file: rows of path, label and split, as spreadsheets write them."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from senet.data.config import SplitName
from senet.data.files import Names, Records
from senet.data.files.folder import checked_id
from senet.errors import UserError
from senet.files import read_regular

COLUMNS = {
    "path": ("path", "image", "file", "filename", "image_path", "file_name", "filepath"),
    "label": ("label", "class", "category", "target", "class_name"),
    "split": ("split", "set", "subset", "fold", "partition"),
}
"""What the columns may be called, in any case."""
SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    "test": "test",
}
"""As in folders, the rows of a test split stand for val where there is no val."""


class LabelledFiles(Records):
    """One split of a label file.

    Args:
        file: the label file.
        root: what the paths are relative to.
        split: "train" or "val".
        names: path of every image.
        labels: int64 (N,).
        classes: class names.
    """

    def __init__(
        self, file: Path, root: Path, split: str, names: Names, labels: Tensor, classes: list[str]
    ) -> None:
        self.file, self.root, self.split = file, root, split
        self.names, self.labels, self.classes = names, labels, classes

    def read(self, index: int) -> bytes:
        return read_regular(os.path.join(self.root, self.names[index]))

    def identity(self) -> str:
        """Return the id of the last ``senet check`` of these very files, or else one of their names only."""
        return checked_id(self, self.file)


def has_val(file: Path) -> bool:
    """Whether a label file names validation images."""
    return not {of for _, _, of in _rows(file)}.isdisjoint(("val", "test"))


def read_labels(
    file: Path, root: Path, split: SplitName, classes: list[str] | None, holds_out: bool
) -> LabelledFiles:
    """Read one split of a label file.

    Args:
        file: with a heading.
        root: what its paths are relative to.
        split: which rows.
        classes: of the training split; by default all labels of these rows, sorted (numbers as numbers).
        holds_out: whether validation images are taken from the training rows; then no split is needed.

    Raises:
        UserError: for a file without these columns, an empty or doubled row, an unknown split, a class that is not
            trained on, a file that is missing.
    """
    rows = list(_rows(file))
    splits = {of for _, _, of in rows}
    if splits == {None} and not holds_out:
        raise UserError(
            f"{file} has no column split (train, val): add one, or set data.val_fraction=0.2 or data.sampling.folds=5"
        )
    word = "test" if split == "val" and "val" not in splits else split
    kept = sorted((path, label) for path, label, of in rows if of in (word, None))
    if not kept:
        raise UserError(f"{file} has no row whose split is {split}")
    classes = classes or sorted({label for _, label in kept}, key=_number_first)
    places = {name: index for index, name in enumerate(classes)}
    for path, label in kept:
        if label not in places:
            raise UserError(f'{file}: {path} has the label "{label}", a class that is not trained on')
    missing = [path for path, _ in kept if not os.path.isfile(os.path.join(root, path))]
    if missing:
        raise UserError(
            f"{file}: {len(missing):,} of {len(kept):,} images are not under {root}, e.g. {missing[0]}"
        )
    labels = torch.tensor([places[label] for _, label in kept])
    return LabelledFiles(file, root, split, Names.of(path for path, _ in kept), labels, classes)


def _number_first(label: str) -> tuple[int, int, str]:
    return (0, int(label), "") if label.isdecimal() else (1, 0, label)


def _rows(file: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield path, label and split of every row; each path once."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: save it as CSV UTF-8") from error
    except OSError as error:
        raise UserError(f"data.file={file}: {error.strerror}") from error
    heading = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t|", key=heading.count))
    titles = [title.strip().lower() for title in next(reader, [])]
    where = {
        kind: next((titles.index(n) for n in names if n in titles), None) for kind, names in COLUMNS.items()
    }
    path_at, label_at, split_at = where["path"], where["label"], where["split"]
    if path_at is None or label_at is None:
        raise UserError(
            f"{file} needs a heading with the columns path and label; it has {', '.join(titles) or 'none'}"
        )
    seen: dict[str, int] = {}
    for cells in reader:
        number = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        row = [*(cell.strip() for cell in cells), *[""] * len(titles)]
        path, label = row[path_at].replace("\\", "/"), row[label_at]
        if not path or not label:
            raise UserError(f"{file}, line {number}: no {'label' if path else 'path'}")
        if path in seen:
            raise UserError(f"{file}, line {number}: {path} stands in line {seen[path]} already")
        seen[path] = number
        word = "" if split_at is None else row[split_at].lower()
        if split_at is not None and word not in SPLITS:
            raise UserError(f'{file}, line {number}: split "{word}" is neither train nor val')
        yield path, label, SPLITS[word] if split_at is not None else None
    if not seen:
        raise UserError(f"{file} has no rows")
