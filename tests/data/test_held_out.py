"""Validation images held out of the training images, and labels in a file."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from senet.cli import main
from senet.data.config import AugmentConfig, SamplingConfig
from senet.data.module import ImageData
from senet.data.sampling import hold_out
from senet.data.sets import FolderConfig, HubConfig
from senet.errors import UserError
from senet.integrations.spreadsheet import read_labels
from senet.rundir import RunDir


def test_the_share_of_every_class_is_held_out():
    labels = torch.tensor([0] * 10 + [1] * 25 + [2] * 2)
    config = FolderConfig(val_fraction=0.2)
    kept, held = hold_out(config, labels)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(37))
    assert torch.bincount(labels[held]).tolist() == [2, 5, 1]
    assert torch.equal(held, hold_out(config, labels)[1])
    other = FolderConfig(val_fraction=0.2, sampling=SamplingConfig(subset_seed=1))
    assert not torch.equal(held, hold_out(other, labels)[1])
    for fraction, sentence in (
        (0.0, "between 0 and 1"),
        (1.5, "between 0 and 1"),
        (0.2, "has a single image"),
    ):
        with pytest.raises(UserError, match=sentence):
            hold_out(FolderConfig(val_fraction=fraction), torch.tensor([0, 0, 1]))
    with pytest.raises(UserError, match="not both"):
        hold_out(FolderConfig(val_fraction=0.2, sampling=SamplingConfig(folds=2)), labels)


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_that_are_trained_on_and_held_out_are_opened_once(
    image_tree: Path, tmp_path: Path, in_memory: bool
):
    root = tmp_path / "photographs"
    shutil.copytree(image_tree / "train", root / "train")
    (root / "train" / "cat" / "notes.txt").touch()
    config = FolderConfig(root=str(root), val_fraction=0.25, in_memory=in_memory, workers=0)
    data = ImageData(config, AugmentConfig(crop="pad", flip=1.0), 0)
    assert data.left_out == {".txt": 1}
    assert (data.train_size, data.val_size, len(data.val)) == (12, 4, 16)
    # Validation images are not augmented, though they lie among those that are trained on.
    alone = ImageData(config, None, 0)
    for one, other in zip(data.val_dataloader(), alone.val_dataloader(), strict=True):
        assert one.ids.equal(other.ids)
        assert one.images.equal(other.images)


@pytest.mark.slow
@pytest.mark.parametrize("flat", [True, False])
def test_a_folder_without_val(train, evaluate, image_tree: Path, tmp_path: Path, flat):
    root = tmp_path / "photographs"
    shutil.copytree(image_tree / "train", root if flat else root / "train")
    sizes = (
        "data.preprocessing.size=32",
        "data.preprocessing.resize=36",
        "data.batch_size=4",
        "data.workers=0",
    )
    settings = ("data=imagefolder", f"data.root={root}", *sizes, "trainer.max_epochs=1")
    with pytest.raises(UserError, match=r"data\.val_fraction=0\.2 or data\.sampling\.folds=5"):
        FolderConfig(root=str(root)).records("train" if flat else "val", None)
    run = train(*settings, "data.val_fraction=0.25")
    held = RunDir(run).held_out()
    assert held is not None
    assert len(held) == 4
    assert sum("cat" in name for name in held) == 2
    assert list(RunDir(run).predictions("last", "raw").images) == held
    # Photographs that come later change nothing about the images held out.
    where = root if flat else root / "train"
    for index in range(3):
        shutil.copy(where / "cat" / "0.jpg", where / "cat" / f"0_{index}.jpg")
    result = evaluate(f"run={run}", "which=last")
    assert result["count"] == 4
    assert evaluate(f"run={run}", "data=imagefolder", f"data.root={where}", "data.workers=0")["count"] == 19
    (root / Path(held[0]).relative_to(root.name if flat else ".")).unlink()
    with pytest.raises(AssertionError, match="is not there any more"):
        evaluate(f"run={run}")


def test_labels_in_a_file(image_tree: Path, tmp_path: Path):
    file = tmp_path / "labels.csv"

    def write(text: str, encoding: str = "utf-8-sig") -> None:
        file.write_text(text, encoding=encoding)

    write(
        "Label;Note;PATH;Split\nox;;train/cat/0.jpg;Train\n10;;train/dog/0.jpg;train\n\n9;;train/dog/1.jpg;train\n9;x;val/dog/0.jpg;valid\n"
    )
    train = read_labels(file, image_tree, "train", None, False)
    assert train.classes == ["9", "10", "ox"]
    assert [(train.name(i), train.classes[train.labels[i]]) for i in range(3)] == [
        ("train/cat/0.jpg", "ox"),
        ("train/dog/0.jpg", "10"),
        ("train/dog/1.jpg", "9"),
    ]
    assert train.read(0) == (image_tree / "train/cat/0.jpg").read_bytes()
    val = read_labels(file, image_tree, "val", train.classes, False)
    assert [val.name(0), val.labels.tolist()] == ["val/dog/0.jpg", [0]]
    write("path,label\n" + "".join(f"train/cat/{i}.jpg,{'0' * (i + 1)}7\n" for i in range(8)))
    classes = read_labels(file, image_tree, "train", None, True).classes
    assert classes == sorted(classes)  # equal numbers, whose order in a set is another in every process
    write("path\tlabel\ntrain\\cat\\0.jpg\ta\n")
    assert read_labels(file, image_tree, "train", None, True).name(0) == "train/cat/0.jpg"
    assert len(read_labels(file, image_tree, "val", None, False)) == 1  # an evaluation takes all
    write("sep=;;;\r\n\r\npath;label;fold;a, b, c, d\r\n./train/cat/0.jpg;a;3;\r\n")  # as Excel writes it
    assert read_labels(file, image_tree, "train", None, True).name(0) == "train/cat/0.jpg"
    write(
        f"sep=;\npath;label\ntrain/cat/0.jpg;a\n./train/../train/cat/0.jpg;b\n{image_tree}/train/cat/0.jpg;b\n"
    )
    with pytest.raises(UserError, match=r"line 4: train/cat/0.jpg stands in line 3 already"):
        read_labels(file, image_tree, "train", None, True)
    write(f"path,label\ntrain/cat/0.jpg,a\n{image_tree}/train/cat/0.jpg,b\n")
    with pytest.raises(UserError, match=r"line 3: .* stands in line 2 already"):
        read_labels(file, image_tree, "train", None, True)
    for text, sentence in (
        ("path,label\ntrain/cat/0.jpg,a\n", "no column split"),
        ("a,b\n1,2\n", "needs a heading with the columns path and label; it has a, b"),
        ("path,label\n", "has no rows"),
        ("", "it has none"),
        ("path,label,split\nx.jpg,a,train\n", r"1 of 1 images are not under .*, e\.g\. x\.jpg"),
        ("path,label,split\ntrain/cat/0.jpg,,train\n", "line 2: no label"),
        ("path,label,split\ntrain/cat/0.jpg,a,later\n", 'line 2: split "later" is neither'),
        (
            "path,label,split\ntrain/cat/0.jpg,a,train\ntrain/cat/0.jpg,a,val\n",
            r"line 3: .* stands in line 2 already",
        ),
        ("path,label,split\ntrain/cat/0.jpg,a,val\n", "no row whose split is train"),
        # An open quotation mark would make one label of all that follows, and a bare comma cut one.
        (
            'path,label\ntrain/cat/0.jpg,"a\ntrain/dog/0.jpg,b\n',
            "cannot be read up to line 3: unexpected end",
        ),
        ('path,label\ntrain/cat/0.jpg,"a\ntrain/dog/0.jpg,"b\n', "cannot be read up to line 3: ',' expected"),
        ("path,label\ntrain/cat/0.jpg,cat, black\n", "line 2: more cells than the heading has"),
    ):
        write(text)
        with pytest.raises(UserError, match=sentence):
            read_labels(file, image_tree, "train", None, False)
    write("path,label\ntrain/cat/0.jpg,\u00e4\n", "latin-1")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_labels(file, image_tree, "train", None, True)


@pytest.mark.slow
def test_a_file_of_labels_is_checked_packed_and_resumed(train, evaluate, image_tree, tmp_path, capsys):
    root, rows = tmp_path / "images", ["path;label;split"]
    shutil.copytree(image_tree, root)
    for file in sorted(root.rglob("*.jpg")):
        path = file.relative_to(root)
        rows.append(f"{path};{'10' if 'cat' in path.parts else '9'};{path.parts[0]}")
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(rows), encoding="utf-8-sig")
    csv = ("data=csv", f"data.file={file}", f"data.root={root}")
    assert main(["check", str(file), "--images", str(root), "--workers", "1"]) == 0
    assert "22 images" in capsys.readouterr().out
    assert main(["pack", str(file), str(tmp_path / "pack"), "--images", str(root), "--workers", "1"]) == 0
    small = (
        "data.preprocessing.size=32",
        "data.preprocessing.resize=36",
        "data.batch_size=4",
        "data.workers=0",
    )
    runs = [
        train(*data, *small, "trainer.max_epochs=2")
        for data in (csv, ("data=packed", f"data.root={tmp_path / 'pack'}"))
    ]
    labelled, packed = ([row["train/loss"] for row in RunDir(run).metrics()] for run in runs)
    assert labelled == packed
    assert RunDir(runs[0]).summary()["data"]["manifest"]["train"].startswith("content:")
    # The file and its images move.
    shutil.move(root, tmp_path / "moved")
    shutil.move(file, tmp_path / "moved" / "labels.csv")
    assert evaluate(f"run={runs[0]}", f"root={tmp_path / 'moved'}", "which=last")["count"] == 6
    there = (f"data.root={tmp_path / 'moved'}", f"data.file={tmp_path / 'moved' / 'labels.csv'}")
    train("trainer.max_epochs=3", *there, resume=runs[0])
    assert len(RunDir(runs[0]).metrics()) == 3
    rows[-1] = rows[1].replace(";10;", ";9;").replace("train/cat/0", "train/cat/1")
    (tmp_path / "moved" / "labels.csv").write_text("\n".join(rows))
    assert main(["check", str(tmp_path / "moved" / "labels.csv")]) == 2
    assert "stands in line" in capsys.readouterr().err


def test_problems_of_a_file_of_labels(image_tree, tmp_path, capsys):
    root = tmp_path / "images"
    shutil.copytree(image_tree / "train", root)
    shutil.copy(root / "cat" / "0.jpg", root / "twin.jpg")
    (root / "broken.jpg").write_bytes(b"no image")
    rows = ["file,class,set", "cat/0.jpg,cat,train", "twin.jpg,dog,train", "dog/1.jpg,dog,train"]
    rows += ["broken.jpg,Cat,test", "dog/2.jpg,dog,test"]
    (root / "labels.csv").write_text("\n".join(rows))
    assert main(["check", str(root / "labels.csv"), "--workers", "1"]) == 1
    report = json.loads((root / ".senet" / "labels.csv" / "check.json").read_text())
    assert report["problems"] == {
        "duplicate-across-classes": ["train/cat/0.jpg", "train/twin.jpg"],
        "missing-in-train": ["Cat"],
        "missing-in-val": ["cat"],
        "unreadable": ["val/broken.jpg"],
    }
    assert main(["pack", str(root / "labels.csv"), str(tmp_path / "pack")]) == 2
    assert 'has the label "Cat", a class that is not trained on' in capsys.readouterr().err
    # Where there are validation rows, those of a test split are neither trained nor validated on.
    (root / "labels.csv").write_text("\n".join([*rows[:4], "dog/3.jpg,dog,val", rows[5]]))
    assert [
        read_labels(root / "labels.csv", root, split, None, False).name(0) for split in ("train", "val")
    ] == [
        "cat/0.jpg",
        "dog/3.jpg",
    ]


def test_a_folder_without_val_is_checked_and_packed(train, image_tree, tmp_path, capsys):
    root, out = tmp_path / "photographs", tmp_path / "pack"
    shutil.copytree(image_tree / "train", root)
    assert main(["check", str(root), "--workers", "1"]) == 0
    assert main(["pack", str(root), str(out), "--workers", "1"]) == 0
    assert f"data.root={out} data.val_fraction=0.2" in capsys.readouterr().out
    sizes = (
        "data.preprocessing.size=32",
        "data.preprocessing.resize=36",
        "data.batch_size=4",
        "data.workers=0",
    )
    run = train("data=packed", f"data.root={out}", "data.val_fraction=0.25", *sizes, "trainer.max_epochs=1")
    assert len(RunDir(run).held_out()) == 4


def test_a_data_set_of_the_hub_as_a_folder(image_tree: Path, tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    from senet.integrations.hub_datasets import open_split

    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    )
    files = sorted((image_tree / "train").rglob("*.jpg"))
    rows = {"picture": list(map(str, files)), "kind": [file.parent.name for file in files]}
    table = datasets.Dataset.from_dict(rows, features)
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "hub"))
    records = open_split(str(tmp_path / "hub"), "train", None)
    assert records.classes == ["cat", "dog"]
    assert records.labels.tolist() == [0] * 8 + [1] * 8
    assert [records.read(i) for i in range(16)] == [file.read_bytes() for file in files]
    assert records.identity() == open_split(str(tmp_path / "hub"), "train", None).identity()
    with pytest.raises(UserError, match=r"has no val split; it has train; or set data\.val_fraction"):
        open_split(str(tmp_path / "hub"), "val", None)
    table.save_to_disk(str(tmp_path / "alone"))  # a table, and no dictionary of splits
    assert open_split(str(tmp_path / "alone"), "train", None).labels.tolist() == records.labels.tolist()
    with pytest.raises(UserError, match=r"data\.root=elsewhere has no effect on data=huggingface"):
        HubConfig(dataset=str(tmp_path / "hub"), root="elsewhere")
    unlabelled = datasets.Dataset.from_dict({**rows, "kind": ["cat", None] * 8}, features)
    datasets.DatasetDict({"train": unlabelled}).save_to_disk(str(tmp_path / "unlabelled"))
    with pytest.raises(UserError, match="train has images without a label"):
        open_split(str(tmp_path / "unlabelled"), "train", None)
    plain = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict({"train": plain}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(UserError, match=r"needs one column of Image, not 0; it has text"):
        open_split(str(tmp_path / "text"), "train", None)
    with pytest.raises(UserError, match="cannot be had"):
        open_split(str(tmp_path / "nothing"), "train", None)
