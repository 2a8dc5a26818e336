"""One table as plain text, Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence

from senet.analysis.table import Column, Row, columns, source

PAPER_SIGN = "paper: "


def heading(column: Column) -> str:
    """Return a heading that says by itself whose figure it is."""
    return (PAPER_SIGN if column.group == "paper" else "") + column.title


def as_text(rows: list[Row]) -> str:
    """Return the brief table with aligned columns; a bar separates ours from the paper's."""
    shown = [column for column in columns(rows) if column.brief]
    cells = [[c.title for c in shown]] + [[c.text(row) or "-" for c in shown] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    ours = sum(column.group == "ours" for column in shown)
    lines = []
    for line in cells:
        padded = [
            cell.ljust(width) if is_text(column) else cell.rjust(width)
            for cell, width, column in zip(line, widths, shown, strict=True)
        ]
        groups = ["  ".join(padded[:ours]), "  ".join(padded[ours:])]
        lines.append("  |  ".join(group for group in groups if group).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    if ours < len(shown):
        lines.insert(0, " " * lines[0].index("|") + "|  paper")
    return "\n".join(lines) + "\n"


def is_text(column: Column) -> bool:
    """Whether a column holds words, set flush left."""
    return column.title in ("point", "verdict", "table")


def as_markdown(rows: list[Row]) -> str:
    """Return a Markdown table with every column."""
    shown = columns(rows)
    lines = [[heading(c) for c in shown], [":--" if is_text(c) else "--:" for c in shown]]
    lines += [[c.text(row).replace("|", "\\|") for c in shown] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": "$<$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Return text with LaTeX's special characters escaped."""
    return "".join(ESCAPES.get(character, character) for character in text)


def as_latex(rows: list[Row]) -> str:
    """Return a ``tabular`` for the booktabs package, the paper's columns under a heading of their own."""
    shown = columns(rows)
    ours = sum(column.group == "ours" for column in shown)
    theirs = len(shown) - ours
    kinds = "".join("l" if is_text(column) else "r" for column in shown)
    lines = [rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    if theirs:
        lines += [
            rf"\multicolumn{{{ours}}}{{c}}{{ours}} & \multicolumn{{{theirs}}}{{c}}{{paper}} \\",
            rf"\cmidrule(lr){{1-{ours}}} \cmidrule(lr){{{ours + 1}-{ours + theirs}}}",
        ]
    lines += [_latex_row([column.title for column in shown]), r"\midrule"]
    lines += [_latex_row([column.text(row) for column in shown]) for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"


FIELDS = (
    "point", "baseline", "seeds", "n", "top1_err", "top1_err_sd", "top5_err", "top5_err_sd", "difference",
    "difference_low", "difference_high", "difference_method", "difference_n", "verdict", "only_ours",
    "only_baseline", "mcnemar_p", "bootstrap_low", "bootstrap_high", "parameters", "macs",
    "images_per_second", "paper_key", "paper_source", "paper_network", "paper_recipe", "paper_top1_err",
    "paper_top5_err", "paper_difference", "paper_params_m", "paper_gmacs",
)  # fmt: skip


def as_csv(rows: list[Row]) -> str:
    """Return every number unrounded, one line per point; errors in percent, differences in points."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    for row in rows:
        values = [*_measured(row), *_compared(row), row.parameters, row.macs, row.rate, *_published(row)]
        assert len(values) == len(FIELDS)
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _measured(row: Row) -> list[object]:
    top1, top5 = row.top1, row.top5
    seeds = " ".join(map(str, sorted(row.errors)))
    return [
        *(row.label, row.baseline, seeds, top1.n if top1 else 0),
        *((top1.mean, top1.sd) if top1 else (None, None)),
        *((top5.mean, top5.sd) if top5 else (None, None)),
    ]


def _compared(row: Row) -> list[object]:
    found, images = row.difference, row.images
    interval = (found.interval if found else None) or (None, None)
    return [
        *((found.estimate, *interval, found.method, found.n, found.verdict) if found else [None] * 6),
        *((images.only_ours, images.only_baseline, images.p, *images.interval) if images else [None] * 5),
    ]


def _published(row: Row) -> list[object]:
    paper = row.paper
    if paper is None:
        return [None] * 9
    return [
        *(
            paper.key,
            source(paper),
            f"{paper.label}, {paper.dataset}",
            paper.recipe,
            paper.top1_err,
            paper.top5_err,
        ),
        *(row.paper_gain, paper.params_m, paper.gmacs),
    ]
