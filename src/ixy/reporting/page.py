"""The report as one HTML page, which needs no other file and no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from ixy.reporting import chart
from ixy.reporting.parts import Missing, Part, Table, shown

if TYPE_CHECKING:
    from ixy.reporting.report import Report

_STYLE = """
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
figure { margin: 2rem 0; overflow-x: auto; }
figcaption { font-size: 0.85rem; color: #555; }
svg { width: 100%; max-width: 48rem; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #DDD; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.missing { border-left: 4px solid #D55E00; padding-left: 1rem; }
"""


def make(report: Report) -> str:
    """The page."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>{escape(report.title)}</h1>"
    yield f"<p>{_paragraph(report.introduction)}</p>"
    yield "<ul>"
    yield from (f"<li>{escape(name)}: {escape(value)}</li>" for name, value in report.facts.items())
    yield "</ul>"
    for chapter in report.chapters:
        yield f"<h2>{escape(chapter.title)}</h2>"
        for part in chapter.parts:
            yield from _part(report, part)
    yield "</body></html>"


def _part(report: Report, part: Part) -> Iterator[str]:
    if isinstance(part, Missing):
        yield f'<p class="missing"><strong>Missing.</strong> {escape(part.what)}: {escape(part.why)}.</p>'
    elif isinstance(part, str):
        yield f"<p>{_paragraph(part)}</p>"
    else:
        yield f"<figure><h3>{escape(part.title)}</h3>"
        if part.chart:
            yield chart.draw(part)
        yield from _table(part)
        yield f"<figcaption>{escape(report.caption(part))}</figcaption></figure>"


def _table(table: Table) -> Iterator[str]:
    yield f"<table><thead>{_row('th', list(table.columns))}</thead><tbody>"
    yield from (_row("td", [shown(cell) for cell in row]) for row in table.rows)
    yield "</tbody></table>"


def _row(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _paragraph(text: str) -> str:
    """Markdown's *emphasis* and `code` as HTML."""
    text = re.sub(r"\*(.+?)\*", r"<em>\1</em>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
