"""Where the spread comes from: simulated components come back, runs are sorted into factors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import manifest, predictions, task

from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.report.variance import (
    ONE,
    REST,
    ROWS,
    SHOTS,
    TWO,
    common,
    components,
    render_splits,
    split,
    variance_splits,
)
from mtl.zoo import Entry, Zoo, open_zoo

SIZES = (7, 6, 5)
TRUE = (0.03, 0.02, 0.0)
"""Standard deviations of the three factors; that of the rest is :data:`NOISE`."""
NOISE = 0.01


def levels(sizes: tuple[int, ...] = SIZES) -> dict[str, list[int]]:
    every = list(itertools.product(*map(range, sizes)))
    return {name: [place[n] for place in every] for n, name in enumerate((ONE, TWO, SHOTS))}


def crossed(seed: int, sizes: tuple[int, ...] = SIZES) -> np.ndarray:
    """A fully crossed study with known components."""
    rng = np.random.default_rng(seed)
    found = 0.7 + rng.normal(0, NOISE, sizes)
    for axis, (size, std) in enumerate(zip(sizes, TRUE, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = size
        found = found + rng.normal(0, std, size).reshape(shape)
    return found


def anova(y: np.ndarray) -> tuple[list[float], float]:
    """Closed form of a balanced study: what mean squares are expected to be."""
    total = float(((y - y.mean()) ** 2).sum())
    squares = []
    for axis, size in enumerate(y.shape):
        others = tuple(n for n in range(3) if n != axis)
        squares.append(y.size / size * float(((y.mean(axis=others) - y.mean()) ** 2).sum()))
    free = [size - 1 for size in y.shape]
    rest = (total - sum(squares)) / (y.size - 1 - sum(free))
    parts = [
        (square / df - rest) / (y.size / size)
        for square, df, size in zip(squares, free, y.shape, strict=True)
    ]
    return parts, rest


def test_reml_is_anova_where_all_was_run() -> None:
    for seed in range(5):
        y = crossed(seed)
        found, rest = components(y.ravel(), levels())
        parts, left = anova(y)
        for value, closed in zip(found.values(), parts, strict=True):
            assert value == pytest.approx(max(closed, 0.0), rel=0.02, abs=2e-6)
        assert rest == pytest.approx(left, rel=0.03)


def test_known_components_come_back() -> None:
    """80 studies: the mean estimate is the truth, and 95 % of the intervals hold it."""
    studies = 80
    variances = np.zeros((studies, 4))
    inside = np.zeros((studies, 4))
    for seed in range(studies):
        parts, whole = split(crossed(seed).ravel(), levels(), np.zeros((210, 0)))
        assert whole
        for place, (part, true) in enumerate(zip(parts, (*TRUE, NOISE), strict=True)):
            assert part.low is not None
            assert part.high is not None
            variances[seed, place] = part.variance
            inside[seed, place] = part.low <= true <= part.high
    mean = variances.mean(axis=0)
    error = variances.std(axis=0) / np.sqrt(studies)
    for place, true in enumerate((0.03, 0.02, NOISE)):
        column = (0, 1, 3)[place]
        assert abs(mean[column] - true**2) < 4 * error[column], (place, mean, error)
    assert mean[2] < 1e-5  # a factor that does nothing
    assert inside[:, [0, 1, 3]].mean(axis=0).min() > 0.9
    assert [part.name for part in parts] == [ONE, TWO, SHOTS, REST]
    assert sum(part.share for part in parts) == pytest.approx(1)


def test_a_study_with_holes() -> None:
    """A third of the combinations was not run: still the same components."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(20):
        y, every = crossed(seed).ravel(), levels()
        kept = np.sort(rng.choice(len(y), 140, replace=False))
        parts, whole = split(
            y[kept],
            {name: [own[n] for n in kept] for name, own in every.items()},
            np.zeros((140, 0)),
        )
        assert not whole
        found.append([part.variance for part in parts])
    mean = np.mean(found, axis=0)
    assert mean[0] == pytest.approx(0.03**2, rel=0.35)
    assert mean[1] == pytest.approx(0.02**2, rel=0.35)
    assert mean[3] == pytest.approx(NOISE**2, rel=0.1)


