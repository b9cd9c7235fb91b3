"""What messages about evidence and the choice of sources recommend: see ``recommended.py``.

Zoo and graph are not where commands look by themselves, so what is recommended must name both.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, entries, refused, write_spans, write_suite
from cli_bench import mtl as plain
from recommended import commands, follow, provoked, recommends

from mtl.errors import MtlError
from mtl.typed import command_line

PLACES = ("--zoo", "its-zoo", "--graph", "its-graph")


def mtl(*words: Any) -> Any:
    """A command on the zoo and the graph of the test."""
    return plain(*words, *PLACES)


def said(error: Any) -> str:
    return str(error.value)


def good(line: Any) -> Any:
    assert line.code == 0, line
    return line


@pytest.fixture(scope="session")
def four(tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A suite of four tasks, so that three are sources, and a zoo: an adapter of each, and each
    composed alone for ``same``, with evidence. Do not change them."""
    root = tmp_path_factory.mktemp("four")
    folder = write_suite(root / "mini")
    mood, suite = folder / "mood.yaml", folder / "suite.yaml"
    text = mood.read_text().replace("mini/mood", "mini/again").replace("{text}", "today {text}")
    (folder / "again.yaml").write_text(text)
    suite.write_text(suite.read_text().replace("mini/mood", "mini/mood, mini/again"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(folder))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]
        good(plain("train", "--suite", "mini", *places))
        good(plain("graph", "measure", "--targets", TARGET, "--max-steps", "2", *places))
    return folder, root / "zoo"


