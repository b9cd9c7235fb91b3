"""Places of nodes, and of names that lie on nothing."""

from __future__ import annotations

import numpy as np
import pytest
from drawing_bench import finding, many, sample

from mtl.graph import build_graph
from mtl.graph.layout import arrow_heads, label_places, positions, short_names, strokes


def test_the_layout_is_the_same_every_time_and_keeps_nodes_apart() -> None:
    graph = sample()
    one, two = (positions(graph, strokes(graph)) for _ in range(2))
    assert one == two
    points = np.array(list(one.values()))
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.eye(len(points))
    assert gaps.min() > 0.05
    assert points.min() >= 0
    assert points.max() <= 1
    lonely = build_graph([], [finding("t/own", "reliance", 1.0)])
    assert positions(lonely, strokes(lonely)) == {"t/own": (0.5, 0.5)}


def overlaps(boxes: list[tuple[float, float, float, float]]) -> int:
    return sum(
        min(a[2], b[2]) - max(a[0], b[0]) > 0 and min(a[3], b[3]) - max(a[1], b[1]) > 0
        for place, a in enumerate(boxes)
        for b in boxes[:place]
    )


@pytest.mark.parametrize("count", [6, 20, 40])
def test_names_do_not_lie_on_one_another(count: int) -> None:
    graph = many(count)
    unit = positions(graph, strokes(graph))
    points = [(50 + 1000 * x, 50 + 620 * y) for x, y in unit.values()]
    widths = [7.0 * len(name.partition("/")[2]) for name in unit]
    found = label_places(points, [9.0] * count, widths, 14.0, (1100, 720))
    boxes = [(x - w / 2, y - 7, x + w / 2, y + 7) for (x, y), w in zip(found, widths, strict=True)]
    nodes = [(x - 9, y - 9, x + 9, y + 9) for x, y in points]
    assert overlaps(boxes) == 0
    assert overlaps([*boxes, *nodes]) == 0
    assert min(min(box[:2]) for box in boxes) >= 0
    assert max(box[2] for box in boxes) <= 1100
    # two nodes beside each other at the edge, and one label that fits nowhere: still somewhere
    tight = label_places([(3.0, 3.0), (12.0, 3.0)], [5.0, 5.0], [40.0, 4000.0], 12.0, (100, 100))
    assert np.isfinite(tight).all()


def test_names_leave_loops_and_arrow_heads_free() -> None:
    graph = build_graph(
        [], [finding("s/a", "measured", 0.2), finding("t/own", "reliance", 0.6, method="omega")]
    )
    place = {"s/a": (100.0, 20.0), "t/own": (100.0, 100.0)}
    heads = arrow_heads(strokes(graph), place, {"s/a": 15.0, "t/own": 15.0})
    assert (100.0, 85.0) in heads  # the edge comes from above
    assert len([point for point in heads if point[1] > 115]) == 3  # its loop hangs below
    found = label_places(list(place.values()), [8, 8], [40, 40], 14, (200, 200), heads)
    assert abs(found[1][0] - 100) > 20  # so its name stands beside it
    plain = label_places(list(place.values()), [8, 8], [40, 40], 14, (200, 200))
    assert plain[1] == (100.0, 100 - 11 - 7)


def test_short_names() -> None:
    assert short_names(["a/x", "a/y"]) == {"a/x": "x", "a/y": "y"}
    assert short_names(["a/x", "b/x"]) == {"a/x": "a/x", "b/x": "b/x"}
    assert short_names(["plain"]) == {"plain": "plain"}
