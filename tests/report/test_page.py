"""A report as one page: every section, strangers' words, colours, a thousand rows, a browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_browser import NAMES as BROWSERS
from page_browser import Page, find_browser, headless
from zoo_bench import composition, manifest, store, task

from mtl.report import page_searches
from mtl.report.against import compare
from mtl.report.dev_curves import Line
from mtl.report.page import Shown, page, write_page
from mtl.report.page_figures import Point, fewer, front
from mtl.report.page_sources import FAINT, Transfer, shade
from mtl.report.page_tables import ALONE, LOST, OPEN, WON, told
from mtl.report.published import load_published
from mtl.report.searches import Trials, searches_of
from mtl.report.stats import Interval, mean_interval
from mtl.report.svg import Scale, scale_of
from mtl.report.tables import Row, rows_and_runs
from mtl.zoo import Entry, open_zoo

EVIL = "x</title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202e\x1b[2J"
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Reader(HTMLParser):
    """Elements as a browser would see them; what is not closed in its turn is kept in ``wrong``."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert (reader.open, reader.wrong) == ([], [])
    return reader


def scored(value: float) -> dict[str, Any]:
    return {
        "dev": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}},
        "test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}},
    }


def filled(folder: Path) -> list[Entry]:
    """Own adapters of three seeds, compositions of two sources over them, and their control."""
    zoo = open_zoo(folder)
    own = [
        store(zoo, manifest(seed=seed, runhash=f"{seed:08x}" * 2, metrics=scored(0.5 + seed / 100)))
        for seed in range(3)
    ]
    other = store(zoo, manifest(task=task("other")))
    omega = np.stack([np.full((2, 3), 0.25), np.array([[3.0] * 3, [1.0] * 3])]).astype(np.float32)
    for seed in range(3):
        for control, start in (("", 100), ("permuted", 200)):
            settings = {"lr": 0.001} | ({"control": control} if control else {})
            composition(
                zoo,
                [other, own[0]],
                omega,
                seed=seed,
                runhash=f"{seed + start:08x}" * 2,
                run_settings=settings,
                metrics=scored(0.55 + seed / 40 if control else 0.7 + seed / 50),
            )
    return zoo.entries()


def shown(entries: list[Entry], **more: Any) -> Shown:
    lines = {("toy/own", "accuracy"): [Line("pfeiffer", {0: [(2, 0.4), (4, 0.6)]}, {0: 4})]}
    values = np.array([[0.1, np.nan]])
    transfer = Transfer("average", ["toy/own"], ["toy/other", "toy/third"], values, values, values)
    rows = rows_and_runs(entries)
    usual: dict[str, Any] = {"curves": lines, "transfer": transfer}
    return Shown("Results", "python -m mtl.report", entries, rows, **{**usual, **more})


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


def evil(number: int, **changes: Any) -> Entry:
    """An entry of a stranger who wrote markup wherever text may stand."""
    usual = {
        "task": {**manifest().task, "id": f"toy/{EVIL}"},
        "suite": EVIL,
        "method": EVIL,
        "base": {**manifest().base, "id": EVIL},
        "run_settings": {EVIL: f"{EVIL}{number}"},
        "metrics": {
            split: {"accuracy": {"value": 0.5 + number / 10, "stderr": 0.1, "n": 4, "caveat": EVIL}}
            for split in ("dev", "test")
        },
        "training": {
            **manifest().training,
            "device": EVIL,
            "selected_by": EVIL,
            "baselines": {"train": 4, "test": {"majority": {"value": 0.5, "n": 4}}},
        },
        "versions": {EVIL: EVIL},
        "command": f"python -m mtl.train '{EVIL}'",
        "runhash": f"{number:016x}",
        "seed": number % 2,
    }
    described = manifest().to_dict() | usual | changes
    return Entry(Path("/nowhere"), f"{EVIL}/{number}", _unchecked(described), f"{number:064x}", {})


def _unchecked(values: dict[str, Any]) -> Any:
    """A manifest that no schema has looked at: the page must hold what it does not."""
    found = manifest()
    return replace(found, **{k: v for k, v in values.items() if k in found.__dataclass_fields__})


