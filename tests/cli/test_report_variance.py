"""``mtl.report --variance`` on a small study in which everything was crossed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_bench import mtl, refused

from mtl.report.variance import ONE, REST, ROWS, SHOTS, TWO


def test_a_crossed_study(stocked: Path) -> None:
    """Two seeds of the sources x two of the composition x two draws of 8 rows."""
    refused(mtl("report", "--suite", "mini", "--variance"), "there are none")
    said = mtl("train", "--suite", "mini", "--task", "mood", "shared", "--seeds", "1")
    assert said.code == 0, said
    line = ["compose", "--target", "same", "--suite", "mini", "--sources", "mood", "shared"]
    line += ["--without-own", "--epochs", "2", "--seeds", "0", "1", "--shots", "8"]
    for source in ("0", "1"):
        for draw in ("1", "2"):
            said = mtl(*line, "--source-seed", source, "--set", f"shot_draw={draw}")
            assert said.code == 0, said
    found = mtl("report", "--target", "mini/same", "--variance", "--json").json
    (split,) = found["variance"]
    assert (split["label"], split["runs"], split["whole"]) == ("scalearn (K=2)", 8, True)
    assert [part["name"] for part in split["parts"]] == [ONE, TWO, SHOTS, REST, ROWS]
    assert [part["levels"] for part in split["parts"][:3]] == [2, 2, 2]
    assert sum(part["share"] for part in split["parts"]) == pytest.approx(1)
    shown = mtl("report", "--target", "mini/same", "--variance").out
    assert "not every combination" not in shown
    assert ROWS in shown
