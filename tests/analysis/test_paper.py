"""The packaged figures of the paper against a second transcription, and against themselves."""

import csv
from pathlib import Path

import pytest

from senet import UserError, model_names
from senet.analysis.paper import figure6, paper_figure, paper_figures
from senet.models import is_se

COUNTS = {
    # Rows with errors that the tables of v4 print.
    "T2": 7 + 8 + 8,
    "T3": 2 * 3,
    "T4": 8,
    "T5": 8,
    "T6": 3,
    "T7": 4,
    "T8": 17,
    "T9": 6,
    "T10": 6,
    "T11": 2,
    "T12": 3,
    "T13": 5,
    "T14": 4,
    "T15": 2,
    "T16": 3,
}


def test_no_row_of_a_table_is_missing():
    rows = [row for row in paper_figures() if row.version == "v4"]
    assert {table: sum(row.table == table for row in rows) for table in COUNTS} == COUNTS


def test_rows_are_unique_and_name_networks_that_exist():
    rows = paper_figures()
    assert len({(row.key, row.version) for row in rows}) == len(rows)
    for row in rows:
        assert row.model in ("", *model_names())
        assert not row.se or is_se(row.model)


def test_figures_agree_with_the_other_transcription(shared: Path):
    with (shared / "paper" / "tables.csv").open() as file:
        for row in csv.DictReader(file):
            ours = paper_figure(row["key"], row["version"])
            for theirs, name in (
                ("top1_err", "top1_err"),
                ("top5_err", "top5_err"),
                ("params_M", "params_m"),
            ):
                if row[theirs]:
                    assert getattr(ours, name) == float(row[theirs]), row
            if row["gflops"]:
                assert ours.gmacs == float(row["gflops"]), row


def test_the_gain_of_se_is_the_papers():
    # The differences that Tables 2 and 3 print beside the errors.
    gains = {
        "resnet50": (1.51, 0.86),
        "resnet101": (0.79, 0.45),
        "resnet152": (0.85, 0.61),
        "resnext50_32x4d": (1.01, 0.41),
        "resnext101_32x4d": (0.48, 0.56),
        "vgg16_bn": (1.80, 1.11),
        "bn_inception": (1.15, 0.75),
        "inception_resnet_v2": (0.57, 0.42),
        "mobilenet": (3.1, 1.7),
        "shufflenet": (1.6, 1.4),
    }
    for name, (top1, top5) in gains.items():
        plain, se = paper_figure(f"{name}_main"), paper_figure(f"se_{name}_main")
        assert plain.top1_err - se.top1_err == pytest.approx(top1)
        assert plain.top5_err - se.top5_err == pytest.approx(top5)


def test_versions_are_kept_apart():
    assert paper_figure("r16").top1_err == 22.28
    assert paper_figure("r16").recipe == "ablation"
    assert paper_figure("r16", "CVPR").top1_err == paper_figure("r16", "v1").top1_err == 23.29
    assert paper_figure("r16").printed["params_m"] == "28.1"
    with pytest.raises(UserError, match='no row "r17"; did you mean "r16"'):
        paper_figure("r17")
    with pytest.raises(UserError, match=r'\(CVPR\) has no row "r2"'):
        paper_figure("r2", "CVPR")


def test_figure6_has_a_value_per_plotted_channel():
    channels = {"SE_2_3": 256, "SE_3_4": 512, "SE_4_6": 1024, "SE_5_1": 2048, "SE_5_2": 2048, "SE_5_3": 2048}
    assert figure6().keys() == channels.keys()
    for panel, width in channels.items():
        curves = figure6()[panel]
        assert curves["index"] == list(range(1, width + 1, -(-width // 50)))
        assert curves.keys() == {"index", "goldfish", "pug", "plane", "cliff", "all"}
        assert all(len(curve) == len(curves["index"]) for curve in curves.values())
        assert all(0 <= gate <= 1 for name, curve in curves.items() if name != "index" for gate in curve)
