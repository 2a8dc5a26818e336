"""Make docs/results, every table, figure and sentence with a number, from the runs kept here: python results/rebuild.py

A folder ``results/STUDY`` is what ``senet study archive RUNS_STUDY results/STUDY`` left; a page is made of one or more
of them, and of words without numbers that stand in ``results/PAGE.md``.
"""

import argparse
import csv
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

from senet.analysis.canvas import save_png
from senet.analysis.report import report
from senet.analysis.rows import ReportRow, build_rows
from senet.analysis.run_page import draw_curves
from senet.analysis.runs import Run, Study, collect
from senet.analysis.statistics import t_interval
from senet.ledger import Ledger
from senet.table import Column, Table

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "results"


class Page(NamedTuple):
    """A page of ``docs/results``.

    Attributes:
        title: its heading.
        studies: folders of this one.
        baseline: the point that all others are compared with, by its label; their plain twins if it is None.
        published: by others for the same terms: mean top-1 accuracy in percent.
        curves: whether the training curves of each point's first seed are shown.
    """

    title: str
    studies: list[str]
    baseline: str | None = None
    published: float | None = None
    curves: bool = False


PAGES = {
    "imagenette": Page(
        "Does SE help? Ten classes of ImageNet, five epochs", ["imagenette_se"], "model=resnet18"
    ),
    "imagenette_rivals": Page(
        "Which block wins? SE and seven rivals on ten classes of ImageNet",
        ["imagenette_se", "imagenette_rivals"],
        "block=se",
    ),
    "imagenette_rivals_plain": Page(
        "What does each block gain over the plain network?", ["imagenette_se", "imagenette_rivals"], "plain"
    ),
    "imagenette_record": Page(
        "The leaderboard of Imagenette: an SE network, five epochs", ["imagenette_record"], published=85.77
    ),
    "imagenette_search": Page(
        "How the recipe of the leaderboard's page was chosen",
        [
            f"imagenette_search_{axis}"
            for axis in ("rate", "warmup", "lr32", "batch", "batch16", "size", "scale", "depth")
        ],
        "base",
    ),
    "cifar10": Page("Does SE help? CIFAR-10 as JPEG, twelve epochs", ["cifar10_se"], "model=resnet20"),
    "cifar10_resnet110": Page(
        "Does SE-ResNet-110 train? Its first epochs beside its plain twin",
        ["cifar10_resnet110"],
        "model=preact_resnet110",
        curves=True,
    ),
    "imagenette_r": Page(
        "What does r do? SE-ResNet-18 on ten classes of ImageNet", ["imagenette_se", "imagenette_r"], "plain"
    ),
    "imagenette_placement": Page(
        "Where does the block stand? Four places in SE-ResNet-18 on ten classes of ImageNet",
        ["imagenette_se", "imagenette_placement"],
        "placement=standard",
    ),
}


class Counted(NamedTuple):
    """A run, and the point that it counts for."""

    point: str
    run: Run


COLUMNS = [
    Column[Counted]("point", lambda row: row.point, words=True),
    Column[Counted]("seed", lambda row: str(row.run.seed)),
    Column[Counted]("epochs", lambda row: f"{row.run.summary['epochs']:g}"),
    Column[Counted]("top-1 error, %", lambda row: f"{row.run.error('last'):.2f}"),
    Column[Counted]("minutes", lambda row: f"{row.run.summary['seconds'] / 60:.1f}"),
    Column[Counted]("images/s", lambda row: f"{row.run.summary['images_per_second']:.0f}"),
    Column[Counted]("configuration", lambda row: row.run.record["config_hash"], words=True),
]


