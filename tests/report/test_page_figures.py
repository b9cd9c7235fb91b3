"""What the figures of a page say: fronts, gains, scales, shades, searches."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_bench import EVIL, read, shown
from zoo_bench import manifest, store

from mtl.report import page_searches
from mtl.report.page import page
from mtl.report.page_figures import Point, fewer, front
from mtl.report.page_sources import FAINT, shade
from mtl.report.page_tables import ALONE, LOST, OPEN, WON, told
from mtl.report.searches import Trials, searches_of
from mtl.report.stats import Interval, mean_interval
from mtl.report.svg import Scale, scale_of
from mtl.zoo import open_zoo


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
