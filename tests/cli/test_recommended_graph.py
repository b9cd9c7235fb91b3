"""What messages about evidence and the choice of sources recommend: see ``recommended.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, mtl, refused
from recommended import commands, follow, provoked, recommends

from mtl.errors import MtlError


def said(error: Any) -> str:
    return str(error.value)


@recommends("cli/graph.py", "Nothing to calibrate with")
@recommends("cli/graph_text.py", "trust: not calibrated here")
@recommends("graph/table.py", "There is no evidence yet")
@recommends("graph/select.py", "(or suggest) adds it")
def test_a_graph_without_evidence(stocked: Path) -> None:
    message = mtl("graph", "calibrate").err
    said = follow(
        provoked(message, "cli/graph.py", "Nothing to calibrate"), "--dry-run", TASK=TARGET
    )
    assert said.code == 0, said
    message = mtl("compose", "--target", TARGET, "--sources", "graph:k=1").err
    message = provoked(message, "graph/select.py", "(or suggest) adds it")
    assert follow(message, "--dry-run").code == 0
    message = provoked(mtl("graph", "show").out, "graph/table.py", "There is no evidence yet")
    done = follow(message, "--scores", "tfidf", TASK=TARGET)
    assert done.code == 0, done
    message = provoked(done.out, "cli/graph_text.py", "trust: not calibrated here")
    assert follow(message, "--dry-run").code == 0
    assert commands(message)[1] == ["mtl.graph", "calibrate"]


@recommends("graph/calibrate.py", "Remove it and run")
@recommends("graph/formats.py", "makes it again")
@recommends("graph/evidence.py", "makes what the zoo can tell anew")
def test_damaged_files_of_the_graph(stocked: Path, tmp_path: Path) -> None:
    from mtl.graph.calibrate import read_calibration
    from mtl.graph.formats import read_graph

    folder = tmp_path / "zoo.graph"
    (folder / "evidence").mkdir(parents=True)
    (folder / "graph.json").write_text('{"nodes": 1}')
    with pytest.raises(MtlError) as error:
        read_graph(folder / "graph.json")
    assert follow(provoked(said(error), "graph/formats.py", "makes it again")).code == 0
    bad = folder / "evidence" / "compose-0123456789abcdef.json"
    bad.write_text('{"schema_version": 99, "run": "x", "evidence": []}')
    shown = mtl("graph", "show")
    message = provoked(shown.out + shown.err, "graph/evidence.py", "makes what the zoo can tell")
    bad.unlink()
    assert follow(message, which=-1).code == 0
    path = next(iter(folder.glob("calibration-*")), folder / f"calibration-dev-{'0' * 16}.json")
    path.write_text("{}")
    with pytest.raises(MtlError) as error:
        read_calibration(folder, "0" * 64)
    message = provoked(said(error), "graph/calibrate.py", "Remove it and run")
    path.unlink()
    refused(follow(message), "Nothing to calibrate")  # in this zoo there is nothing
