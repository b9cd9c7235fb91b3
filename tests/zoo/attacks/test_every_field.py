"""Every field of every stored file, replaced by values of other types: no reader ever breaks.

What a reader takes it uses; what it does not take is one message. All mutations of a kind of file
lie beside each other, so that a command reads hundreds of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_fuzzing import changed, places
from zoo_bench import composition, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import ZooError
from mtl.graph.calibrate import Calibration, Trust, read_calibration, trust_text, write_calibration
from mtl.zoo import Zoo, open_zoo
from mtl.zoo.caveats import error_text

VALUES = [None, True, 7, -1, 1.5, 1e300, "x", "", [], ["x"], [[]], {}, {"x": 1}, {"ref": 1}, ...]
BASE = "ab" * 32


def mutations(good: Any, values: list[Any] = VALUES) -> Iterator[tuple[str, Any]]:
    """Every place of ``good`` with every value; ``...`` takes the key away."""
    for path in places(good):
        for value in values:
            yield f"{path} = {value}", changed(good, path, value)


def run(command: str, *argv: object) -> None:
    """A command ends with an exit code of ours; what is no error of ours fails the test."""
    assert dispatch(command, [str(item) for item in argv]) in {0, 1, 2}


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def test_calibration(tmp_path: Path) -> None:
    trust = Trust(
        "logme", 3, 9, 0.5, 0.1, 0.9, {"1": (0.1, 0.0, 0.2), "3": (0.0, None, None)}, 1.0, 0.0,
        0.1, "targets",
    )  # fmt: skip
    scores, random = {"logme": trust}, {"1": 0.2, "3": 0.1}
    path = write_calibration(
        tmp_path, Calibration(BASE, "scalearn", scores, random, {"knn": "no"}, ["toy/own"])
    )
    good = json.loads(path.read_text())
    assert read_calibration(tmp_path, BASE) is not None
    taken, refused = 0, []
    for _, value in mutations(good):
        path.write_text(json.dumps(value))
        try:
            found = read_calibration(tmp_path, BASE)
        except ZooError as error:
            refused.append(str(error))
            continue
        assert found is not None
        taken += 1
        best = found.best()
        assert isinstance(trust_text(best), str)
        assert all(item.verdict for item in found.scores.values())
        from mtl.cli.graph_text import calibration_text

        assert calibration_text(found)
        assert json.dumps(found.to_dict())
    assert taken  # of numbers, other numbers
    assert all("Remove it and run python -m mtl.graph calibrate" in said for said in refused)


def test_results_and_events_of_run_folders(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtl.engine.folder import RunFolder

    entry = store(zoo, manifest())
    runs = tmp_path / "runs"
    good = {"ref": entry.ref, "digest": entry.digest, "metrics": entry.manifest.metrics}
    texts = [json.dumps(value) for _, value in mutations(good)]
    texts += [json.dumps(value) for value in VALUES if value is not ...]
    texts += ["", "{", "[" * 100_000, '{"digest": NaN}', "\ud800".encode("utf-8", "surrogatepass")]  # type: ignore[list-item]
    for number, text in enumerate(texts):
        folder = runs / f"{number:064x}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    run("zoo", "gc", "--what", "runs", "--runs", runs, "--zoo", zoo.root)
    run("zoo", "gc", "--what", "runs", "--runs", runs, "--zoo", zoo.root, "--yes", "--json")
    left = {path.name for path in runs.iterdir()}
    assert f"{len(texts) - 1:064x}" in left  # damaged: for a person to look at
    folder = RunFolder(tmp_path / "one")
    folder.add_event({"step": 1, "metrics": {"accuracy": 0.5}})
    good_line = folder.read_events()[0]
    lines = [json.dumps(value) for _, value in mutations(good_line)]
    lines += [json.dumps(value) for value in VALUES if value is not ...] + ["{", "[" * 100_000]
    with folder.events.open("a") as stream:
        stream.write("\n".join(lines) + "\n")
    with folder.events.open("ab") as binary:
        binary.write(b"\xff\xfe\n")
    found = folder.read_events()
    assert found[0] == good_line
    assert all(type(event["step"]) is int for event in found)
    folder.keep_events(1)
    assert good_line in folder.read_events()
    capsys.readouterr()


def test_the_index(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mtl.zoo.summary as summary

    monkeypatch.setattr(summary, "WORTH_WRITING", 1)
    one = store(zoo, manifest(task=task("a")))
    composition(zoo, [one], np.ones((1, 1, 4), np.float32), runhash="22" * 8)
    expected = open_zoo(zoo.root).summaries()
    folder = summary.index_folder()
    assert folder is not None
    (path,) = [p for p in folder.glob("*.json") if str(zoo.root) in p.read_text()]
    good = json.loads(path.read_text())
    assert [s.ref for s in open_zoo(zoo.root).summaries()] == [s.ref for s in expected]
    kept = [True, 7, "x", [], {}]
    for what, value in [*mutations(good, [None, *kept, ...]), *((str(v), v) for v in kept)]:
        path.write_text(json.dumps(value))
        found = open_zoo(zoo.root).summaries()
        assert len(found) == 2, what
        assert all(
            isinstance(error_text(vars(item)), str) and item.covers("x") < 2 for item in found
        )
    for value in ({"root": 7}, {"root": "\0"}, [], 7):
        path.write_text(json.dumps(value))
        run("zoo", "gc", "--what", "zoo", "--zoo", zoo.root)
    path.write_bytes(b"[" * 100_000)
    run("zoo", "ls", "--zoo", zoo.root)
    run("zoo", "gc", "--what", "zoo", "--zoo", zoo.root)
    capsys.readouterr()
