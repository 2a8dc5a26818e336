"""The page of ``senet check``: problems with their files, nothing to load from elsewhere."""

from html import escape
from typing import Any

SHOWN = 500

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:left;border-bottom:1px solid #ddd}
.error{color:#b00020}.note{color:#7a5b00}details{margin:.4rem 0}li{font-family:monospace;font-size:13px}"""


def html(report: dict[str, Any], errors: dict[str, str], notes: dict[str, str]) -> str:
    """Return the report as one page."""
    splits = "".join(
        f"<tr><td>{escape(name)}</td><td>{split['images']:,}</td><td><code>{split['id']}</code></td></tr>"
        for name, split in report["splits"].items()
    )
    parts = [
        _problem(kind, paths, "error" if kind in errors else "note", (errors | notes)[kind])
        for kind, paths in sorted(
            report["problems"].items(), key=lambda item: (item[0] not in errors, item[0])
        )
    ]
    return (
        f"<!doctype html><meta charset=utf-8><title>check of {escape(report['root'])}</title><style>{STYLE}</style>"
        f"<h1>{escape(report['root'])}</h1><p>{report['images']:,} images, {report['bytes'] / 1e9:.2f} GB, manifest "
        f"<code>{report['id']}</code></p><table><tr><th>split<th>images<th>manifest</tr>{splits}</table>"
        f"<h2>Problems</h2>{''.join(parts) or '<p>None.</p>'}\n"
    )


def _problem(kind: str, paths: list[str], severity: str, meaning: str) -> str:
    items = "".join(f"<li>{escape(path)}</li>" for path in paths[:SHOWN])
    more = f"<li>and {len(paths) - SHOWN:,} more, see check.json</li>" if len(paths) > SHOWN else ""
    return (
        f'<details><summary class="{severity}">{len(paths):,} {kind}: {escape(meaning)}</summary>'
        f"<ul>{items}{more}</ul></details>"
    )
