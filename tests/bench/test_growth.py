"""The benchmark of growth: what it calls above linear, and what it draws."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SIZES = [10, 100, 1000, 3000, 10000]


@pytest.fixture(scope="module")
def growth() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import growth  # type: ignore[import-not-found]

        yield growth
    for name in ("growth", "growth_plot", "growth_zoos"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("cost", "steep"),
    [
        (lambda n: 0.4, False),
        (lambda n: 0.4 + 1e-3 * n, False),
        (lambda n: max(0.4, 1e-3 * n), False),
        (lambda n: 0.4 + 1e-6 * n**2, True),
        (lambda n: 0.4 + 1e-4 * n**1.3, True),
    ],
)
def test_what_grows_faster_than_the_size_is_marked(
    growth: ModuleType, cost: Callable[[int], float], steep: bool
) -> None:
    series = growth.Series("one", list(SIZES), [growth.Cost(cost(n), 50.0) for n in SIZES])
    assert series.steep("seconds") is steep
    assert series.steep("mb") is False
    assert series.slope("mb") == pytest.approx(0, abs=1e-9)
    (row,) = [line for line in growth.table("entries", [series]).splitlines() if "one" in line]
    assert ("above linear" in row) is steep


def test_a_linear_cost_has_slope_one_whatever_is_paid_first(growth: ModuleType) -> None:
    for fixed in (0.0, 3.0):
        costs = [growth.Cost(fixed + 2e-3 * n, 1.0) for n in SIZES]
        assert growth.Series("one", list(SIZES), costs).slope("seconds") == pytest.approx(1)


def test_the_drawing_has_both_panels_and_names_every_slope(growth: ModuleType) -> None:
    told = {
        name: {
            "sizes": SIZES,
            "seconds": [power * n for n in SIZES],
            "mb": [10.0 + n for n in SIZES],
            "slopes": {"seconds": power, "mb": 1.0},
        }
        for name, power in (("a <b>", 0.5), ("other", 1.25))
    }
    drawn = ElementTree.fromstring(growth.draw("entries", told))
    names = {"svg": "http://www.w3.org/2000/svg"}
    lines = [e.get("class", "") for e in drawn.iterfind(".//svg:polyline", names)]
    assert sum(line.startswith("line s") for line in lines) == 2 * (2 + 1)  # panels, and the key
    said = [e.text or "" for e in drawn.iterfind(".//svg:text", names)]
    assert "a <b>: slope 0.50, memory 1.00" in said
    assert {"processor seconds", "MB", "other: slope 1.25, memory 1.00"} <= set(said)
