"""From run directories to a table and plots: nothing is typed in, everything is made anew from the files."""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from senet.analysis.canvas import as_svg, save_png
from senet.analysis.labels import flatten, settings, shown, trial
from senet.analysis.paper import RECIPES
from senet.analysis.plots import draw
from senet.analysis.rows import ReportRow, build_rows, report_columns
from senet.analysis.run_page import write_page
from senet.analysis.runs import Gap, Study, collect
from senet.errors import UserError
from senet.files import write_text
from senet.models import plain_twin
from senet.page import part, render
from senet.rundir import RunDir, Which
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
    paths: Sequence[str | Path], out: Path | None = None, *, baseline: str | None = None, at: Which = "last"
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
    by_images = {name: list(group) for name, group in groupby(rows, lambda row: row.point.images)}
    tables = {
        f"Table: {name}" if len(by_images) > 1 else "Table": Table(report_columns(group), group)
        for name, group in by_images.items()
    }
    plots = _plots(by_images)
    values: dict[str, Any] = {
        "study": study,
        "title": study.name,
        "lead": _lead(study, len(tables)),
        "warning": trial(run.record for point in study.points for run in point.runs.values()),
        "hint": part("report_words.txt", "hint", study),
        "facts": shared_settings(study),
        "tables": tables,
        "printed": printed,
        "pictures": {title: as_svg(drawn, name) for title, (name, drawn) in plots.items()},
        "files": {title: f"{name}.png" for title, (name, _) in plots.items()},
        "settings": _settings(study),
        "gaps": Table(GAP_COLUMNS, study.gaps),
        "notes": part(
            "report_words.txt", "notes", at, len(tables), any(row.baseline for row in rows), _recipes(rows)
        ).splitlines(),
    }
    contents = {
        f"report.{form}": render(f"report.{form}", **values, width=None) for form in ("txt", "md", "html")
    }
    contents["report.csv"] = as_csv([row.record() for row in rows]) + "\n"
    contents["report.tex"] = "\n\n".join(table.latex() for table in tables.values()) + "\n"
    for name, content in contents.items():
        write_text(out / name, content)
    for name, drawn in plots.values():
        save_png(drawn, out / f"{name}.png")
    written = [out / name for name in (*contents, *values["files"].values())]
    shown = render("report.txt", **values | {"notes": []}, width=terminal_width())
    return Report(shown, written, study.gaps)


def _plots(by_images: Mapping[str, Sequence[ReportRow]]) -> dict[str, tuple[str, Figure]]:
    """Return the plots of every table with the names of their files, by title."""
    plots = {}
    for number, (images, rows) in enumerate(by_images.items(), start=1):
        for title, drawn in draw(rows).items():
            name = title.lower().replace(" ", "_")
            if len(by_images) > 1:
                title, name = f"{title}: {images}", f"{name}_{number}"
            plots[title] = (name, drawn)
    return plots


def _settings(study: Study) -> Table[Sequence[str]] | None:
    """Return the settings in which points differ that their labels leave out: points over settings, or turned."""
    if not study.others:
        return None
    flat = [flatten(point.config) for point in study.points]
    lines = [["setting", *(point.label for point in study.points)]]
    lines += [[key, *(shown(f[key]) if key in f else "" for f in flat)] for key in study.others]
    if len(lines) <= len(lines[0]):
        lines[0][0] = "point"
        lines = [list(line) for line in zip(*lines, strict=True)]
    columns = [
        Column[Sequence[str]](title, itemgetter(i), words=True, style=lambda line: "wide")
        for i, title in enumerate(lines[0])
    ]
    return Table(columns, lines[1:])


def _lead(study: Study, sets: int) -> str:
    runs = sum(len(point.runs) for point in study.points)
    seeds = sorted({seed for point in study.points for seed in point.runs})
    lead = f"{len(study.points)} points, {runs} finished runs, seeds {', '.join(map(str, seeds)) or 'none'}"
    lead += f", on {sets} sets of validation images" if sets > 1 else ""
    return lead + (f"; {len(study.gaps)} missing, failed or unused" if study.gaps else "")


def _recipes(rows: Sequence[ReportRow]) -> list[tuple[str, str, str]]:
    """Return table, trunk and data, and recipe of the published figures."""
    recipes: dict[tuple[str, str, str], list[ReportRow]] = {}
    for row in rows:
        if row.paper:
            key = (row.paper.source, row.paper.dataset, RECIPES[row.paper.recipe])
            recipes.setdefault(key, []).append(row)
    return [
        (table, printed(of), recipe) for (table, _, recipe), of in sorted(recipes.items(), key=itemgetter(0))
    ]


def printed(rows: Iterable[ReportRow]) -> str:
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