def test_nothing_of_a_stranger_is_markup() -> None:
    parent = {"ref": EVIL, "digest": "ab" * 32, "task": EVIL, "method": EVIL, "seed": 0}
    entries = [evil(n) for n in range(4)]
    entries += [evil(n, kind="composition", parents=[parent, parent]) for n in range(4, 8)]
    rows = rows_and_runs(entries)
    rows = [
        (replace(row, metric=EVIL, caveats=[EVIL], findings=[EVIL], picked=2), runs)
        for row, runs in rows
    ]
    values = np.array([[0.1]])
    found = Shown(
        EVIL,
        EVIL,
        entries,
        rows,
        curves={(EVIL, EVIL): [Line(EVIL, {0: [(1, 0.5)]}, {0: 1})]},
        lost=[EVIL],
        transfer=Transfer(
            EVIL, [EVIL], [EVIL], values, values, values, {(EVIL, EVIL): EVIL}, said=[EVIL]
        ),
        notes=[EVIL],
    )
    text = page(found)
    reader = read(text)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "object", "embed", "form", "base", "link"} & set(tags)
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"src", "action", "xlink:href"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert text.count("<script") == 1
    assert "alert(1)" in text  # it is there, as text
    assert not {"\u202e", "\x1b"} & set(text)
    assert not re.search(r"https?:", text)


def test_only_its_own_script_may_run(tmp_path: Path) -> None:
    text = page(shown(filled(tmp_path / "zoo")))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "innerHTML" not in script
    assert "eval" not in script


def colours() -> Iterator[dict[str, str]]:
    """The variables of the style: light ones, and dark ones over them."""
    style = (Path(page.__code__.co_filename).with_name("page.css")).read_text()
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", light))
    yield found
    yield found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", dark))


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])


def linear(colour: np.ndarray) -> np.ndarray:
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Of two colours, as WCAG 2 defines it."""
    light = [float(linear(c) @ (0.2126, 0.7152, 0.0722)) + 0.05 for c in (one, other)]
    return max(light) / min(light)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(dark: bool) -> None:
    named = {name: rgb(value) for name, value in list(colours())[dark].items()}
    for text, ground in itertools.product(("fg", "soft", "good", "bad", "open", "link"), ("bg",)):
        assert contrast(named[text], named[ground]) >= 4.5, text
    for ground in ("panel", "above-bg", "below-bg", "same-bg", "unsure-bg", "other-bg"):
        assert contrast(named["fg"], named[ground]) >= 4.5, ground
    for full in ((0, 114, 178), (213, 94, 0)):  # the darkest cells of a map
        cell = 0.46 * np.array(full) / 255 + 0.54 * named["bg"]
        assert contrast(named["fg"], cell) >= 4.5, full
    for series in range(6):  # lines and marks
        assert contrast(named[f"s{series}"], named["bg"]) >= 3, series


SEEN = {
    "all": np.eye(3),
    # Machado, Oliveira & Fernandes 2009, severity 1
    "protan": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deutan": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
    "tritan": np.array([[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]]),
}


def lab(colour: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB."""
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(np.clip(matrix @ colour / (0.9505, 1.0, 1.089), 1e-6, None))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("eyes", SEEN)
def test_colours_differ_for_all_eyes(dark: bool, eyes: str) -> None:
    named = list(colours())[dark]

    def apart(one: str, other: str) -> float:
        pair = [lab(np.clip(SEEN[eyes] @ linear(rgb(named[name])), 0, 1)) for name in (one, other)]
        return float(np.linalg.norm(pair[0] - pair[1]))

    assert apart("good", "bad") > 25
    for one, other in itertools.combinations(("s0", "s1", "s2"), 2):
        assert apart(one, other) > 15, (one, other)
    assert apart("above-bg", "below-bg") > 10


def test_the_front_by_hand() -> None:
    points = [
        Point("a", "adapter", 100, 0.5),
        Point("b", "composition", 50, 0.4),
        Point("c", "adapter", 100, 0.45),  # a is better at the same cost
        Point("d", "adapter", 200, 0.5),  # a is as good for less
        Point("e", "control", 10, 0.9),  # no method
        Point("f", "joint", 300, 0.7),
        Point("g", "joint", 300, 0.7),  # equal to f
    ]
    assert [point.label for point in front(points)] == ["b", "a", "f", "g"]
    assert front([]) == []


def test_what_a_gain_says() -> None:
    assert told(Interval(0.2, 0.1, 0.3, 3)) == WON
    assert told(Interval(-0.2, -0.3, -0.1, 3)) == LOST
    assert told(Interval(0.2, -0.1, 0.5, 3)) == OPEN
    assert told(Interval(0.2, None, None, 1)) == ALONE
    assert told(mean_interval([0.2, 0.2])) == OPEN  # seeds that are all alike prove nothing


