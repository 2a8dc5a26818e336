"""From run directories to a table and plots: nothing is typed in, everything is made anew from the files."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from senet.analysis.page import as_html
from senet.analysis.plots import as_svg, draw, save_png
from senet.analysis.report_formats import as_csv, as_latex, as_markdown, as_text
from senet.analysis.runs import At, Gap, Study, collect
from senet.analysis.table import Row, build_rows, common_settings, source

RECIPES = {
    "cited": "quoted by the paper from elsewhere",
    "main": "SGD, batch 1024, lr 0.6 divided by 10 every 30 of 100 epochs",
    "ablation": "lr 0.1, divided by 10 on plateaus, about 300 epochs, label smoothing, no SE biases, SE-ResNet-50",
    "fixed270": "as the ablations, on a fixed schedule of 270 epochs",
    "mobile": "batch 256, lr 0.1, divided by 10 on plateaus, about 400 epochs",
    "senet154": "batch 2048, lr 1.0, label smoothing, dropout, BN frozen at the end",
    "cifar": "the recipes of the trunks' own papers",
    "places": "Places365-Challenge, from scratch",
    "coco": "Faster R-CNN",
    "released": "the authors' released weights, trained longer and with more augmentation",
}
"""What the paper's recipes are, by the name that ``PaperFigure.recipe`` has for them."""


class Report(NamedTuple):
    """What was written, and what is missing.

    Attributes:
        text: the table for a terminal, with the missing runs.
        files: everything that was written.
        gaps: missing and failed runs.
    """

    text: str
    files: list[Path]
    gaps: list[Gap]


def report(
    paths: Sequence[str | Path], out: Path | None = None, *, baseline: str | None = None, at: At = "last"
) -> Report:
    """Write ``report.{txt,md,csv,tex,html}`` and the plots of the runs at or below ``paths``.

    Args:
        paths: run directories, directories of runs, or globs.
        out: where to write; by default ``report`` in the one directory given, else here.
        baseline: label of the point to compare with; by default each point's plain twin.
        at: figures of the "last" epoch, or of the "best" one, which flatters: it is chosen on the same images.

    Raises:
        UserError: if there are no runs, or ``baseline`` is no point.
    """
    study = collect(paths, baseline, at)
    rows = build_rows(study, at)
    if out is None:
        out = Path(paths[0]) / "report" if len(paths) == 1 and Path(paths[0]).is_dir() else Path("report")
    out.mkdir(parents=True, exist_ok=True)
    notes, lead, shared = _notes(rows, at), _lead(study), common_settings(study)
    figures = draw(rows)
    text = f"{study.name}: {lead}\n\n{as_text(rows)}{_gap_lines(study.gaps, '  ')}"
    svgs = {title: as_svg(figure, _file_name(title)) for title, figure in figures.items()}
    contents = {
        "report.txt": text + "\n" + "\n".join(f"* {note}" for note in notes) + "\n",
        "report.md": _markdown(study, lead, shared, rows, list(figures), notes),
        "report.csv": as_csv(rows),
        "report.tex": as_latex(rows),
        "report.html": as_html(study.name, lead, shared, rows, study.gaps, svgs, notes),
    }
    for name, content in contents.items():
        (out / name).write_text(content)
    for title, figure in figures.items():
        save_png(figure, out / f"{_file_name(title)}.png")
    files = [out / name for name in contents] + [out / f"{_file_name(title)}.png" for title in figures]
    return Report(text, files, study.gaps)


def _file_name(title: str) -> str:
    return title.lower().replace(" ", "_")


def _lead(study: Study) -> str:
    runs = sum(len(point.runs) for point in study.points)
    seeds = sorted({seed for point in study.points for seed in point.runs})
    lead = f"{len(study.points)} points, {runs} finished runs, seeds {', '.join(map(str, seeds)) or 'none'}"
    return lead + (f"; {len(study.gaps)} missing, failed or unused" if study.gaps else "")


def _gap_lines(gaps: Sequence[Gap], indent: str) -> str:
    lines = [
        f"{indent}{gap.label}, seed {gap.seed}: {gap.reason}" + (f" ({gap.path})" if gap.path else "")
        for gap in gaps
    ]
    return "\nmissing, failed or unused runs\n" + "\n".join(lines) + "\n" if lines else ""


def _markdown(
    study: Study, lead: str, shared: dict[str, str], rows: list[Row], plots: list[str], notes: list[str]
) -> str:
    parts = [
        f"# {study.name}",
        lead + ".",
        ", ".join(f"{k}: {v}" for k, v in shared.items()),
        as_markdown(rows),
    ]
    parts += [f"![{title}]({_file_name(title)}.png)" for title in plots]
    if study.gaps:
        parts += [
            "## Missing and failed runs",
            "\n".join(f"- {g.label}, seed {g.seed}: {g.reason}" for g in study.gaps),
        ]
    parts += ["## How to read it", "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _notes(rows: list[Row], at: At) -> list[str]:
    epoch = (
        "the last epoch"
        if at == "last"
        else "each run's best epoch, chosen on the same validation images, which flatters every point"
    )
    notes = [
        f"Ours: validation errors of {epoch}; mean ± sample standard deviation over n seeds.",
        "Difference: the point's top-1 error minus its baseline's, in percentage points, negative is better; the "
        "95 % t interval is of the differences between runs of equal seed, or Welch's where seeds differ. It says "
        "what training again would do on the same images. Each interval stands for one comparison; among 20 "
        "points without any effect one is expected to leave 0 out.",
        "McNemar p and bootstrap: the same networks on the same images, image by image, all common seeds of an "
        "image taken together (exact sign-flip test; 10,000 draws of images). They say what other images would "
        "do and nothing of other seeds.",
        "MACs: multiply-adds of convolutions and matrix products for one image; images/s: training, median over "
        "seeds.",
    ]
    recipes = {(source(row.paper), row.paper.dataset, RECIPES[row.paper.recipe]) for row in rows if row.paper}
    notes += [
        f"Paper, {table} ({dataset}): {recipe}. Its figures are of one run each, without intervals; compare the "
        "order and the differences, not the levels."
        for table, dataset, recipe in sorted(recipes)
    ]
    return notes


# Command --------------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``senet report``."""
    parser.add_argument("paths", nargs="+", metavar="DIR", help="run directories, or directories of them")
    parser.add_argument("--out", type=Path, help="where to write (default: DIR/report; of several, ./report)")
    parser.add_argument("--baseline", metavar="LABEL", help="point to compare with (default: the plain twin)")
    parser.add_argument("--at", choices=("last", "best"), default="last", help="which epoch's figures")


def run(arguments: argparse.Namespace) -> int:
    """Run ``senet report``; 1 if a run is missing, so that scripts notice."""
    made = report(arguments.paths, arguments.out, baseline=arguments.baseline, at=arguments.at)
    print(made.text)
    print("written to", made.files[0].parent)
    return 1 if any(gap.missing for gap in made.gaps) else 0