@pytest.fixture
def evidence(
    four: tuple[Path, Path],
    tiny: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:
    """The folder of evidence of a copy of that zoo, which :func:`mtl` uses."""
    folder, zoo = four
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTL_TASKS", str(folder))
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    shutil.copytree(zoo, tmp_path / "its-zoo")
    shutil.copytree(zoo.with_name("zoo.graph"), tmp_path / "its-graph")
    return tmp_path / "its-graph" / "evidence"


@pytest.fixture
def placed(stocked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that the tests' zoo of sources lies in, without a graph."""
    monkeypatch.chdir(tmp_path)
    stocked.rename(tmp_path / "its-zoo")
    return tmp_path


COMPOSE = ["compose", "--target", TARGET, "--sources"]
SHORT = ["--max-steps", "2"]


@recommends("cli/graph.py", "Nothing to calibrate with")
@recommends("cli/graph_text.py", "trust: not calibrated here")
@recommends("graph/table.py", "There is no evidence yet")
@recommends("graph/select.py", "adds it (measured)")
def test_a_graph_without_evidence(placed: Path) -> None:
    message = mtl("graph", "calibrate").err
    said = follow(
        provoked(message, "cli/graph.py", "Nothing to calibrate"), "--dry-run", TASK=TARGET
    )
    assert said.code == 0, said
    message = mtl("compose", "--target", TARGET, "--sources", "graph:k=1").err
    message = provoked(message, "graph/select.py", "adds it (measured)")
    assert follow(message, "--dry-run").code == 0
    message = provoked(mtl("graph", "show").out, "graph/table.py", "There is no evidence yet")
    done = follow(message, "--scores", "tfidf", TASK=TARGET)
    assert done.code == 0, done
    message = provoked(done.out, "cli/graph_text.py", "trust: not calibrated here")
    assert follow(message, "--dry-run").code == 0
    assert commands(message)[1] == ["mtl.graph", "calibrate", *PLACES]


@recommends("graph/calibrate.py", "Remove it and run")
@recommends("graph/formats.py", "makes it again")
@recommends("graph/evidence.py", "makes what the zoo can tell anew")
def test_damaged_files_of_the_graph(placed: Path) -> None:
    from mtl.graph.calibrate import read_calibration
    from mtl.graph.formats import read_graph

    folder = placed / "its-graph"
    (folder / "evidence").mkdir(parents=True)
    (folder / "graph.json").write_text('{"nodes": 1}')
    with command_line(PLACES), pytest.raises(MtlError) as error:
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
    with command_line(PLACES), pytest.raises(MtlError) as error:
        read_calibration(folder, "0" * 64)
    message = provoked(said(error), "graph/calibrate.py", "Remove it and run")
    path.unlink()
    refused(follow(message), "Nothing to calibrate")  # in this zoo there is nothing


@recommends("graph/calibrate.py", "no transfer was measured on")
@recommends("graph/calibrate.py", "Nothing to calibrate: of")
def test_a_calibration_that_lacks_one_thing_after_the_other(evidence: Path) -> None:
    """Evidence of another machine without dev scores; then transfer, then scores for it."""
    for path in evidence.iterdir():
        stored = json.loads(path.read_text())
        for item in stored["evidence"]:
            item["dev"] = None
        path.write_text(json.dumps(stored))
    message = mtl("graph", "calibrate").err
    message = provoked(message, "graph/calibrate.py", "no transfer was measured on")
    good(follow(message, *SHORT, TASK=TARGET))
    message = provoked(mtl("graph", "calibrate").err, "graph/calibrate.py", "calibrate: of")
    good(follow(message, "--scores", "tfidf", "logme", TASK=TARGET))
    assert "logme" in good(mtl("graph", "calibrate")).out


@recommends("graph/select.py", "needs a gain of every candidate")
def test_a_least_gain_where_no_gain_is_known(evidence: Path) -> None:
    shutil.rmtree(evidence)
    line = [*COMPOSE, "auto", "--min-gain", "-5", "--dry-run"]
    message = provoked(mtl(*line).err, "graph/select.py", "needs a gain of every candidate")
    for which in range(len(commands(message))):
        good(follow(message, *(SHORT if not which else []), which=which, TASK=TARGET))
    table = good(mtl(*line)).out
    assert "ranked by measured or expected transfer" in table


@recommends("graph/picture.py", "evidence to draw. Add some")
def test_a_matrix_of_nothing(evidence: Path, tmp_path: Path) -> None:
    shutil.rmtree(evidence)
    line = ["graph", "show", "--matrix", tmp_path / "matrix.png"]
    message = provoked(mtl(*line).err, "graph/picture.py", "evidence to draw. Add some")
    good(follow(message, *SHORT, TASK=TARGET))
    good(mtl(*line))
    assert (tmp_path / "matrix.png").stat().st_size > 1000


@recommends("graph/collect.py", "own adapters fit")
def test_two_own_adapters(evidence: Path) -> None:
    zoo = evidence.parents[1] / "its-zoo"
    before = {*entries(zoo)}
    line = ["--suite", "mini", "--task", "same", "--set", "reduction_factor=8", *SHORT]
    good(plain("train", *line, *PLACES[:2]))
    (second,) = {*entries(zoo)} - before
    built = mtl("graph", "build", "--json").json
    assert built["findings"] == 0
    message = provoked(built["notes"][0], "graph/collect.py", "own adapters fit")
    good(follow(message, REF=second.relative_to(zoo)))
    assert mtl("graph", "build", "--json").json["findings"] == 3


@recommends("graph/select.py", "adds it (of several sources)")
@recommends("graph/select.py", "python -m mtl.graph attribute ENTRY")
@recommends("graph/select.py", "--scores {}{}' adds it")
def test_evidence_of_a_composition_that_is_not_there(evidence: Path) -> None:
    line = [*COMPOSE, "graph:k=2,by=reliance", "--dry-run"]
    message = provoked(mtl(*line).err, "graph/select.py", "adds it (of several sources)")
    good(follow(message, *SHORT))
    good(mtl(*line))
    line = [*COMPOSE, "graph:k=2,by=attribution", "--dry-run"]
    message = provoked(mtl(*line).err, "graph/select.py", "python -m mtl.graph attribute ENTRY")
    good(follow(message, ENTRY="same/scalearn/seed0"))
    good(mtl(*line))
    line = [*COMPOSE, "graph:k=2,by=tfidf", "--dry-run"]
    message = provoked(mtl(*line).err, "graph/select.py", "--scores {}{}' adds it")
    good(follow(message))
    good(mtl(*line))


@recommends("graph/select.py", "--sources auto has no candidate")
def test_auto_without_a_candidate(evidence: Path) -> None:
    shutil.rmtree(evidence)
    for path in entries(evidence.parents[1] / "its-zoo"):
        if "/same/pfeiffer" not in str(path):
            shutil.rmtree(path)
    line = [*COMPOSE, "auto"]
    message = provoked(mtl(*line).err, "graph/select.py", "--sources auto has no candidate")
    assert "not in the zoo" in good(follow(message, TASK=TARGET)).out
    assert "--train-missing" in message
    good(mtl(*line, *SHORT, "--train-missing"))


@recommends("graph/opening.py", "its evidence is not beside it")
def test_evidence_that_cannot_be_written(evidence: Path) -> None:
    shutil.rmtree(evidence)
    evidence.write_text("")  # where a folder should be
    message = good(mtl(*COMPOSE, "mood", *SHORT)).err
    message = provoked(message, "graph/opening.py", "its evidence is not beside it")
    evidence.unlink()
    good(follow(message))
    assert len(list(evidence.iterdir())) == 4


@recommends("compose/suggest.py", "are cut into windows")
def test_a_target_that_cannot_be_scored(evidence: Path, tmp_path: Path) -> None:
    """A file outside of MTL_TASKS: only its path finds it."""
    (tmp_path / "my tasks").mkdir()
    file = write_spans(tmp_path / "my tasks")
    line = ["graph", "suggest", "--target", file, "--suite", "mini"]
    message = provoked(mtl(*line).err, "compose/suggest.py", "are cut into windows")
    done = good(follow(message, "--suite", "mini", "--sources", "mood", *SHORT))
    assert "mini/spans" in done.out
