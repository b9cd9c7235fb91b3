"""The drawings of benchmarks/growth.py: processor seconds and memory over size, as SVG files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtl.report.html import text
from mtl.report.svg import DASHES, SERIES, Scale, across, polyline, upright, words

PANEL, LEFT, BOTTOM, LINE = 400, 46, 250, 17
"""Of a drawing, in its own units: width of a panel, where its axes are, height of a key."""
COLOURS = ("#0072b2", "#c04e00", "#26241f", "#a8437f", "#7a5c00", "#009e73")
STYLE = (
    "svg{background:#fff;font-family:system-ui,sans-serif}text{font-size:11.5px;fill:#1b1b1f}"
    ".tick{font-size:10.5px;fill:#55565c}.grid{stroke:#d4d6db;fill:none}"
    ".line{fill:none;stroke-width:2}.linear{fill:none;stroke:#55565c;stroke-width:1}"
    + "".join(
        f".line.s{number}{{stroke:{colour}}}.dot.s{number}{{fill:{colour}}}"
        for number, colour in enumerate(COLOURS[:SERIES])
    )
)


def draw(axis: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Two panels beside each other, both axes logarithmic, with a faint line that is linear."""
    parts = []
    for place, (of, label) in enumerate((("seconds", "processor seconds"), ("mb", "MB"))):
        parts.append(_panel(place * PANEL, axis, of, label, found))
    for number, (name, series) in enumerate(found.items()):
        y = BOTTOM + 48 + number * LINE
        slopes = series["slopes"]
        said = f"{name}: slope {slopes['seconds']:.2f}, memory {slopes['mb']:.2f}"
        parts.append(polyline([(LEFT, y - 4), (LEFT + 30, y - 4)], *_style(number)))
        parts.append(words(LEFT + 38, y, said))
    height = BOTTOM + 48 + len(found) * LINE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {2 * PANEL} {height}">'
        f"<title>{text(f'Growth over {axis}')}</title><style>{STYLE}</style>"
        f"{''.join(parts)}</svg>\n"
    )


def _style(number: int) -> tuple[str, str]:
    return f"line s{number % SERIES}", DASHES[number // SERIES % len(DASHES)]


def _panel(
    start: int, axis: str, of: str, label: str, found: Mapping[str, Mapping[str, Any]]
) -> str:
    sizes = [size for series in found.values() for size in series["sizes"]]
    # Below a millisecond, or a tenth of a MB, there is nothing but chance.
    least = 0.001 if of == "seconds" else 0.1
    values = [max(value, least) for series in found.values() for value in series[of]]
    left, right = start + LEFT, start + PANEL - 12
    x = Scale(min(sizes) / 1.15, max(sizes) * 1.15, left, right, log=True)
    y = Scale(min(values) / 1.4, max(values) * 1.4, BOTTOM, 24, log=True)
    shapes = [upright(y, left, right), across(x, 24, BOTTOM, axis), words(left, 15, label)]
    shapes.append(words(right, 15, "dotted: linear", "tick", "end"))
    for power in range(-8, 9):  # linear growth, everywhere with one slope
        ends = [(size, size * 10.0**power) for size in (x.low, x.high)]
        shapes.append(_inside(x, y, ends))
    for number, series in enumerate(found.values()):
        points = [
            (x(size), y(max(value, least)))
            for size, value in zip(series["sizes"], series[of], strict=True)
        ]
        style, dash = _style(number)
        shapes.append(polyline(points, style, dash))
        colour = style.rpartition(" ")[2]
        shapes += [
            f'<circle class="dot {colour}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>' for a, b in points
        ]
    return "".join(shapes)


def _inside(x: Scale, y: Scale, ends: list[tuple[float, float]]) -> str:
    """A line of slope 1 from one end to the other, as far as it is in the panel."""
    (first, low), (last, high) = ends
    begin = first * max(1.0, y.low / low)
    end = last * min(1.0, y.high / high)
    if begin >= end:
        return ""
    factor = low / first
    places = [(x(size), y(size * factor)) for size in (begin, end)]
    return polyline(places, "linear", "1 4")