def test_what_cannot_be_told_apart() -> None:
    values = [0.1, 0.2, 0.4, 0.3]
    none = np.zeros((4, 0))
    together, _ = split(values, {ONE: [0, 0, 1, 1], TWO: [5, 5, 7, 7]}, none)
    assert [part.name for part in together] == [f"{ONE} and {TWO}", REST]
    (alone,), whole = split(values, {TWO: [0, 1, 2, 3], ONE: [0, 0, 0, 0]}, none)
    assert alone.name == f"{TWO}, with the {REST}"
    assert alone.variance == pytest.approx(np.var(values, ddof=1))
    assert whole
    with pytest.raises(RequestError, match="cannot be told apart"):
        split(values, {ONE: [0, 1, 2, 3], TWO: [0, 0, 1, 1]}, none)
    with pytest.raises(RequestError, match="differ in nothing"):
        split(values, {ONE: [0] * 4}, none)
    flat, _ = split([0.5] * 4, {ONE: [0, 0, 1, 1], TWO: [0, 1, 0, 1]}, none)
    assert [part.variance for part in flat] == [0.0, 0.0, 0.0]
    assert {part.share for part in flat} == {0.0}


def test_the_part_of_the_rows() -> None:
    """Rows of known difficulty: what other rows would change in all runs alike."""
    rng = np.random.default_rng(3)
    runs, rows, draws = 6, 400, 2000
    hard = rng.beta(2, 1, rows)  # variance 1/18 over rows
    right = (rng.random((runs, rows)) < hard).astype(float)
    counts = rng.multinomial(rows, np.full(rows, 1 / rows), draws)
    assert common(right @ counts.T / rows) == pytest.approx(1 / 18 / rows, rel=0.25)
    luck = (rng.random((runs, rows)) < 0.7).astype(float)  # rows are all alike
    assert common(luck @ counts.T / rows) < 0.15 * 0.21 / rows
    one = right[:1] @ counts.T / rows
    assert common(one) == pytest.approx(one.var(ddof=1))


def put(zoo: Zoo, seed: int, sources: int, draw: int, value: float, **changes: Any) -> Entry:
    parents = [
        {
            "ref": f"x/y{n}-{sources:08x}",
            "digest": f"{sources:064x}",
            "task": f"toy/{n}",
            "method": "pfeiffer",
            "seed": sources,
        }
        for n in range(2)
    ]
    data = manifest().data
    splits = {"train": f"{draw:064x}", "dev": "ab" * 32, "test": "cd" * 32}
    usual: dict[str, Any] = {
        "kind": "composition",
        "method": "scalearn",
        "placement": None,
        "parents": parents,
        "seed": seed,
        "data": {**data, "fingerprint": f"{draw + 100:064x}", "splits": splits},
        "run_settings": {"lr": 0.001, "shots": 4, "shot_draw": draw},
        "metrics": {"test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}},
    }
    described = manifest(**{**usual, **changes})
    runhash = sha256_json([seed, sources, draw, str(changes)])
    described = manifest(**{**usual, **changes, "runhash": runhash})
    ref = zoo.location("tiny-abababab", "toy", "own", described.method, seed, runhash)
    with zoo.stage(ref) as folder:
        predictions(folder, [seed % 2, sources % 2, draw % 2, 1])
        return zoo.commit(folder, ref, described, orphan=True)


def test_runs_of_a_zoo(tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    effect = {0: -0.05, 1: 0.05}
    for seed, sources, draw in itertools.product((0, 1), (0, 1), (1, 2)):
        value = 0.6 + effect[sources] + (0.01 if draw == 2 else -0.01) + 0.001 * seed * sources
        put(zoo, seed, sources, draw, value)
        put(zoo, seed, sources, draw, 0.5, run_settings={"lr": 0.1, "shot_draw": draw})
    put(zoo, 0, 0, 1, 0.5, task=task("alone"))
    found, notes = variance_splits(zoo.entries())
    assert notes == []
    assert [(item.label, item.runs, item.whole) for item in found] == [
        ("scalearn (K=2) lr=0.001, shots=4", 8, True),
        ("scalearn (K=2) lr=0.1, shots=None", 8, True),
    ]
    parts = {part.name: part for part in found[0].parts}
    assert list(parts) == [ONE, TWO, SHOTS, REST, ROWS]
    assert [part.levels for part in found[0].parts[:3]] == [2, 2, 2]
    assert parts[ONE].variance == pytest.approx(2 * 0.05**2, rel=0.05)
    assert parts[SHOTS].variance == pytest.approx(2 * 0.01**2, rel=0.05)
    assert parts[TWO].std < 0.002
    assert parts[ROWS].variance > 0
    text = render_splits(found, ["x: y"])
    assert f"{ONE} " in text
    assert "left out: x: y" in text
    assert "not every combination" not in text
