"""The documentation builds as a site, without a warning, without network, with the face in it."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mtl

ROOT = Path(__file__).parents[1]
MUST = os.environ.get("CI") or os.environ.get("MTL_TEST_ALL")  # scripts/test.sh sets the latter
PAGES = (
    "index",
    "api",
    "methods",
    "bases",
    "settings",
    "studies",
    "architecture",
    "results",
    "benchmarks",
    "transformers5",
)
PAGES += ("clusters", "serving", "statistics", "contributing", "changelog", "security")

if importlib.util.find_spec("mkdocstrings_handlers") is None and not MUST:
    pytest.skip("the extra docs is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def refuse(*_: object) -> None:
        raise AssertionError("the build asks for the network")

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
        build(config)  # strict: any warning ends it
    return folder


def page(site: Path, name: str) -> str:
    return (site / (f"{name}/index.html" if name != "index" else "index.html")).read_text("utf-8")


def article(html: str) -> str:
    return html.partition("<article")[2].partition("</article>")[0]


def text_of(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html)


def test_all_pages_are_there_and_every_document_is_one(site: Path) -> None:
    assert {path.stem for path in ROOT.glob("docs/*.md")} <= set(PAGES)
    for name in PAGES:
        assert len(text_of(article(page(site, name)))) > 1000, name


class Loaded(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        values = dict(attrs)
        if tag in {"script", "img", "iframe", "source"} and values.get("src"):
            self.found.append(values["src"])
        if tag == "link" and values.get("rel") not in {"canonical", "next", "prev"}:
            self.found.append(values["href"])


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    count = 0
    for path in site.rglob("*.html"):
        parser = Loaded()
        parser.feed(path.read_text(encoding="utf-8"))
        assert not [name for name in parser.found if "//" in name], path
        if path.name != "404.html":  # its places are from the root of a host
            assert all((path.parent / name.partition("?")[0]).is_file() for name in parser.found)
        count += len(parser.found)
    assert count > 20
    for path in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?https?:", path.read_text(encoding="utf-8"))


def test_the_face_is_in_it_with_its_docstrings(site: Path) -> None:
    html = article(page(site, "api"))
    assert set(re.findall(r'<h2 id="mtl\.(\w+)"', html)) == set(mtl.__all__)
    text = " ".join(text_of(html).split())
    for name in mtl.__all__:
        first = (getattr(mtl, name).__doc__ or "").splitlines()[0].replace("`", "")
        if ":" not in first:  # roles are rewritten
            assert first in text, name
    assert re.search(r'id="mtl\.Model\.predict"', html)
    assert ":func:" not in text
    assert "doctest" not in text


def test_lists_below_numbers_are_lists_in_them(site: Path) -> None:
    html = article(page(site, "contributing"))
    method = html.partition('id="add-a-stage-one-method"')[2].partition("<h2")[0]
    assert method.count("<ul>") == 1
    assert len(re.findall(r"<li>", method.partition("<ul>")[2].partition("</ul>")[0])) >= 5


def test_links_follow_and_broken_ones_stay_broken() -> None:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "scripts/docs_site.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)

    def shown(text: str, source: str) -> str:
        of = SimpleNamespace(file=SimpleNamespace(src_uri=source))
        return hooks.on_page_markdown(text, of, None, None)

    assert shown("[a](docs/methods.md#heads)", "index.md") == "[a](methods.md#heads)"
    assert shown("![b](docs/x.png) [c](LICENSE)", "index.md") == "![b](x.png) c"
    assert shown("[d](../README.md) [e](settings.md)", "methods.md") == (
        "[d](index.md) [e](settings.md)"
    )
    assert shown("[f](docs/no.md) [g](no/where.py)", "index.md") == "[f](no.md) [g](no/where.py)"
    assert shown("[h](https://arxiv.org) [i](#here)", "index.md") == (
        "[h](https://arxiv.org) [i](#here)"
    )