def test_scales() -> None:
    scale = Scale(0.0, 1.0, 10.0, 110.0)
    assert [scale(value) for value in (0.0, 0.5, 1.0, 9.0)] == [10.0, 60.0, 110.0, 110.0]
    assert [said for _, said in scale.ticks()] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert [said for _, said in Scale(0.905, 0.945, 0, 1).ticks()] == [
        "0.91",
        "0.92",
        "0.93",
        "0.94",
    ]
    costs = scale_of([0, 96, 124_055_040], 0, 100, log=True)
    assert costs(0) == 0  # nothing trained stands at the edge
    assert [said for _, said in costs.ticks()] == ["10", "1k", "100k", "10M"]
    assert [said for _, said in scale_of([16770, 50178], 0, 1, log=True).ticks()] == ["20k", "50k"]
    for alone in (0.0, 0.5, -3.0):
        flat = scale_of([alone], 0, 100)
        assert flat(alone) == pytest.approx(50)
        assert len(flat.ticks()) > 1
    assert fewer((n, 0.5) for n in range(1000))[-1] == (999, 0.5)
    assert len(fewer((n, 0.5) for n in range(1000))) <= 102
    assert fewer([(1, 0.5)]) == [(1, 0.5)]


def test_shades() -> None:
    assert [shade(v, 0.0, 1.0) for v in (0.0, 0.05, 0.3, -1.0, 7.0)] == [
        "n",
        "n",
        "n p2",
        "n m5",
        "n p5",
    ]
    assert shade(0.001, 0.0, FAINT) == "n"  # next to nothing looks so


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


def trials(**changes: Any) -> dict[str, Any]:
    tried = [
        {"number": 0, "values": {"lr": 0.01, "form": "a"}, "dev": 0.5, "state": "done"},
        {"number": 1, "values": {"lr": 0.001, "form": "b"}, "dev": 0.75, "state": "done"},
        {"number": 2, "values": {"lr": 0.1, "form": "a"}, "dev": None, "state": "pruned"},
    ]
    tried = [{"stderr": None, "steps": 4, "seconds": 1.0, "reason": None, **row} for row in tried]
    axes = [
        {"key": "lr", "low": 1e-4, "high": 0.1, "log": True},
        {"key": "form", "choices": ["a", "b"]},
    ]
    return {
        "method": "pfeiffer",
        "task": "toy/own",
        "base": manifest().base["fingerprint"],
        "by": "dev accuracy",
        "rows": 4,
        "seeds": [100],
        "axes": axes,
        "tried": tried,
        "best": tried[1],
        **changes,
    }


def test_searches_of_the_runs_are_shown(tmp_path: Path, caplog: Any) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    of = [
        store(zoo, manifest(seed=seed, runhash=f"{seed:08x}" * 2, run_settings=settings))
        for seed, settings in enumerate([{"lr": 0.001}, {"lr": 0.01}])
    ]

    def write(name: str, content: Any) -> None:
        folder = tmp_path / "runs" / "search" / name
        folder.mkdir(parents=True)
        (folder / "trials.json").write_text(json.dumps(content))

    form = {"method_settings": {"form": "b"}}
    used = store(zoo, manifest(seed=5, runhash="5" * 16, run_settings={"lr": 0.001}, **form))
    write("a", trials())
    write("b", trials(base="ab" * 32))  # of another base
    write("c", trials(best=trials()["tried"][0]))  # what it found, no run has
    write("d", {"axes": []})
    write("e", trials(task=EVIL))
    found = searches_of([*of, used], tmp_path / "runs")
    assert [(item.trials.task, item.entries) for item in found] == [
        ("toy/own", [used]),
        (EVIL, [used]),
    ]
    assert caplog.text.count("left out") == 1
    text = page(shown([*of, used], searches=found))
    reader = read(text)
    said = " ".join(" ".join(reader.words).split())
    assert "pfeiffer on toy/own: 3 trials, seeds 100" in said
    said = said.partition("Trials of pfeiffer on toy/own, best first")[2]
    assert said.index("0.7500") < said.index("0 (without the search)") < said.index("pruned")
    assert f"Trained with what was found: {used.ref}." in said
    assert "<img" not in text
    assert "Settings searched for" not in page(shown(of))


def test_parallel_coordinates_stand_where_the_values_are() -> None:
    drawn = page_searches._drawing(0, "t", Trials.model_validate(trials()))
    lines = re.findall(r'<polyline class="([^"]+)"([^>]*) points="([^"]+)"', drawn)
    assert len(lines) == 2  # number 0 is the mark at the right
    (lost, dash, short), (best, none, whole) = lines
    assert (lost, best) == ("thin s5", "line s1")
    assert "dasharray" in dash
    assert not none
    top, bottom = page_searches.TOP, page_searches.BOTTOM
    heights = [float(point.split(",")[1]) for point in whole.split()]
    third = bottom + (top - bottom) / 3  # 0.001 of 0.0001 … 0.1, in logarithms
    assert heights == pytest.approx([third, top, top], abs=0.1)
    assert [float(point.split(",")[1]) for point in short.split()] == [top, bottom]
