"""What the page of a run says, against counts made by hand; and that no name or mishap breaks it."""

import json
import re
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from html_pages import Page
from run_fakes import config, write_run

from senet import UserError
from senet.analysis.predictions import (
    by_class,
    calibration,
    class_names,
    confident_mistakes,
    confused_pairs,
    confusion,
    worth_showing,
)
from senet.analysis.report import configure, run
from senet.analysis.run_page import conclude
from senet.data.datasets import MemoryDataset
from senet.rundir import Predictions, RunDir

NAMES = ["a cat", "it's <b>bold</b>", "🐈", "x" * 60, '"q" & $5$', "_10", "_9", "²"]


def predictions(classes: list[str], images: int = 400) -> Predictions:
    generator = np.random.default_rng(5)
    names = np.array(classes)
    labels = np.arange(images) % len(classes)
    predicted = np.where(generator.random(images) < 0.7, labels, generator.integers(0, len(classes), images))
    confidence = generator.random(images)
    return Predictions(
        np.arange(images), [f"val/{names[k]}/{i}.jpg" for i, k in enumerate(labels)], names[labels],
        names[predicted], np.ones(images), confidence, -np.log(confidence),
    )  # fmt: skip


def test_figures_against_counts_by_hand():
    table = predictions(NAMES)
    classes = class_names(table)
    assert sorted(classes) == sorted(NAMES)
    assert classes.index("_9") < classes.index("_10")
    counts = confusion(table, classes)
    pairs = Counter(zip(table.labels.tolist(), table.predicted.tolist(), strict=True))
    assert {
        (a, b): counts[i, j] for i, a in enumerate(classes) for j, b in enumerate(classes) if counts[i, j]
    } == pairs
    rows = by_class(counts, classes)
    assert [row.right / row.images for row in rows] == sorted(row.right / row.images for row in rows)
    for row in rows:
        assert (row.images, row.right) == (50, pairs[row.name, row.name])
        assert (
            row.times == pairs[row.name, row.other] == max(pairs[row.name, b] for b in NAMES if b != row.name)
        )
    worst = confused_pairs(counts, classes, 3)
    assert [pair.times for pair in worst] == sorted(
        (n for (a, b), n in pairs.items() if a != b), reverse=True
    )[:3]
    found = calibration(table)
    bins = np.minimum((table.confidence * 15).astype(int), 14)
    gaps = [abs(table.right[bins == b].sum() - table.confidence[bins == b].sum()) for b in range(15)]
    assert found.ece == pytest.approx(sum(gaps) / len(bins), abs=1e-6)
    assert found.accuracy == pytest.approx([table.right[bins == b].mean() for b in range(15)])
    mistakes = confident_mistakes(table, 2)
    assert table.confidence[mistakes].tolist() == sorted(table.confidence[~table.right], reverse=True)[:2]


def test_a_confidence_of_one_is_in_the_last_bin():
    table = predictions(NAMES)
    surest = table._replace(confidence=np.where(np.arange(len(table.labels)) % 2, 1.0, 0.95))
    expected = abs(surest.right.mean() - surest.confidence.mean())
    assert calibration(surest).ece == pytest.approx(expected)


def test_of_many_classes_those_confused_stand_together():
    counts = np.diag(np.full(200, 50))
    for a, b in ((7, 150), (33, 90)):
        counts[a, b], counts[b, a] = 20, 9
    shown = worth_showing(counts, 4)
    assert sorted(shown) == [7, 33, 90, 150]
    assert abs(shown.index(7) - shown.index(150)) == abs(shown.index(33) - shown.index(90)) == 1


@pytest.fixture
def evaluated(tmp_path: Path) -> RunDir:
    directory = RunDir.create(
        tmp_path, "best", config(), {"task": "eval", "title": "evaluation", "status": "finished"}
    )
    directory.evaluation_file.write_text(json.dumps({"model": "se_resnet20", "data": "imagefolder"}))
    return directory


