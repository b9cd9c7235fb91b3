"""Pages of reports read as a browser would, and what stands on them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from zoo_bench import composition, manifest, store, task

from mtl.report.dev_curves import Line
from mtl.report.page import Shown
from mtl.report.page_sources import Transfer
from mtl.report.tables import rows_and_runs
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
