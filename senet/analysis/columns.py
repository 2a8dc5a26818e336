"""The columns of a report's table for people, ours and the paper's."""

from collections.abc import Sequence

from senet.analysis.rows import ReportRow
from senet.analysis.statistics import Spread
from senet.table import Column, with_prefix

OURS, PAPER = "ours", "paper"


def report_columns(rows: Sequence[ReportRow]) -> list[Column[ReportRow]]:
    """Return the columns; the baseline's only where there is one, the paper's only where it has a figure."""
    ours: list[Column[ReportRow]] = [
        Column("point", lambda row: row.label, words=True, group=OURS),
        Column("top-1 err, %", lambda row: _spread(row.top1), group=OURS),
        Column("top-5 err, %", lambda row: _spread(row.top5), group=OURS, brief=False),
        Column("n", lambda row: str(len(row.errors)), group=OURS),
    ]
    compared: list[Column[ReportRow]] = [
        Column("difference [95 %]", _difference, _difference_interval, group=OURS),
        Column("verdict", _verdict, words=True, group=OURS, style=_tone),
        Column("McNemar p [bootstrap 95 %]", _image_p, _image_interval, group=OURS, brief=False),
    ]
    cost: list[Column[ReportRow]] = [
        Column("parameters", lambda row: with_prefix(row.parameters), group=OURS),
        Column("MACs", lambda row: with_prefix(row.macs), group=OURS),
        Column("images/s", lambda row: _number(row.rate, ",.0f"), group=OURS),
    ]
    theirs: list[Column[ReportRow]] = [
        Column("top-1 err, %", lambda row: _number(row.paper.top1_err if row.paper else None), group=PAPER),
        Column("difference", lambda row: _number(row.paper_gain, "+.2f"), group=PAPER),
        Column("params, M", _paper_params, group=PAPER, brief=False),
        Column("table", lambda row: row.paper.source if row.paper else "", words=True, group=PAPER),
    ]
    return [
        *ours,
        *(compared if any(row.baseline for row in rows) else ()),
        *cost,
        *(theirs if any(row.paper for row in rows) else ()),
    ]


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _paper_params(row: ReportRow) -> str:
    return _number(row.paper.params_m if row.paper else None, ".1f")


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "missing"
    return f"{spread.mean:.2f}" + (f" ± {spread.sd:.2f}" if spread.sd is not None else "")


def _interval(interval: tuple[float, float] | None) -> str:
    return f"[{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else ""


def _difference(row: ReportRow) -> str:
    return f"{row.difference.estimate:+.2f}" if row.difference else ""


def _difference_interval(row: ReportRow) -> str:
    return _interval(row.difference.interval if row.difference else None)


def _verdict(row: ReportRow) -> str:
    if row.top1 is None:
        return "no finished run"
    if row.baseline is None:
        return "baseline" if row.is_baseline else ""
    if not row.comparable:
        return f"on other images than {row.baseline}"
    return row.difference.verdict if row.difference else "baseline missing"


def _tone(row: ReportRow) -> str:
    verdict = _verdict(row)
    bad = verdict.startswith(("worse", "no fin"))
    return "words good" if verdict.startswith("better") else "words bad" if bad else "words"


def _image_p(row: ReportRow) -> str:
    if row.images is None:
        return ""
    p = row.images.p
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def _image_interval(row: ReportRow) -> str:
    return _interval(row.images.interval if row.images else None)
