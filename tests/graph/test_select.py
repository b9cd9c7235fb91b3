"""Picking sources: what is asked for, what is taken, and the reasons."""

from __future__ import annotations

from typing import Any

import pytest

from mtl.errors import RequestError
from mtl.graph import Evidence, build_graph
from mtl.graph.calibrate import Trust
from mtl.graph.request import SourceRequest, parse_sources
from mtl.graph.select import (
    Selection,
    choose_auto,
    choose_from_graph,
    measured_for,
    selection_text,
    trusted_score,
)
from mtl.graph.table import render

BASE = "ab" * 32
TRUST = Trust("knn", 3, 12, 0.8, 0.5, 1.0, {"1": (0.0, 0.0, 0.0)}, 0.1, 0.02, 0.01, "targets")


def reasons(found: Selection) -> dict[str, str]:
    return {choice.source: choice.reason for choice in found.choices}


def test_what_sources_may_say() -> None:
    assert parse_sources(["all"], None, None) is None
    assert parse_sources(["nli", "entail:compacter"], None, None) is None
    assert parse_sources(["auto"], None, None) == SourceRequest("auto", 5, None)
    assert parse_sources(["auto"], 2, 0.01) == SourceRequest("auto", 2, 0.01)
    assert parse_sources(["graph:k=3"], None, None) == SourceRequest("graph", 3, None)
    assert parse_sources(["graph:k=2", "by=knn"], None, 0.0) == SourceRequest(
        "graph", 2, 0.0, "knn"
    )


