"""What pages have in common: one file, no request, a stranger's words as text and nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape

from mtl.words import printable


def text(value: object) -> str:
    """``value`` as text between tags or in a quoted attribute, without control characters."""
    return escape(printable(value), quote=True)


def document(title: str, body: str, *, style: str, script: str = "") -> str:
    """A page of its own.

    Its Content-Security-Policy forbids every request, and every script but ``script``, by its hash:
    what got past :func:`text` by a mistake of ours would still not run.

    Args:
        title: plain text.
        body, style, script: markup, rules and code as they stand in the page.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    code = f"<script>{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n{code}"
        "</body>\n</html>\n"
    )


def listed(items: Iterable[str], kind: str = "ul") -> str:
    """A list of markup."""
    return f"<{kind}>" + "".join(f"<li>{item}</li>" for item in items) + f"</{kind}>"
