"""From run directories to a table and plots: nothing is typed in, everything is made anew from the files."""

import argparse
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from senet.analysis.canvas import as_svg, save_png
from senet.analysis.columns import PAPER, report_columns
from senet.analysis.labels import flatten, settings, shown, trial
from senet.analysis.paper import RECIPES
from senet.analysis.plots import draw
from senet.analysis.rows import ReportRow, build_rows
from senet.analysis.run_page import write_page
from senet.analysis.runs import At, Gap, Study, collect
from senet.errors import UserError
from senet.files import write_text
from senet.models import plain_twin
from senet.page import bullets, figure, page
from senet.rundir import RunDir
from senet.table import Column, Table, as_csv
from senet.terminal import terminal_width

HEAD = {
    "model.name": "network",
    "data.name": "data",
    "data.preprocessing.size": "image size, px",
    "trainer.max_epochs": "epochs",
    "data.batch_size": "batch per device",
    "optimizer.name": "optimiser",
    "optimizer.lr": "lr",
    "schedule.name": "schedule",
    "trainer.devices": "devices",
}
"""Settings that the head of a report names where all points share them."""
SETTINGS = "Settings that differ too"
NO_BASELINE = (
    "No point is the plain twin of others, so none is subtracted. Name the one to compare with, by its label in "
    "the table: senet report DIR... --baseline LABEL"
)
INFERRED = (
    "No baseline was named, so every network is compared with its plain twin, trained alike, or where there is none "
    "with the first point. To name another, by its label in the table: senet report DIR... --baseline LABEL"
)
COMPARED = (
    "Difference: the point's top-1 error minus its baseline's, in percentage points, negative is better; the 95 % t "
    "interval is of the differences between runs of equal seed, or Welch's where seeds differ. It says what training "
    "again would do on the same images. Each interval stands for one comparison; among 20 points without any effect "
    "one is expected to leave 0 out.",
    "McNemar p and bootstrap: the same networks on the same images, image by image, all common seeds of an image "
    "taken together (exact sign-flip test; 10,000 draws of images). They say what other images would do and nothing "
    "of other seeds.",
)
CAPTION = (
    "Large dot: mean over seeds; small dots, or marks at the left edge: seeds; bar: 95 % t interval of the mean, "
    "cut off at the frame. Names stand where there is room. Lower is better."
)
GAP_COLUMNS: list[Column[Gap]] = [
    Column("point", lambda gap: gap.label, words=True),
    Column("seed", lambda gap: str(gap.seed)),
    Column("reason", lambda gap: gap.reason, words=True, style=lambda gap: "wide"),
    Column("directory", lambda gap: gap.path.name if gap.path else "", words=True),
]


