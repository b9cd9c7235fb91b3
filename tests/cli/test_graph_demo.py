"""The demo suite knows which tasks share skills; scores that claim to see that are held to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl

from mtl.graph.scores import SCORES

UNRELATED = ("demo/sentiment", "demo/acceptability")
CLAIMING = [name for name in SCORES if SCORES.get(name).claims]


@pytest.fixture(scope="module")
def demo_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the demo suite, as scripts/quickstart.sh trains them (minutes)."""
    root = tmp_path_factory.mktemp("demo")
    tasks = ["nli", "paraphrase", "similarity", "sentiment", "acceptability"]
    places = ["--zoo", root / "zoo", "--runs", root / "runs"]
    said = mtl("train", "--suite", "demo", "--task", *tasks, "--seeds", "0", *places, "--json")
    assert said.code == 0, said
    return root


def ranks(root: Path, target: str) -> dict[str, list[str]]:
    """Score → sources, best first."""
    said = mtl("graph", "suggest", "--target", target, "--zoo", root / "zoo", "--json")
    assert said.code == 0, said
    values: dict[str, dict[str, Any]] = said.json["values"]
    return {
        score: sorted(
            (task for task in values if score in values[task]),
            key=lambda task: -values[task][score],
        )
        for score in SCORES
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_known_helpers_rank_above_unrelated_tasks(demo_zoo: Path) -> None:
    found = ranks(demo_zoo, "paraphrase")
    # a paraphrase is a pair that entails each other: nli is the known helper
    for score in CLAIMING:
        order = found[score]
        assert all(order.index("demo/nli") < order.index(task) for task in UNRELATED), score
    # the other way round the helpers are weaker: scores by neighbours or a probe do not see them,
    # and logme sees paraphrase only
    found = ranks(demo_zoo, "nli")
    both = ("demo/paraphrase", "demo/similarity")
    claimed = {"textemb": both, "logme": both[:1], "esm": both, "hscore": both, "taskemb": both}
    for score, helpers in claimed.items():
        order = found[score]
        for helper in helpers:
            assert all(order.index(helper) < order.index(task) for task in UNRELATED), score
