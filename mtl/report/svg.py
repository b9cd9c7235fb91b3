"""Small drawings as inline SVG: scales, axes, marks, and a figure that says in words what it shows.

Colours are names of rules (``s0`` … ``s5``) that the page's style gives for light, dark and paper;
shapes and dashes say the same again, for those who see fewer colours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mtl.report.html import listed, text

WIDTH = 360
"""Of a drawing, in its own units; a phone is as wide."""
SERIES = 6
DASHES = ("", "6 3", "2 2")
_KINDS = {"adapter": ("s0", 0), "composition": ("s1", 1), "joint": ("s2", 2), "control": ("s5", 3)}
"""Kind of a row → its colour, and its shape: circle, square, diamond, triangle."""


@dataclass(frozen=True)
class Scale:
    """From ``low`` … ``high`` to ``start`` … ``end`` in the drawing; logarithmic where asked."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where ``value`` stands; what is beyond the ends stands at them."""
        low, high, at = (self._plain(x) for x in (self.low, self.high, value))
        part = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, part)) * (self.end - self.start)

    def _plain(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.log else value

    def ticks(self) -> list[tuple[float, str]]:
        """Round values between the ends, three to eight of them, each with its words."""
        if self.log:
            return [(value, short(value)) for value in self._log_ticks()]
        span = self.high - self.low
        if span <= 0:
            return [(self.low, f"{self.low:.4g}")]
        power = 10 ** math.floor(math.log10(span / 4))
        step = next(power * n for n in (1, 2, 5, 10) if span / (power * n) <= 6)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(n * step, f"{n * step:.{digits}f}") for n in range(first, last + 1)]

    def _log_ticks(self) -> list[float]:
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for parts in ((1,), (1, 3), (1, 2, 5)):
            steps = -(-(high - low + 1) // 6) if len(parts) == 1 else 1
            found = [n * 10.0**p for p in range(low, high + 1, steps) for n in parts]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 3:
                break
        return found


def scale_of(values: Iterable[float], start: float, end: float, *, log: bool = False) -> Scale:
    """A scale with all ``values`` on it and a little room beside them."""
    found = [max(value, 1.0) if log else value for value in values]
    low, high = min(found), max(found)
    if log:
        return Scale(low / 1.5, high * 1.5, start, end, log=True)
    room = 0.05 * (high - low) or max(abs(high) * 0.02, 0.01)
    return Scale(low - room, high + room, start, end)


def short(value: float) -> str:
    """``1.5M``, ``50k``, ``300``: a number of parameters on an axis."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"


def cut(label: str, letters: int) -> str:
    """``label``, or its beginning with an ellipsis."""
    return label if len(label) <= letters else f"{label[: letters - 1]}…"


def mark(kind: str, x: float, y: float, *, front: bool = False) -> str:
    """The mark of a row of this kind; ``front`` puts a ring around it."""
    colour, shape = _KINDS.get(kind, ("s5", 3))
    ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="7.5"/>' if front else ""
    if shape == 0:
        return f'{ring}<circle class="mark {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    paths = {1: "m-4-4h8v8h-8z", 2: "m0-5.5 5.5 5.5-5.5 5.5-5.5-5.5z", 3: "m0-5 5 9h-10z"}
    return f'{ring}<path class="mark {colour}" d="M{x:.1f} {y:.1f}{paths[shape]}"/>'


def polyline(points: Sequence[tuple[float, float]], style: str, dash: str = "") -> str:
    """A line through points of the drawing."""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline class="{style}"{dashed} points="{places}"/>'


def words(x: float, y: float, label: object, style: str = "", anchor: str = "start") -> str:
    """Text in a drawing."""
    named = f' class="{style}"' if style else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(label)}</text>'


def across(scale: Scale, top: float, bottom: float, label: str) -> str:
    """A horizontal axis below a drawing, with faint lines up into it."""
    parts = []
    for value, said in scale.ticks():
        x = scale(value)
        parts.append(f'<path class="grid" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>')
        parts.append(words(x, bottom + 13, said, "tick", "middle"))
    middle = (scale.start + scale.end) / 2
    return "".join([*parts, words(middle, bottom + 27, label, "tick", "middle")])


def upright(scale: Scale, left: float, right: float) -> str:
    """A vertical axis beside a drawing, with faint lines into it."""
    parts = []
    for value, said in scale.ticks():
        y = scale(value)
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{right:.1f}"/>')
        parts.append(words(left - 4, y + 3.5, said, "tick", "end"))
    return "".join(parts)


def figure(
    name: str, title: str, said: str, height: float, shapes: Iterable[str], keys: Sequence[str] = ()
) -> str:
    """A drawing with its title above it, what is to be seen in words for those who do not see it,
    and a list of keys below.

    Args:
        name: of its own on the page.
        title, said: plain text.
        shapes, keys: markup.
    """
    return (
        f'<figure><h3 id="{name}-t">{text(title)}</h3>'
        f'<svg role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {WIDTH} {height:.0f}">'
        f'<desc id="{name}-d">{text(said)}</desc>{"".join(shapes)}</svg>'
        f"{f'<figcaption>{listed(keys)}</figcaption>' if keys else ''}</figure>"
    )


def sample(series: int) -> str:
    """A piece of the line number ``series``, for a list of keys."""
    dash = DASHES[series // SERIES % len(DASHES)]
    line = polyline([(0, 5), (26, 5)], f"line s{series % SERIES}", dash)
    return f'<svg class="sample" aria-hidden="true" viewBox="0 0 26 10">{line}</svg>'