class Report(NamedTuple):
    """What was written, and what is missing.

    Attributes:
        text: the table, as far as the terminal is wide, with the missing runs.
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
    tables = {
        images: Table(report_columns(group), group)
        for images, group in ((name, list(of)) for name, of in groupby(rows, lambda row: row.validation))
    }
    plots = _plots(tables)
    pictures = {title: as_svg(drawn, name) for title, (name, drawn) in plots.items()}
    made = _Parts(study, _lead(study, len(tables)), tables, _notes(rows, at, len(tables)), _settings(study))
    contents = {
        "report.txt": _text(made, None) + "".join(f"\n* {note}" for note in made.notes) + "\n",
        "report.md": _markdown(made, {title: name for title, (name, _) in plots.items()}),
        "report.csv": as_csv([row.record() for row in rows]) + "\n",
        "report.tex": "\n\n".join(table.latex() for table in tables.values()) + "\n",
        "report.html": _html(made, pictures),
    }
    for name, content in contents.items():
        write_text(out / name, content)
    for name, drawn in plots.values():
        save_png(drawn, out / f"{name}.png")
    written = [out / name for name in (*contents, *(f"{n}.png" for n, _ in plots.values()))]
    return Report(_text(made, terminal_width()), written, study.gaps)


def _plots(tables: Mapping[str, Table[ReportRow]]) -> dict[str, tuple[str, Figure]]:
    """Return the plots of every table with the names of their files, by title."""
    plots = {}
    for number, (images, table) in enumerate(tables.items(), start=1):
        for title, drawn in draw(table.rows).items():
            name = title.lower().replace(" ", "_")
            if len(tables) > 1:
                title, name = f"{title}: {images}", f"{name}_{number}"
            plots[title] = (name, drawn)
    return plots


class _Parts(NamedTuple):
    """What every form of a report is made of; ``tables`` by validation images."""

    study: Study
    lead: str
    tables: Mapping[str, Table[ReportRow]]
    notes: list[str]
    settings: Table[Sequence[str]] | None

    def titled(self) -> Iterator[tuple[str, Table[ReportRow]]]:
        """Yield every table with its heading."""
        for images, table in self.tables.items():
            yield f"Table: {images}" if len(self.tables) > 1 else "Table", table

    def warning(self) -> str:
        """Return what must be known before the figures."""
        return trial(run.record for point in self.study.points for run in point.runs.values())

    def hint(self) -> str:
        """Return how to name a baseline where nobody did."""
        if self.study.inferred:
            return INFERRED
        compared = any(point.baseline for point in self.study.points)
        return NO_BASELINE if len(self.study.points) > 1 and not compared else ""


def _settings(study: Study) -> Table[Sequence[str]] | None:
    """Return the settings in which points differ that their labels leave out: points over settings, or turned."""
    if not study.others:
        return None
    flat = [flatten(point.config) for point in study.points]
    rows = [["point", *study.others]]
    rows += [
        [point.label, *(shown(f[key]) if key in f else "" for key in study.others)]
        for point, f in zip(study.points, flat, strict=True)
    ]
    if len(rows[0]) > len(rows):
        rows = [["setting", *rows[0][1:]], *rows[1:]]
        rows = list(map(list, zip(*rows, strict=True)))

    def column(i: int) -> Column[Sequence[str]]:
        return Column(rows[0][i], lambda row: row[i], words=True, style=lambda row: "wide")

    return Table([column(i) for i in range(len(rows[0]))], rows[1:])


def _lead(study: Study, sets: int) -> str:
    runs = sum(len(point.runs) for point in study.points)
    seeds = sorted({seed for point in study.points for seed in point.runs})
    lead = f"{len(study.points)} points, {runs} finished runs, seeds {', '.join(map(str, seeds)) or 'none'}"
    lead += f", on {sets} sets of validation images" if sets > 1 else ""
    return lead + (f"; {len(study.gaps)} missing, failed or unused" if study.gaps else "")


def _text(made: _Parts, width: int | None) -> str:
    parts = [f"{made.study.name}: {made.lead}", made.warning(), textwrap.fill(made.hint(), 80)]
    for title, table in made.titled():
        parts += [title if len(made.tables) > 1 else "", table.text(rule=True, empty="-", width=width)]
    gaps = [
        f"  {gap.label}, seed {gap.seed}: {gap.reason}" + (f"\n    {gap.path}" if gap.path else "")
        for gap in made.study.gaps
    ]
    parts += ["\n".join(["missing, failed or unused runs", *gaps]) if gaps else ""]
    return "\n\n".join(part for part in parts if part) + "\n"


def _markdown(made: _Parts, plots: Mapping[str, str]) -> str:
    study = made.study
    parts = [f"# {study.name}", made.warning(), f"{made.lead}.", made.hint()]
    parts += [", ".join(f"{k}: {v}" for k, v in shared_settings(study).items())]
    for title, table in made.titled():
        parts += [f"## {title}" if len(made.tables) > 1 else "", table.markdown()]
    parts += [f"![{title}]({name}.png)" for title, name in plots.items()]
    if made.settings:
        parts += [f"## {SETTINGS}", made.settings.markdown()]
    if study.gaps:
        gaps = "\n".join(f"- {gap.label}, seed {gap.seed}: {gap.reason}" for gap in study.gaps)
        parts += ["## Missing and failed runs", gaps]
    parts += ["## How to read it", "\n".join(f"- {note}" for note in made.notes)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _html(made: _Parts, pictures: Mapping[str, str]) -> str:
    study = made.study
    sections = {"Baseline": f"<p>{escape(made.hint())}</p>" if made.hint() else ""}
    for title, table in made.titled():
        headings = {PAPER: f"paper: {_printed(table.rows)}, its own recipe"}
        sections[title] = table.html("results", style="points", headings=headings)
    figures = "".join(figure(title, picture, CAPTION) for title, picture in pictures.items())
    missing = Table(GAP_COLUMNS, study.gaps).html("missing runs", style="points")
    sections |= {
        "Plots": f"<div class='plots'>{figures}</div>" if figures else "",
        SETTINGS: made.settings.html("settings", style="points") if made.settings else "",
        "Missing and failed runs": missing if study.gaps else "",
        "How to read it": bullets(made.notes),
    }
    return page(study.name, made.lead, shared_settings(study), sections, made.warning())


def _notes(rows: Sequence[ReportRow], at: At, sets: int) -> list[str]:
    epoch = (
        "the last epoch"
        if at == "last"
        else "each run's best epoch, chosen on the same validation images, which flatters every point"
    )
    notes = [f"Ours: validation errors of {epoch}; mean ± sample standard deviation over n seeds."]
    if sets > 1:
        notes += [
            "Runs on other validation images stand in a table of their own; nothing is subtracted between them."
        ]
    notes += COMPARED if any(row.baseline for row in rows) else ()
    notes += [
        "MACs: multiply-adds of convolutions and matrix products for one image; images/s: training, median over "
        "seeds.",
    ]
    recipes: dict[tuple[str, str, str], list[ReportRow]] = {}
    for row in rows:
        if row.paper:
            key = (row.paper.source, row.paper.dataset, RECIPES[row.paper.recipe])
            recipes.setdefault(key, []).append(row)
    notes += [
        f"Paper, {table} ({_printed(of)}): {recipe}. Its figures are of one run each, without intervals; compare the "
        "order and the differences, not the levels."
        for (table, _, recipe), of in sorted(recipes.items(), key=lambda entry: entry[0])
    ]
    return notes


def _printed(rows: Iterable[ReportRow]) -> str:
    """Return of which trunk, if it is one, and of which data the published figures are."""
    figures = [row.paper for row in rows if row.paper]
    trunks = {plain_twin(figure.model) for figure in figures if figure.model}
    data = " and ".join(sorted({figure.dataset for figure in figures}))
    return f"{trunks.pop()} on {data}" if len(trunks) == 1 else data


def shared_settings(study: Study) -> dict[str, str]:
    """Return what all points share, for the report's head."""
    flat = [flatten(settings(point.config)) for point in study.points if point.config]
    shared = {}
    for key, name in HEAD.items():
        values = {str(f.get(key)) for f in flat}
        if flat and (len(values) == 1 or key == "model.name"):
            shared[name] = ", ".join(sorted(values)) if len(values) < 4 else f"{len(values)} networks"
    runs = [run for point in study.points for run in point.runs.values()]
    weights = sorted({"averaged" if run.weights == "ema" else "raw" for run in runs})
    shared["weights"] = " and ".join(weights) or "-"
    shared["validation images"] = ", ".join(sorted({f"{r.summary['data']['val_images']:,}" for r in runs}))
    machines = {_machine(run.record.get("environment", {})) for run in runs}
    shared["machine"] = "several, images/s do not compare" if len(machines) > 1 else "".join(machines)
    return {name: value for name, value in shared.items() if value}