def main() -> None:
    """Write all pages to ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=DOCS)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (out / f"{name}.md").write_text("\n\n".join(write_page(name, page, out)) + "\n")
    (out / "imagenette_gates.md").write_text("\n\n".join(write_gates(out)) + "\n")


def write_page(name: str, page: Page, out: Path) -> Iterator[str]:
    """Yield the paragraphs of a page; put its pictures beside it."""
    folders = [HERE / study for study in page.studies]
    study = collect(folders, page.baseline)
    runs = [Counted(point.label, run) for point in study.points for run in point.runs.values()]
    with tempfile.TemporaryDirectory() as temporary:
        files = report(folders, Path(temporary), baseline=page.baseline).files
        made = next(file for file in files if file.suffix == ".md").read_text()
        for picture in (file for file in files if file.suffix == ".png"):
            shutil.copyfile(picture, out / f"{name}_{picture.name}")
            made = made.replace(f"({picture.name})", f"({name}_{picture.name})")
    yield f"# {page.title}"
    words = HERE / f"{name}.md"
    if words.is_file():
        yield words.read_text().strip()
    yield "## What came out"
    yield from (f"- {sentence}" for sentence in verdicts(study))
    if page.published is not None:
        yield from (f"- {sentence}" for sentence in beside(study, page.published))
    yield made.partition("\n")[2].strip()
    if page.curves:
        yield from pictures_of_training(name, study, out)
    yield (
        "The rates and minutes are of a machine that did other work at the same time and say nothing of the networks: "
        "what SE costs is [measured apart](../benchmarks/cost.md)."
    )
    yield "## How it was made"
    yield from provenance(folders, runs)


def pictures_of_training(name: str, study: Study, out: Path) -> Iterator[str]:
    """Draw the curves of the first seed of every point; yield the lines that show them."""
    yield "## Curves"
    for number, point in enumerate(study.points):
        seed = min(point.runs)
        figure = draw_curves(point.runs[seed].directory)
        assert figure is not None
        figure.suptitle(f"{point.label}, seed {seed}", fontsize=10)
        picture = f"{name}_curves{number}.png"
        save_png(figure, out / picture)
        yield f"![Loss and top-1 error of {point.label} over the epochs]({picture})"


def write_gates(out: Path) -> Iterator[str]:
    """Yield the paragraphs on gates; put their pictures beside them."""
    folder = HERE / "imagenette_gates"
    yield "# What do the gates do? SE-ResNet-18 on ten classes of ImageNet"
    yield (HERE / "imagenette_gates.md").read_text().strip()
    for number, words in ((6, "Mean gate of four classes"), (7, "Mean gate and its spread within a class")):
        name = f"imagenette_gates_figure{number}.png"
        shutil.copyfile(folder / f"figure{number}.png", out / name)
        yield f"![{words}, by channel and block]({name})"
    ratios = sorted(folder.glob("r*.csv"), key=lambda file: int(file.stem[1:]))
    tables = [list(csv.DictReader(file.open())) for file in ratios]
    columns = [Column[tuple[dict[str, str], ...]]("block", lambda rows: rows[0]["block"], words=True)]
    for title, key in (
        ("class sd", "class_sd"),
        ("image sd", "image_sd"),
        ("mean", "mean"),
        ("entropy", "entropy"),
    ):
        columns += [
            Column(f"{title}, r={file.stem[1:]}", partial(_number, index, key))
            for index, file in enumerate(ratios)
        ]
    yield Table(columns, list(zip(*tables, strict=True))).markdown()
    yield (
        "class sd: standard deviation of the classes' mean gates, mean over channels; image sd: over all images; "
        "mean: of the gate; entropy: of a channel's gate over images, in bits of 64 bins."
    )
    idle = sum(int(row["dead_hidden"]) for rows in tables for row in rows)
    hidden = sum(int(row["hidden"]) for rows in tables for row in rows)
    yield f"{idle} of all {hidden:,} hidden units never fired on the 3,925 validation images."
    yield "## How it was made"
    classes = "n01440764_tench,n02102040_english_springer,n03000684_chain_saw,n03425413_gas_pump"
    why = "<!-- not run: hours of training before it; the weights are not kept -->"
    yield f"{why}\n```bash\nsenet gates RUN RUN RUN RUN --classes {classes}\n```"


def _number(index: int, key: str, rows: tuple[dict[str, str], ...]) -> str:
    return f"{float(rows[index][key]):.3f}"


def verdicts(study: Study) -> Iterator[str]:
    """Say of every point that has a baseline what follows from the intervals, and nothing else."""
    for row in build_rows(study, "last"):
        if row.difference is None:
            continue
        d, n = row.difference, row.difference.n
        decided = (
            "no interval"
            if d.interval is None
            else (
                f"95 % interval {d.interval[0]:+.2f} to {d.interval[1]:+.2f} over {n} seeds, {_decided(d.interval)}"
            )
        )
        gain = f"{d.estimate:+.2f} points of top-1 error"
        yield f"**{row.label}** against {row.baseline}: {gain} ({decided}).{_images(row)}"


def beside(study: Study, published: float) -> Iterator[str]:
    """Say of every point how its mean accuracy stands to one that others have published."""
    for row in build_rows(study, "last"):
        reached = [100 - error for error in row.errors.values()]
        accuracy, interval = mean(reached), t_interval(reached)
        if interval is None:
            range_ = "no interval"
        else:
            range_ = f"95 % interval of the mean {interval[0]:.2f} to {interval[1]:.2f}"
        verdict = "reached" if accuracy >= published else "not reached"
        yield (
            f"**{row.label}**: {accuracy:.2f} % top-1 accuracy, mean of {len(reached)} runs ({range_}); "
            f"published: {published:.2f} %, {verdict}, {accuracy - published:+.2f} points."
        )


def _decided(interval: tuple[float, float]) -> str:
    return "not decided by the seeds" if interval[0] <= 0 <= interval[1] else "decided"


def _images(row: ReportRow) -> str:
    if row.images is None:
        return ""
    low, high = row.images.interval
    p = "< 0.0001" if row.images.p < 1e-4 else f"= {row.images.p:.4f}"
    return f" For these very networks, over images: p {p}, 95 % bootstrap interval {low:+.2f} to {high:+.2f}."


def provenance(folders: list[Path], rows: list[Counted]) -> Iterator[str]:
    """Yield commands, machine, versions and a table of all runs."""
    commands = [f"train.py -m {shlex.join(Ledger.open(folder).head['command'])}" for folder in folders]
    yield (
        "<!-- not run: hours of training; `results/rebuild.py` makes this page from what they left -->\n```bash\n"
        + "\n".join(commands)
        + "\n```"
    )
    runs = [row.run for row in rows]
    machines = sorted({_machine(run) for run in runs})
    hours = sum(run.summary["seconds"] for run in runs) / 3600
    rate = median(run.summary["images_per_second"] for run in runs)
    took = f"{len(runs)} runs, {hours:.1f} hours in all, median {rate:.0f} training images a second"
    yield f"{took}. {' '.join(machines)}"
    yield Table(COLUMNS, rows).markdown()


def _machine(run: Run) -> str:
    environment = run.record["environment"]
    packages = environment["packages"]
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "torchvision", "timm"))
    return (
        f"{environment['cpu_cores']} CPU cores ({environment['cpu_capability']}), shared with other work; "
        f"Python {environment['python']}, {versions}; commit {environment['git_commit'][:7]}."
    )


if __name__ == "__main__":
    main()
