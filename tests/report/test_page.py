"""A report as one page: every section, without eyes, a thousand rows, a browser."""

from __future__ import annotations

import base64
import re
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from page_bench import EVIL, filled, read, scored, shown
from page_browser import NAMES as BROWSERS
from page_browser import Page, find_browser, headless
from zoo_bench import manifest, store

from mtl.report.against import compare
from mtl.report.page import Shown, page, write_page
from mtl.report.page_sources import Transfer
from mtl.report.published import load_published
from mtl.report.stats import mean_interval
from mtl.report.tables import Row
from mtl.zoo import Entry, open_zoo


def test_what_a_page_says(tmp_path: Path) -> None:
    entries = filled(tmp_path / "zoo")
    found = shown(entries)
    write_page(found, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    reader = read(text)
    said = " ".join(" ".join(reader.words).split())
    by_kind = {(row.kind, row.task): row for row, _ in found.rows}
    own, best = by_kind["adapter", "toy/own"], by_kind["composition", "toy/own"]
    assert own.test is not None
    assert f"{own.test.mean:.4f} ± {own.test.half:.4f}" in said
    assert best.gain is not None
    assert f"▲ {best.gain.mean:+.4f} ± {best.gain.half:.4f}" in said
    assert f"permuted ▲ {best.controls['permuted'].mean:+.4f}" in said
    assert "seed 0 0.7000, seed 1 0.7200, seed 2 0.7400" in said  # dots, in words
    assert "Pareto front: " in said
    assert "pfeiffer: 0.6000 at step 4" in said  # a dev curve
    assert "scalearn (K=2)" in said
    assert "0.500 0.500" not in said
    # omega (0.25, 0.25) in one layer, (3, 1) in the other
    assert re.search(r"toy/other 0\.62 0\.50 0\.75", said)
    assert "+0.100" in said  # transfer; the other cell was not measured
    assert [a["class"] for t, a in reader.tags if t == "td" and a.get("class") == "none"]
    assert "python -m mtl.train --suite toy (10 runs)" in said
    assert "device cpu" in said
    assert page(found) == text  # the same zoo, the same page


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    entry = store(zoo, manifest())
    missing = Transfer(missing="Not measured: nothing.")
    found = shown([entry], curves={}, lost=[entry.ref], transfer=missing)
    said = " ".join(read(page(found)).words)
    for part in (
        "There is no composition beside an own adapter",
        "There is no composition of several sources",
        "Not measured: nothing.",
        "the events of 1 run",
        "None were recorded",
        "have the same settings",
    ):
        assert part in said, part


def test_it_can_be_read_without_eyes(tmp_path: Path) -> None:
    """Headings, captions and heads of tables; drawings have names and words, or are hidden."""
    reader = read(page(shown(filled(tmp_path / "zoo"))))
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for tag, attributes in reader.tags:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
        if tag == "a":
            assert (attributes["href"] or "").removeprefix("#") in ids
        if tag == "svg" and attributes.get("aria-hidden") != "true":
            assert attributes["role"] == "img"
            assert len((attributes["aria-labelledby"] or "").split()) == 2
        if tag == "th":
            assert attributes["scope"] == "col"
    count = [tag for tag, _ in reader.tags].count
    assert count("caption") == count("table") > 4
    assert count("desc") == count("figure") > 2
    assert count("h1") == 1
    assert ("html", {"lang": "en"}) in reader.tags
    assert any(a.get("name") == "viewport" for _, a in reader.tags)


PUBLISHED = """
title: Invented <b>
source: nobody
base: roberta-base
suite: glue
protocol: scalearn
unit: points
decimals: 2
runs: {adapter: 10}
columns:
  RTE: {task: glue/rte, metric: accuracy}
  MRPC: {task: glue/mrpc, metric: accuracy}
rows:
  - {name: Adapter, kind: adapter, method: pfeiffer, values: [72.0, 90.0], average: 81}
"""


def test_verdicts_beside_a_published_table(tmp_path: Path) -> None:
    (tmp_path / "table.yaml").write_text(PUBLISHED)
    table = load_published(str(tmp_path / "table.yaml"))
    entries = []
    for seed, value in enumerate((0.901, 0.902, 0.900)):
        described = manifest(
            base={**manifest().base, "id": "roberta-base"},
            task={**manifest().task, "id": "glue/rte", "suite": "glue", "name": "rte"},
            suite="glue",
            data={**manifest().data, "protocol": "scalearn"},
            metrics=scored(value),
            seed=seed,
        )
        entries.append(Entry(Path(), f"rte/{seed}", described, f"{seed:064x}", {}))
    text = page(shown(entries, against=compare(table, entries)))
    said = " ".join(" ".join(read(text).words).split())
    assert "Adapter on RTE + better" in said  # in the row of the results
    assert text.count('class="chip above"') == 3  # there, in the grid, and beside the figures
    assert "90.10" in said
    assert "3 cells, 1 better, 2 not run" in said
    assert "Invented <b>" in said  # as text


def row(number: int) -> Row:
    scores = {seed: 0.5 + (number * 37 % 100) / 300 + seed / 100 for seed in range(5)}
    gain = mean_interval([0.01 * (number % 7 - 3) + 0.001 * seed for seed in range(5)])
    return Row(
        task=f"suite/task{number % 50}",
        base="demo 12345678",
        kind=("adapter", "composition", "control")[number % 3],
        control="permuted" if number % 3 == 2 else "",
        method=("pfeiffer", "scalearn", "fusion")[number % 3],
        metric="accuracy",
        sources=number % 3 and 6,
        parameters=1000 + 13 * number,
        test=mean_interval(list(scores.values())),
        seeds=list(scores),
        examples=2000,
        gain=gain if number % 3 else None,
        gain_examples=(-0.01, 0.02) if number % 3 else None,
        settings={"lr": 1e-4 * number, "epochs": number},
        scores=scores,
        train=100,
    )


def test_a_thousand_rows_are_one_usable_page() -> None:
    entry = Entry(Path(), "a/b", manifest(), "ab" * 32, {})
    rows = [(row(number), [entry]) for number in range(1000)]
    begun = time.process_time()
    text = page(Shown("Results", "python -m mtl.report", [entry] * 5000, rows))
    assert time.process_time() - begun < 10
    assert len(text) < 2_000_000
    reader = read(text)
    assert sum(tag == "figure" for tag, _ in reader.tags) <= 3 * 24
    assert " ".join(reader.words).count("26 drawings more") == 2  # of 50 tasks
    assert text.count("<code>") == 2  # the page's, and one of 5,000 alike


def in_a_browser(tmp_path: Path) -> AbstractContextManager[Page]:
    found = find_browser()
    if found is None:
        pytest.skip(f"no browser is installed (CHROME_PATH, {', '.join(BROWSERS)})")
    return headless(found, tmp_path / "profile")


COLUMN = """[...document.querySelector("#results").closest("section").querySelectorAll("tbody tr")]
    .filter(row => !row.hidden).map(row => row.cells[%d].textContent)"""
PRESS = """document.querySelector("#results").closest("section")
    .querySelectorAll("th")[%d].firstChild.click()"""


@pytest.mark.slow
def test_a_browser_opens_it(tmp_path: Path) -> None:
    """No error, no request; sorted both ways, filtered; nothing sticks out on a phone."""
    entry = Entry(Path(), "a/b", manifest(), "ab" * 32, {})
    rows = [(row(number), [entry]) for number in range(1000)]
    rows.append((replace(rows[0][0], task=f"toy/{EVIL}", method=EVIL), [entry]))
    path = tmp_path / "page.html"
    write_page(Shown(EVIL, EVIL, [entry], rows, notes=[EVIL]), path)
    with in_a_browser(tmp_path) as opened:
        opened.open(path, 390, 844)
        assert opened.evaluate('document.documentElement.getAttribute("data-ready")') == "yes"
        wide = opened.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1]
        begun = time.monotonic()
        opened.evaluate(PRESS % 3)  # numbers: the largest first
        assert time.monotonic() - begun < 5
        found = [float(text.split()[0]) for text in opened.evaluate(COLUMN % 3)]
        assert found == sorted(found, reverse=True)
        opened.evaluate(PRESS % 3)
        found = [float(text.split()[0]) for text in opened.evaluate(COLUMN % 3)]
        assert found == sorted(found)
        opened.evaluate(PRESS % 4)  # gains: rows without one stand last
        gains = opened.evaluate(COLUMN % 4)
        assert gains[-1] == ""
        assert all(gains[: sum(map(bool, gains))])
        opened.evaluate(PRESS % 1)  # words: from A to Z
        assert opened.evaluate(COLUMN % 1)[0].startswith("control")
        opened.evaluate(
            "(() => { const input = document.querySelector('.filter input');"
            "input.value = 'TASK7 pfeiffer'; input.dispatchEvent(new Event('input')); })()"
        )
        left = opened.evaluate(COLUMN % 0)
        assert 0 < len(left) < 50
        assert all(text.startswith("suite/task7") for text in left)
        assert opened.said("Runtime.exceptionThrown") == []
        assert opened.said("Runtime.consoleAPICalled") == []
        assert opened.said("Log.entryAdded") == []
        urls = {event["request"]["url"] for event in opened.said("Network.requestWillBeSent")}
        assert urls == {path.as_uri()}
        assert opened.said("Page.javascriptDialogOpening") == []
        picture = opened.call("Page.captureScreenshot", format="png")["data"]
        assert base64.b64decode(picture).startswith(b"\x89PNG")
