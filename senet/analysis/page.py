"""A report as one HTML page that needs nothing but itself: light or dark, phone or desktop."""

from collections.abc import Mapping
from html import escape

from senet.analysis.report_formats import is_text
from senet.analysis.runs import Gap
from senet.analysis.table import Column, Row, columns

STYLE = """
:root { --ground: #ffffff; --panel: #f6f7f9; --ink: #202124; --soft: #5f6672; --line: #dfe2e7; --seed: #6b7585;
  --accent: #1f5fbf; --plain: #b4552d; --good: #176b3a; --bad: #a32121; --paper: #fbf6ea;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif;
  color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --panel: #1e2125; --ink: #e6e8eb; --soft: #a2a9b4;
  --line: #363b42; --seed: #aab3c0; --accent: #7fb0ff; --plain: #f0a27e; --good: #7bd39c; --bad: #ff9b93;
  --paper: #2a261c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 var(--font); }
main { max-width: 84rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
p { margin: .4rem 0; max-width: 48rem; } .soft, figcaption, dt { color: var(--soft); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .5rem 1rem; margin: 1rem 0 0; }
dt { font-size: .8rem; } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: .82rem; } tbody tr:last-child > * { border-bottom: 0; }
.text { text-align: left; } .wide { white-space: normal; min-width: 14rem; overflow-wrap: anywhere; }
.words { white-space: normal; min-width: 6.5rem; }
.detail { display: block; color: var(--soft); font-size: .82rem; font-weight: 400; }
tbody th { color: var(--ink); font-size: .92rem; }
table.points tr:not(.groups) > :first-child { position: sticky; left: 0; background: var(--panel); z-index: 1; }
thead th { vertical-align: bottom; }
.groups th { text-align: left; white-space: normal; border-bottom-color: transparent;
  padding-bottom: 0; }
.paper { background: var(--paper); } .edge { border-left: 2px solid var(--line); }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; background: var(--panel); border-radius: .5rem; }
figure svg { display: block; width: 100%; height: auto; max-height: 30rem; }
figcaption { font-size: .85rem; margin-top: .4rem; }
li { margin: .25rem 0; max-width: 48rem; } ul { padding-left: 1.2rem; }
"""

CAPTION = (
    "Large dot: mean over seeds; small dots, or marks at the left edge: seeds; bar: 95 % t interval of the mean, "
    "cut off at the frame. Lower is better."
)


def as_html(
    title: str,
    lead: str,
    settings: Mapping[str, str],
    rows: list[Row],
    gaps: list[Gap],
    plots: Mapping[str, str],
    notes: list[str],
) -> str:
    """Return the page.

    Args:
        title: the study's name.
        lead: one sentence on what was compared.
        settings: what all points share.
        rows: the table.
        gaps: missing and failed runs.
        plots: SVG elements by title.
        notes: how to read the figures.
    """
    shared = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in settings.items())
    figures = "".join(
        f"<figure><h2 style='margin-top:0'>{escape(name)}</h2>{svg}<figcaption>{CAPTION}</figcaption></figure>"
        for name, svg in plots.items()
    )
    parts = [
        f"<h1>{escape(title)}</h1><p class='soft'>{escape(lead)}</p><dl>{shared}</dl>",
        f"<h2>Table</h2>{_table(rows)}",
        f"<h2>Plots</h2><div class='plots'>{figures}</div>" if figures else "",
        _gaps(gaps),
        "<h2>How to read it</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body><main>\n" + "\n".join(parts) + "\n</main></body></html>\n"
    )


def _table(rows: list[Row]) -> str:
    shown = columns(rows)
    ours = sum(column.group == "ours" for column in shown)
    head = ""
    if ours < len(shown):
        data = " and ".join(sorted({row.paper.dataset for row in rows if row.paper}))
        head = (
            f'<tr class="groups"><th colspan="{ours}">ours</th><th class="paper edge" '
            f'colspan="{len(shown) - ours}">paper: {escape(data)}, its own recipe</th></tr>'
        )
    head += "<tr>" + "".join(f"<th{_classes(c, shown)}>{_heading(c)}</th>" for c in shown) + "</tr>"
    body = "".join("<tr>" + "".join(_cell(c, shown, row) for c in shown) + "</tr>" for row in rows)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="results"><table class="points">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _heading(column: Column) -> str:
    name, bracket, rest = escape(column.title).partition(" [")
    return f'{name}<span class="detail">[{rest}</span>' if bracket else name


def _classes(column: Column, shown: list[Column], more: str = "") -> str:
    first = column.group == "paper" and shown[shown.index(column) - 1].group == "ours"
    words = [
        "text" if is_text(column) else "",
        "paper" if column.group == "paper" else "",
        "edge" if first else "",
        more,
    ]
    names = " ".join(word for word in words if word)
    return f' class="{names}"' if names else ""


def _cell(column: Column, shown: list[Column], row: Row) -> str:
    text = escape(column.cell(row))
    if column is shown[0]:
        return f'<th scope="row" class="text">{text}</th>'
    tone = ""
    if column.title == "verdict":
        tone = "good" if text.startswith("better") else "bad" if text.startswith(("worse", "no fin")) else ""
    detail = escape(column.detail(row))
    below = f'<span class="detail">{detail}</span>' if detail else ""
    more = f"words {tone}" if column.title == "verdict" else tone
    return f"<td{_classes(column, shown, more.strip())}>{text}{below}</td>"


def _gaps(gaps: list[Gap]) -> str:
    if not gaps:
        return ""
    body = "".join(
        f'<tr><th scope="row" class="text">{escape(gap.label)}</th><td>{gap.seed}</td>'
        f'<td class="text wide">{escape(gap.reason)}</td>'
        f'<td class="text">{escape(gap.path.name if gap.path else "")}</td></tr>'
        for gap in gaps
    )
    return (
        '<h2>Missing and failed runs</h2><div class="scroll" tabindex="0" role="region" '
        'aria-label="missing runs"><table><thead><tr><th class="text">point</th><th>seed</th>'
        '<th class="text">reason</th><th class="text">directory</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