def report_of(path: Path, *options: str) -> int:
    parser = ArgumentParser()
    configure(parser)
    return run(parser.parse_args([str(path), *options]))


@pytest.mark.parametrize("classes", [NAMES, [f"<i>{i}" for i in range(300)]], ids=["odd names", "many"])
def test_page_is_made_anew_from_the_predictions_alone(evaluated: RunDir, capsys, classes: list[str]):
    table = predictions(classes, 1200)
    pixels = torch.randint(256, (1200, 1, 8, 8), dtype=torch.uint8)
    data = MemoryDataset(pixels, torch.zeros(1200).long(), classes, str)
    evaluated.write_predictions("eval", "raw", table)
    assert conclude(evaluated, table, data) == str(evaluated.page_file)
    html = evaluated.page_file.read_text()
    assert len(list(evaluated.mistakes.iterdir())) == html.count('src="data:image/png') == 24
    page = Page(html)
    assert "<b>bold" not in html
    assert "<i>" not in html
    assert not [address for address in page.loads if not address.startswith("data:image")]
    assert {line[0] for table in page.tables[:-2] for line in table[1:]} == set(classes)
    matrix = page.tables[-2]
    assert len(matrix) == 1 + min(20, len(classes))
    evaluated.page_file.unlink()
    assert report_of(evaluated.path) == 0
    assert f"top-1 {100 * table.right.mean():.2f} %" in capsys.readouterr().out
    assert evaluated.page_file.read_text() == html


def test_a_network_that_says_nan_has_a_page(evaluated: RunDir, capsys):
    table = predictions(NAMES)
    confidence = np.where(np.arange(400) % 4, table.confidence, np.nan)
    evaluated.write_predictions("eval", "raw", table._replace(confidence=confidence))
    assert report_of(evaluated.path) == 0
    assert f"top-1 {100 * table.right.mean():.2f} %" in capsys.readouterr().out
    sure = np.nan_to_num(confidence)
    bins = [(sure * 15).astype(int) == b for b in range(15)]
    expected = sum(abs(table.right[b].sum() - sure[b].sum()) for b in bins) / 400
    assert f"ECE {100 * expected:.2f} points" in evaluated.page_file.read_text()


@pytest.mark.parametrize(
    ("block", "facts"), [("se", "SE reduction"), ("eca", "block"), ("cbam", "block SE reduction")]
)
def test_the_page_says_what_stands_in_the_places_of_se(tmp_path: Path, block: str, facts: str):
    path = write_run(tmp_path / "run", config(block=block), 0, [True, False])
    summary = json.loads((path / "summary.json").read_text())
    summary |= {"seconds": 1.0, "epochs": 1, "data": {"train_images": 2, "val_images": 2}}
    (path / "summary.json").write_text(json.dumps(summary))
    assert report_of(path) == 0
    html = (path / "report.html").read_text()
    assert [name for name in ("block", "SE reduction") if f"<dt>{name}</dt>" in html] == re.findall(
        r"block|SE \w+", facts
    )


def test_what_cannot_be_drawn_is_said_and_no_more(evaluated: RunDir, capsys):
    table = predictions(NAMES)
    data = MemoryDataset(torch.zeros(400, 1, 8, 8).byte(), torch.zeros(400).long(), NAMES, str)
    evaluated.page_file.mkdir()
    said = conclude(evaluated, table, data)
    assert said.startswith("it could not be drawn (IsADirectoryError: ")
    assert "\n" not in said
    evaluated.page_file.rmdir()
    assert report_of(evaluated.path) == 0
    assert "there are no predictions" in capsys.readouterr().out
    with pytest.raises(UserError, match="nothing to be compared with"):
        report_of(evaluated.path, "--baseline", "r=4")
    evaluated.predictions_file("eval", "raw").write_text("id\n1\n")
    with pytest.raises(UserError, match="the predictions cannot be read"):
        report_of(evaluated.path)
