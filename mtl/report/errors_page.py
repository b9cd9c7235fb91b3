"""An error report as one HTML page that needs nothing else: tables, texts, and the picture."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RequestError
from mtl.files import write_text
from mtl.report.errors_text import Section, picture, sections, summary
from mtl.report.html import document, text

if TYPE_CHECKING:
    from mtl.report.errors import Answered, ErrorReport

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1rem; }
table { border-collapse: collapse; }
td, th { border-bottom: 1px solid #ddd; padding: .15rem .6rem; text-align: left; }
.texts td { border: 0; color: #555; padding-bottom: .5rem; white-space: pre-wrap; }
img { max-width: 100%; }
"""


def write_page(report: ErrorReport, found: Answered, path: Path) -> None:
    """Write the page, atomically. Whatever strings an entry and its texts hold are only text.

    Raises:
        RunError: the system refuses.
    """
    title = summary(report)
    body = [f"<h1>{text(title)}</h1>", f"<p>{text(report.ref)}</p>"]
    body += [f"<p>{text(note)}</p>" for note in report.notes]
    try:
        drawn = base64.b64encode(picture(report, found)).decode()
        body.append(f'<img alt="{text(title)}" src="data:image/png;base64,{drawn}">')
    except RequestError as error:  # no matplotlib, or spans: the tables say the rest
        body.append(f"<p>{text(error)}</p>")
    body += [_html(section) for section in sections(report)]
    write_text(path, document(title, "\n".join(body), style=_STYLE))


def _html(section: Section) -> str:
    lines = [f"<h2>{text(section.title)}</h2>"]
    if section.remark:
        lines.append(f"<p>{text(section.remark)}</p>")
    if section.rows:
        lines.append("<table>\n<tr>" + "".join(f"<th>{text(c)}</th>" for c in section.head))
        texts = section.below or ((),) * len(section.rows)
        for row, below in zip(section.rows, texts, strict=True):
            lines.append("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row))
            if below:
                joined = "\n".join(map(text, below))
                lines.append(f'<tr class="texts"><td colspan="{len(row)}">{joined}</td>')
        lines.append("</table>")
    return "\n".join(lines)