def _machine(environment: Mapping[str, Any]) -> str:
    gpus = [gpu.get("name", gpu) if isinstance(gpu, dict) else gpu for gpu in environment.get("gpus") or ()]
    return ", ".join(map(str, gpus)) or f"CPU, {environment.get('cpu_cores', '?')} cores"


# Command --------------------------------------------------------------------------------------------------


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Of one run or evaluation, its own page is written anew: RUN/report.html."
    parser.add_argument("paths", nargs="+", metavar="DIR", help="run directories, or directories of them")
    parser.add_argument("--out", type=Path, help="where to write (default: DIR/report; of several, ./report)")
    parser.add_argument("--baseline", metavar="LABEL", help="point to compare with (default: the plain twin)")
    parser.add_argument("--at", choices=("last", "best"), default="last", help="which epoch's figures")


def run(arguments: argparse.Namespace) -> int:
    """Run ``senet report``; 1 if a run is missing, so that scripts notice."""
    if len(arguments.paths) == 1 and (one := RunDir(Path(arguments.paths[0]))).exists():
        return _one_run(one, arguments)
    made = report(arguments.paths, arguments.out, baseline=arguments.baseline, at=arguments.at)
    print(made.text)
    print("written to", made.files[0].parent)
    return 1 if any(gap.missing for gap in made.gaps) else 0


def _one_run(run: RunDir, arguments: argparse.Namespace) -> int:
    if arguments.baseline:
        raise UserError(f"--baseline {arguments.baseline}: a single run has nothing to be compared with")
    file = arguments.out / run.page_file.name if arguments.out else run.page_file
    file.parent.mkdir(parents=True, exist_ok=True)
    print(f"{run.path.resolve().name}\n{write_page(run, arguments.at, file)}\nwritten to {file}")
    return 0
