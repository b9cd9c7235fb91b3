"""Contrasts of a page in both styles, and colours that differ for all eyes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mtl.report.page import page


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
