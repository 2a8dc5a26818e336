"""Every number of a report, made anew from the run directories with numpy and scipy."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pytest
from html_pages import Page
from run_fakes import config, write_run
from scipy import stats

from senet.analysis.plots import draw
from senet.analysis.report import configure, report, run
from senet.analysis.rows import build_rows
from senet.analysis.runs import collect

POINTS = {
    "plain": (config("resnet20"), 0.90, 269_434, 2_516_608),
    "r=4": (config(reduction=4), 0.96, 277_918, 2_524_672),
    "r=16": (config(reduction=16), 0.93, 271_807, 2_518_624),
}
SEEDS = (0, 1, 2)
IMAGES = 250
PAPER = {"plain": (23.30, 25.6), "r=4": (22.25, 35.7), "r=16": (22.28, 28.1)}


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    """What each network got right, (seeds, images)."""
    generator = np.random.default_rng(7)
    hardness = generator.random(IMAGES)
    return {
        label: np.stack(
            [hardness + 0.1 * generator.standard_normal(IMAGES) < share + 0.01 * seed for seed in SEEDS]
        )
        for label, (_, share, _, _) in POINTS.items()
    }


@pytest.fixture(scope="module")
def study(truth, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("reduction")
    for label, (values, _, parameters, macs) in POINTS.items():
        for seed in SEEDS:
            write_run(root / f"{label}_{seed}", values, seed, truth[label][seed], top5=99.0 - 0.1 * seed,
                      parameters=parameters, macs=macs, rate=1000.0 + seed**2)  # fmt: skip
    return root


@pytest.fixture(scope="module")
def made(study: Path, tmp_path_factory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("out")
    written = report([study], out)
    assert not written.gaps
    assert all(path.is_file() for path in written.files)
    return {path.name: path.read_text() for path in written.files if path.suffix != ".png"} | {
        "tty": written.text
    }


@pytest.fixture(scope="module")
def rows(made) -> dict[str, dict[str, str]]:
    return {row["point"]: row for row in csv.DictReader(made["report.csv"].splitlines())}


def test_csv(rows, truth):
    assert list(rows) == list(POINTS)
    for label, (_, _, parameters, macs) in POINTS.items():
        row, errors = rows[label], 100 * (1 - truth[label].mean(1))
        assert row["seeds"] == "0 1 2"
        assert row["n"] == "3"
        expected = {
            "top1_err": errors.mean(),
            "top1_err_sd": errors.std(ddof=1),
            "top5_err": 1.1,
            "top5_err_sd": 0.1,
            "parameters": parameters,
            "macs": macs,
            "images_per_second": 1001.0,
            "paper_top1_err": PAPER[label][0],
            "paper_params_m": PAPER[label][1],
        }
        if label != "plain":
            base = 100 * (1 - truth["plain"].mean(1))
            interval = stats.ttest_rel(errors, base).confidence_interval(0.95)
            gains = truth[label].astype(int).sum(0) - truth["plain"].astype(int).sum(0)
            expected |= {
                "difference": (errors - base).mean(),
                "difference_low": interval.low,
                "difference_high": interval.high,
                "difference_n": 3,
                "only_ours": (truth[label] & ~truth["plain"]).sum(),
                "only_baseline": (truth["plain"] & ~truth[label]).sum(),
                "mcnemar_p": _sign_flip(gains),
                "paper_difference": PAPER[label][0] - 23.30,
            }
            resampled = np.random.default_rng(3).choice(-100 * gains / 3, (4000, IMAGES)).mean(1)
            assert [float(row["bootstrap_low"]), float(row["bootstrap_high"])] == pytest.approx(
                list(np.percentile(resampled, [2.5, 97.5])), abs=0.25
            )
            word = "better" if interval.high < 0 else "worse" if interval.low > 0 else "within"
            assert row["verdict"].startswith(word)
        for key, value in expected.items():
            assert float(row[key]) == pytest.approx(value, abs=1e-9), (label, key)
    assert rows["r=4"]["verdict"].startswith("better by")
    assert rows["plain"]["baseline"] == rows["plain"]["difference"] == rows["plain"]["mcnemar_p"] == ""


def _sign_flip(gains: np.ndarray) -> float:
    """The distribution of the sum under random signs, by adding one image after the other."""
    chance = np.array([1.0])
    for gain in np.abs(gains):
        step = np.zeros(2 * gain + 1)
        step[0] += 0.5
        step[-1] += 0.5
        chance = np.convolve(chance, step)
    reach = len(chance) // 2
    return float(chance[np.abs(np.arange(-reach, reach + 1)) >= abs(gains.sum())].sum())


def test_page(made, rows):
    page = Page(made["report.html"])
    assert not page.loads
    assert len(set(page.ids)) == len(page.ids)
    assert "url(http" not in made["report.html"]
    (table,) = page.tables
    assert table[0][0] == "ours"
    assert table[0][1].startswith("paper: resnet50 on imagenet")
    assert [line[0] for line in table[2:]] == list(POINTS)
    for line in table[2:]:
        assert _cells(rows[line[0]]) == line


def _cells(row: dict[str, str]) -> list[str]:
    """What people should read, from the unrounded figures."""

    def number(key: str, form: str = ".2f") -> str:
        return format(float(row[key]), form) if row[key] else ""

    def interval(key: str) -> str:
        return (
            f" [{number(key + '_low', '+.2f')}, {number(key + '_high', '+.2f')}]" if row[key + "_low"] else ""
        )

    p = float(row["mcnemar_p"] or 1)
    p_text = "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"
    return [
        row["point"],
        f"{number('top1_err')} ± {number('top1_err_sd')}",
        f"{number('top5_err')} ± {number('top5_err_sd')}",
        row["n"],
        number("difference", "+.2f") + interval("difference"),
        row["verdict"] or "baseline",
        (p_text if row["mcnemar_p"] else "") + interval("bootstrap"),
        f"{int(row['parameters']) / 1e3:.1f} k",
        f"{int(row['macs']) / 1e6:.3f} M",
        f"{float(row['images_per_second']):,.0f}",
        number("paper_top1_err"),
        number("paper_difference", "+.2f"),
        number("paper_params_m", ".1f"),
        "v4 T10",
    ]


def test_markdown_latex_and_terminal(made, rows):
    lines = [line for line in made["report.md"].splitlines() if line.startswith("|")]
    body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert body == [_cells(row) for row in rows.values()]
    latex = made["report.tex"]
    assert latex.count("{") == latex.count("}")
    assert not re.search(r"(?<!\\)%", latex)
    data = [line for line in latex.splitlines() if line.startswith(("plain", "r="))]
    for line, row in zip(data, rows.values(), strict=True):
        cells = line.removesuffix(r" \\").split(" & ")
        assert [cell.replace("$\\pm$", "±").replace("$<$", "<") for cell in cells] == _cells(row)
    for row in rows.values():
        (line,) = [line for line in made["tty"].splitlines() if line.startswith(row["point"] + " ")]
        assert _cells(row)[1] in line
        assert _cells(row)[4] in line
        assert line.endswith("v4 T10")


def test_plots_are_svg_in_the_pages_colours(made):
    pictures = re.findall(r"<svg.*?</svg>", made["report.html"], flags=re.DOTALL)
    assert len(pictures) == 2
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        text = " ".join(root.itertext())
        assert "top-1 error, %" in text
        assert "plain" in text
        assert not set(re.findall(r"#[0-9a-f]{6}", picture)) - {"#000000", "#ffffff"}
        assert "var(--accent)" in picture


def test_names_beside_points_cover_neither_points_nor_one_another(tmp_path: Path):
    """Twelve networks of which most lie close together, as those of a zoo do."""
    generator = np.random.default_rng(3)
    for index in range(12):
        cost = 4e9 if index == 11 else 1e8 * (1 + 0.2 * generator.random())
        right = generator.random(200) < 0.75 + 0.05 * generator.random()
        write_run(
            tmp_path / str(index), config(lr=0.1 + index), 0, right, parameters=int(cost), macs=int(cost)
        )
    rows = build_rows(collect([tmp_path]), "last")
    figure = draw(rows)["Error and cost"]
    figure.draw_without_rendering()
    (axis,) = figure.axes
    names = {text.get_text(): text.get_window_extent() for text in axis.texts}
    points = axis.transData.transform([(row.macs, row.top1.mean) for row in rows])
    best = min(rows, key=lambda row: row.top1.mean)
    assert best.label in names
    assert len(names) < len(rows)
    for name, box in names.items():
        others = [other for word, other in names.items() if word != name]
        assert box.count_overlaps(others) == 0
        assert box.count_contains(points) == 0 or name == best.label
        assert axis.get_window_extent().contains(box.x0, box.y0)
        assert axis.get_window_extent().contains(box.x1, box.y1)


def test_holes_are_shown_and_the_rest_is_reported(study: Path, truth, tmp_path: Path, capsys):
    for path in study.iterdir():
        (tmp_path / path.name).symlink_to(path)
    paths = [str(path) for path in sorted(tmp_path.iterdir()) if not path.name.startswith("r=16")]
    for seed in SEEDS:
        failed = tmp_path / "failed" / str(seed)
        write_run(failed, config(reduction=16), seed, [], status="failed", error="loss <nan> & more")
        paths.append(str(failed))
    parser = ArgumentParser()
    configure(parser)
    assert run(parser.parse_args([*paths, "--out", str(tmp_path / "out")])) == 1
    said = capsys.readouterr().out
    assert said.count("failed: loss <nan> & more") == 3
    assert re.search(r"r=16 +missing +0 .*no finished run", said)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert [line[:3] for line in page.tables[1][1:]] == [
        ["r=16", str(s), "failed: loss <nan> & more"] for s in SEEDS
    ]
    assert _first(tmp_path / "out", "r=4")["n"] == "3"


def _first(out: Path, label: str) -> dict[str, str]:
    rows = csv.DictReader((out / "report.csv").read_text().splitlines())
    return next(row for row in rows if row["point"] == label)


def test_one_seed_other_images_and_averages(truth, tmp_path: Path):
    write_run(tmp_path / "a", config("resnet20"), 0, truth["plain"][0], weights="ema")
    write_run(tmp_path / "b", config(), 0, truth["r=4"][0], weights="ema")
    report([tmp_path], tmp_path / "one")
    row = _first(tmp_path / "one", "SE")
    assert row["verdict"] == "one seed: no interval"
    assert row["difference_low"] == row["top1_err_sd"] == ""
    wins, losses = (truth["r=4"] & ~truth["plain"])[0].sum(), (truth["plain"] & ~truth["r=4"])[0].sum()
    assert float(row["mcnemar_p"]) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert "averaged" in (tmp_path / "one" / "report.md").read_text()
    write_run(tmp_path / "c", config(reduction=4), 0, truth["r=4"][0][:100])
    report([tmp_path], tmp_path / "other")
    assert _first(tmp_path / "other", "r=4")["mcnemar_p"] == ""


def test_runs_on_other_images_are_grouped_not_subtracted(truth, tmp_path: Path):
    other = config() | {"data": {"name": "cifar10", "batch_size": 64, "preprocessing": {"size": 32}}}
    write_run(tmp_path / "a", config("resnet20"), 0, truth["plain"][0])
    write_run(tmp_path / "b", config(), 0, truth["r=4"][0])
    write_run(tmp_path / "c", other, 0, truth["r=4"][0][:100])
    text = report([tmp_path], tmp_path / "out").text
    rows = {r["point"]: r for r in csv.DictReader((tmp_path / "out" / "report.csv").read_text().splitlines())}
    assert list(rows) == ["plain, data=digits", "SE, data=digits", "SE, data=cifar10"]  # and no word of sizes
    assert rows["SE, data=digits"]["baseline"] == "plain, data=digits"
    assert rows["SE, data=cifar10"]["baseline"] == rows["SE, data=cifar10"]["difference"] == ""
    assert "Table: digits, 250 images" in text
    assert "Table: cifar10, 100 images" in text
    html = (tmp_path / "out" / "report.html").read_text()
    first, second, others = Page(html).tables
    assert [line[0] for line in first[1:]] == ["plain, data=digits", "SE, data=digits"]
    assert not [title for title in second[0] if "difference" in title or "verdict" in title]
    # What follows from the data set is told below.
    assert others[0] == ["point", "data.batch_size", "data.preprocessing.size"]
    assert others[-1] == ["SE, data=cifar10", "64", "32"]
    forced = report([tmp_path], tmp_path / "forced", baseline="plain, data=digits")
    assert "on other images than plain, data=digits" in forced.text
    assert _first(tmp_path / "forced", "SE, data=cifar10")["difference"] == ""


def test_images_that_changed_between_two_runs_are_two_points(truth, tmp_path: Path):
    for name, seed, count in (("a", 0, 250), ("b", 1, 250), ("c", 2, 249)):
        write_run(tmp_path / name, config(), seed, truth["r=4"][0][:count])
    rows = list(csv.DictReader(_csv(tmp_path)))
    assert [(row["seeds"], row["validation"]) for row in rows] == [
        ("0 1", "digits, 250 images"), ("2", "digits, 249 images"),
    ]  # fmt: skip


def _csv(path: Path) -> list[str]:
    report([path], path / "out")
    return (path / "out" / "report.csv").read_text().splitlines()


def test_without_a_baseline_the_page_says_how_to_name_one(truth, tmp_path: Path):
    write_run(tmp_path / "a", config("resnet20"), 0, truth["plain"][0])
    write_run(tmp_path / "b", config("resnet32"), 0, truth["r=4"][0])
    made = report([tmp_path], tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    assert "--baseline LABEL" in html
    assert "--baseline LABEL" in made.text
    (table,) = Page(html).tables
    assert table[0] == ["point", "top-1 err, %", "top-5 err, %", "n", "parameters", "MACs", "images/s"]
    assert "verdict" in report([tmp_path], tmp_path / "out", baseline="resnet20").text


def test_a_baseline_that_was_inferred_says_so(study: Path, made, tmp_path: Path):
    for text in (made["tty"], made["report.md"], made["report.html"]):
        assert "No baseline was named" in text.replace("\n", " ")
        assert "--baseline LABEL" in text.replace("\n", " ")
    named = report([study], tmp_path, baseline="plain")
    assert "No baseline was named" not in named.text


def test_trials_say_that_they_are(truth, tmp_path: Path):
    write_run(tmp_path / "a", config(), 0, truth["plain"][0], overrides=["debug=limits"])
    made = report([tmp_path], tmp_path / "out")
    assert "debug=limits: a trial of the program" in made.text
    assert "class='warning'>debug=limits" in (tmp_path / "out" / "report.html").read_text()
    write_run(tmp_path / "b", config(), 0, truth["plain"][0], overrides=["debug=null"])
    assert "trial" not in report([tmp_path / "b"], tmp_path / "out").text
