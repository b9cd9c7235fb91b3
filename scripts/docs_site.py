"""What mkdocs.yml needs beside the pages of docs/: called by mkdocs at each step of a build.

Pages that lie at the root of the repository, where readers of the code look for them, become pages
of the site; ``api.md`` is made of the names of ``import mtl``; links follow; lists may be indented
by three.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from markdown import Extension, Markdown
from markdown.blockprocessors import build_block_parser
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""File at the root → page."""
ORIGINS = {page: ROOT / name for name, page in PAGES.items()}
LINK = re.compile(
    r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)"
)
ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):<code>~?([^<]+)</code>")


class Lists(Extension):
    """Nested lists as CommonMark takes them: three blanks under ``1.`` are enough."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802  (the library's name)
        md.tab_length = 3
        md.parser = build_block_parser(md)  # its parts have read the length when they were made


def on_config(config: Any) -> Any:
    sys.path.insert(0, str(ROOT))
    config["markdown_extensions"].insert(0, Lists())  # before others add to the parser
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from the root, and the one of the API."""
    for page, origin in ORIGINS.items():
        files.append(File.generated(config, page, content=origin.read_text(encoding="utf-8")))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def api() -> str:
    """Functions first, then classes, each as its docstring has it."""
    import mtl

    names = sorted(mtl.__all__, key=lambda name: (name[0].isupper(), name))
    parts = [
        "# Python",
        "What `import mtl` gives. Nothing heavy is imported until something is computed.",
        *(f"::: mtl.{name}" for name in names),
    ]
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to pages lead to them; files of the repository that are none are named."""
    folder = ORIGINS[page.file.src_uri].parent if page.file.src_uri in ORIGINS else DOCS

    def follow(found: re.Match[str]) -> str:
        image, text, target, anchor = found.groups()
        path = (folder / target).resolve()
        if path.parent == DOCS:
            name = path.name
        elif str(path.relative_to(ROOT)) in PAGES:
            name = PAGES[path.name]
        else:
            return text if path.exists() else found[0]  # mkdocs names the broken one
        return f"{image}[{text}]({name}{anchor or ''})"

    return LINK.sub(follow, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Docstrings mark names for readers of the code, as ``:func:`mtl.load```."""
    return ROLE.sub(r"<code>\1</code>", html)