@pytest.mark.parametrize(
    ("names", "budget", "gain", "said"),
    [
        (["auto", "nli"], None, None, "stands alone"),
        (["nli", "auto"], None, None, "stands alone"),
        (["graph:k=3", "auto"], None, None, "stands alone"),
        (["graph:3"], None, None, "'3' is not understood"),
        (["graph:k=0"], None, None, "at least 1"),
        (["graph:k=two"], None, None, "at least 1"),
        (["graph:k=3", "k=4"], None, None, "not understood"),
        (["graph:by=knn"], None, None, "k must be"),
        (["graph:k=3"], 4, None, "leave out --budget"),
        (["all"], 4, None, "--budget and --min-gain"),
        (["nli"], None, 0.1, "--budget and --min-gain"),
        (["auto"], 0, None, "--budget 0"),
    ],
)
def test_what_it_may_not(names: list[str], budget: Any, gain: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_sources(names, budget, gain)


def test_without_a_calibration_the_plain_base_is_the_measure() -> None:
    values = {"s/a": -0.5, "s/b": -0.9, "s/c": -0.6, "s/d": -0.7}
    found = choose_auto(values, -0.65, {}, None, "logme", SourceRequest("auto"))
    assert found.chosen == ["s/a", "s/c"]
    assert reasons(found)["s/b"] == "left out: its features say no more than the plain base's"
    assert found.trust == "logme: not calibrated here"
    cut = choose_auto(values, -0.65, {}, None, "logme", SourceRequest("auto", 1))
    assert cut.chosen == ["s/a"]
    assert "beyond the budget of 1" in reasons(cut)["s/c"]
    none_better = choose_auto(values, 0.0, {}, None, "logme", SourceRequest("auto"))
    assert none_better.chosen == ["s/a"]
    assert "best of all" in reasons(none_better)["s/a"]
    assert choose_auto(values, None, {}, None, "taskemb", SourceRequest("auto", 9)).chosen == [
        "s/a", "s/c", "s/d", "s/b",
    ]  # fmt: skip


def test_with_a_calibration_gains_are_expected_and_limited() -> None:
    values = {"s/a": 1.0, "s/b": 2.0, "s/c": 3.0}
    step = 0.1 / (2 / 3) ** 0.5
    found = choose_auto(values, 5.0, {}, TRUST, "knn", SourceRequest("auto"))
    assert found.chosen == ["s/c", "s/b"]  # gains are the limit where they are known, not the base
    assert reasons(found)["s/a"].startswith("left out: expected gain -0.1")
    every = choose_auto(values, 5.0, {}, TRUST, "knn", SourceRequest("auto", 5, -1.0))
    assert every.chosen == ["s/c", "s/b", "s/a"]
    assert found.choices[0].expected == pytest.approx(0.02 + step)
    least = choose_auto(values, 5.0, {}, TRUST, "knn", SourceRequest("auto", 5, 0.02))
    assert least.chosen == ["s/c", "s/b"]
    assert "below --min-gain 0.02" in reasons(least)["s/a"]
    with pytest.raises(RequestError, match=r"leaves no source.*s/c"):
        choose_auto(values, None, {}, TRUST, "knn", SourceRequest("auto", 5, 9.0))


def test_what_was_measured_goes_before_what_is_expected() -> None:
    values = {"s/a": 1.0, "s/b": 2.0, "s/c": 3.0}
    seen = {"kind": "measured", "value": 0.9, "dev": -0.3, "method": "average"}
    found = choose_auto(values, None, {"s/c": seen}, TRUST, "knn", SourceRequest("auto"))
    assert found.chosen == ["s/b"]
    assert reasons(found)["s/c"] == "left out: measured gain -0.3000 (--min-gain -1 takes it)"
    every = choose_auto(values, None, {"s/c": seen}, TRUST, "knn", SourceRequest("auto", 5, -1.0))
    assert every.chosen == ["s/b", "s/a", "s/c"]
    text = selection_text(every, "t/own")
    assert "negative transfer on dev: s/c → t/own -0.3000, chosen all the same" in text
    alone = choose_auto({"s/c": 3.0}, None, {"s/c": seen}, TRUST, "knn", SourceRequest("auto"))
    assert alone.chosen == ["s/c"]  # something has to stand beside the own adapter
    least = choose_auto(values, None, {"s/c": seen}, TRUST, "knn", SourceRequest("auto", 5, -0.2))
    assert least.chosen == ["s/b", "s/a"]
    text = selection_text(
        choose_auto(values, None, {"s/c": seen}, TRUST, "knn", SourceRequest("auto", 2)), "t/own"
    )
    assert "negative transfer on dev: s/c → t/own -0.3000" in text
    assert "chosen all the same" not in text


def test_a_least_gain_needs_gains() -> None:
    with pytest.raises(RequestError, match=r"nobody measured or calibrated for s/a"):
        choose_auto({"s/a": 1.0}, None, {}, None, "logme", SourceRequest("auto", 5, 0.0))
    with pytest.raises(RequestError, match="no candidate that could be scored"):
        choose_auto({}, None, {}, None, "logme", SourceRequest("auto"))


def test_the_score_that_decides() -> None:
    assert trusted_score(None) == ("logme", None)


def finding(source: str, kind: str, value: float, **changes: Any) -> Evidence:
    common = {"method": "omega" if kind == "reliance" else "average", "base": BASE, "rows": "r"}
    if kind == "measured":  # on test it looks otherwise, and no choice may see that
        common |= {"dev": value}
        value = 5.0 - value
    return Evidence(source, "t/own", kind, value=value, **{**common, **changes})


GRAPH = build_graph(
    [],
    [
        finding("s/a", "measured", 0.1),
        finding("s/b", "measured", -0.2),
        finding("s/d", "measured", 0.8, dev=None),
        finding("s/b", "measured", 0.7, method="fusion"),
        finding("s/c", "measured", 0.3, base="cd" * 32),
        finding("s/a", "reliance", 0.2),
        finding("s/b", "reliance", 0.3),
        finding("s/c", "reliance", 0.4),
        finding("t/own", "reliance", 0.1),
        finding("s/c", "predicted", 0.7, method="knn"),
        finding("s/a", "measured", 0.9, rows="other"),
    ],
)
ALL = {"s/a", "s/b", "s/c", "s/d"}


def pick(text: str, min_gain: float | None = None, tasks: Any = ALL) -> Selection:
    request = parse_sources([text], None, min_gain)
    assert request is not None
    return choose_from_graph(GRAPH, "t/own", BASE, "r", request, tasks)


def test_the_strongest_edges() -> None:
    one = pick("graph:k=1")
    assert one.chosen == ["s/a"]
    assert one.ranked_by == "measured in the graph"
    assert one.choices[0].value == 0.1  # the rows at hand count, not other ones
    three = pick("graph:k=3")  # only two were measured here: the next kind has three
    assert three.ranked_by == "reliance in the graph"
    assert three.chosen == ["s/c", "s/b", "s/a"]
    assert pick("graph:k=9,by=measured").chosen == ["s/a", "s/b"]
    assert pick("graph:k=2,by=knn").chosen == ["s/c"]
    assert pick("graph:k=2,by=reliance", tasks={"s/a", "s/b"}).chosen == ["s/b", "s/a"]
    least = pick("graph:k=3", min_gain=0.0)
    assert least.chosen == ["s/a"]
    assert "not measured" in reasons(least)["s/c"]
    assert "left out: gain" in reasons(least)["s/b"]


def test_shares_of_one_composition_only() -> None:
    """Half of two sources is no more than a quarter of four."""

    def of(mark: str, created: str) -> dict[str, Any]:
        return {"provenance": {"settings": mark, "created": created, "sources": len(mark)}}

    items = [
        finding("s/a", "reliance", 0.5, **of("bb", "2026-02")),
        finding("s/b", "reliance", 0.5, **of("bb", "2026-02")),
        finding("s/a", "reliance", 0.1, **of("aaaa", "2026-01")),
        finding("s/b", "reliance", 0.2, **of("aaaa", "2026-01")),
        finding("s/c", "reliance", 0.4, **of("aaaa", "2026-01")),
    ]
    request = SourceRequest("graph", 2, by="reliance")
    graph = build_graph([], items)
    found = choose_from_graph(graph, "t/own", BASE, "r", request, ALL)
    assert found.chosen == ["s/c", "s/b"]
    assert [choice.value for choice in found.choices] == [0.4, 0.2, 0.1]
    assert "omega, 4 sources" in render(graph)
    assert "omega, 2 sources" in render(graph)
    # what was learned on the rows at hand goes before more of it on others
    other = [finding(f"s/{n}", "reliance", 0.3, rows="x", **of("xyz", "2026-03")) for n in "abcd"]
    graph = build_graph([], [*items[:2], *other])
    found = choose_from_graph(graph, "t/own", BASE, "r", request, ALL)
    assert [choice.value for choice in found.choices] == [0.5, 0.5]


def test_evidence_that_is_not_there() -> None:
    with pytest.raises(RequestError, match=r"'relience'.*'reliance'"):
        pick("graph:k=1,by=relience")
    with pytest.raises(RequestError, match="no attribution evidence for t/own"):
        pick("graph:k=1,by=attribution")
    request = SourceRequest("graph", 1)
    with pytest.raises(RequestError, match="no measured, attribution or reliance evidence"):
        choose_from_graph(GRAPH, "t/nobody", BASE, "r", request, ALL)
    with pytest.raises(RequestError, match="leaves no source"):
        pick("graph:k=1", min_gain=0.5)


def test_measured_transfer_on_these_rows_only() -> None:
    assert {s: f["dev"] for s, f in measured_for(GRAPH, "t/own", BASE, "r").items()} == {
        "s/a": 0.1,
        "s/b": -0.2,
    }
