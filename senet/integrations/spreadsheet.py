"""Labels in a file: rows of path, label and split, as spreadsheets write them."""

import csv
import io
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from senet.data.config import SplitName
from senet.data.files import Names, Records
from senet.data.files.folder import checked_id
from senet.errors import UserError
from senet.files import read_regular

if TYPE_CHECKING:
    import _csv

COLUMNS = {
    "path": ("path", "image", "file", "filename", "image_path", "file_name", "filepath"),
    "label": ("label", "class", "category", "target", "class_name"),
    "split": ("split", "set", "subset", "partition"),
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


def has_val(file: Path, root: Path) -> bool:
    """Whether a label file names validation images."""
    return not {of for _, _, of in _rows(file, root)}.isdisjoint(("val", "test"))


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
    rows = list(_rows(file, root))
    splits = {of for _, _, of in rows}
    if splits == {None} and split == "train" and not holds_out:  # an evaluation takes all rows
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
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)  # 7 and 07 are two


def _rows(file: Path, root: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yield path, label and split of every row; each image once."""
    text, delimiter, before = _table(file)
    reader = _reader(text, delimiter, strict=True)
    rows = _whole(reader, file)
    titles = _titles(rows)
    path_at, label_at, split_at = _places(titles)
    if path_at is None or label_at is None:
        raise UserError(
            f"{file} needs a heading with the columns path and label; it has {', '.join(titles) or 'none'}"
        )
    seen: dict[str, int] = {}
    for cells in rows:
        number = before + reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if any(cell.strip() for cell in cells[len(titles) :]):
            raise UserError(
                f"{file}, line {number}: more cells than the heading has: quote what holds a separator"
            )
        row = [*(cell.strip() for cell in cells), *[""] * len(titles)]
        path, label = row[path_at].replace("\\", "/"), row[label_at]
        if not path or not label:
            raise UserError(f"{file}, line {number}: no {'label' if path else 'path'}")
        path = os.path.normpath(path)
        image = os.path.normpath(root / path)  # it may be written in several ways
        if image in seen:
            raise UserError(f"{file}, line {number}: {path} stands in line {seen[image]} already")
        seen[image] = number
        word = "" if split_at is None else row[split_at].lower()
        if split_at is not None and word not in SPLITS:
            raise UserError(f'{file}, line {number}: {titles[split_at]} "{word}" is neither train nor val')
        yield path, label, SPLITS[word] if split_at is not None else None
    if not seen:
        raise UserError(f"{file} has no rows")


def _whole(reader: "_csv.Reader", file: Path) -> Iterator[list[str]]:
    """Yield the rows; a quotation mark that is not closed would make one cell of all lines up to the next."""
    try:
        yield from reader
    except csv.Error as error:
        raise UserError(f"{file} cannot be read up to line {reader.line_num}: {error}") from error


def _table(file: Path) -> tuple[str, str, int]:
    """Return the table in a file, what separates its columns, and the number of lines before it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8: save it as CSV UTF-8") from error
    except OSError as error:
        raise UserError(f"data.file={file}: {error.strerror}") from error
    before, told = 0, None
    while (line := text.partition("\n"))[1] and (not line[0].strip() or line[0].lower().startswith("sep=")):
        told = line[0].strip(" \r")[4:5] or told  # as Excel writes it, and fills up with empty cells
        text, before = line[2], before + 1
    likely = sorted(",;\t|", key=line[0].count, reverse=True)
    fitting = (mark for mark in likely if None not in _places(_titles(_reader(text, mark)))[:2])
    return text, told or next(fitting, likely[0]), before


def _reader(text: str, delimiter: str, *, strict: bool = False) -> "_csv.Reader":
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _titles(reader: Iterator[list[str]]) -> list[str]:
    return [title.strip().lower() for title in next(reader, [])]


def _places(titles: list[str]) -> list[int | None]:
    """Return where the columns of ``COLUMNS`` stand."""
    return [next((titles.index(n) for n in names if n in titles), None) for names in COLUMNS.values()]
