"""Values that say less than they seem, in every table and its JSON; of old entries, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import composition, fill, manifest, predictions, store, task

from mtl.cli.main import dispatch
from mtl.errors import ZooError
from mtl.report import mean_interval, results
from mtl.report.stats import interval_text
from mtl.zoo import Entry, Manifest, Zoo, open_zoo
from mtl.zoo.card import card
from mtl.zoo.caveats import caveats, headline, stated

ALL = "all labels are 'yes'"
CERTAIN = {"value": 1.0, "stderr": 0.0, "n": 4}
STATED = {"value": 0.0, "stderr": None, "n": 4, "caveat": "undefined: all predictions are 'no'"}


def one_class(zoo: Zoo, **changes: Any) -> Entry:
    """An entry of before there were caveats: a test of one class, answered rightly."""
    described = manifest(metrics={"test": {"accuracy": CERTAIN}}, **changes)
    ref = zoo.location(
        "tiny-abababab",
        "toy",
        described.task["name"],
        "pfeiffer",
        described.seed,
        described.runhash,
    )
    with zoo.stage(ref) as folder:
        fill(folder)
        predictions(folder, [1, 1, 1, 1], (1, 1, 1, 1))
        return zoo.commit(folder, ref, described)


def said(capsys: pytest.CaptureFixture[str], command: str, *argv: object) -> str:
    assert dispatch(command, [str(item) for item in argv]) == 0
    return capsys.readouterr().out


def test_an_old_entry_is_marked_and_stays_what_it_is(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = one_class(zoo)
    before = (entry.folder / "manifest.json").read_bytes()
    assert stated(entry, "test", "accuracy") == {**CERTAIN, "stderr": None, "caveat": ALL}
    assert headline(entry) == stated(entry, "test", "accuracy")
    assert caveats(entry) == {"test accuracy": ALL}
    at = ["--zoo", zoo.root]
    for command, argv in (("zoo", ["ls"]), ("zoo", ["show", entry.ref]), ("report", [])):
        text = said(capsys, command, *argv, *at)
        assert ALL in text
        assert "?" in text
        assert "1.0000 ± 0.0000" not in text
    (row,) = json.loads(said(capsys, "zoo", "ls", "--json", *at))["entries"]
    assert (row["test"], row["stderr"], row["caveat"]) == (1.0, None, ALL)
    shown = json.loads(said(capsys, "zoo", "show", entry.ref, "--json", *at))
    assert shown["caveats"] == {"test accuracy": ALL}
    assert shown["digest"] == entry.digest
    (line,) = json.loads(said(capsys, "report", "--json", *at))["rows"]
    assert line["caveats"] == [f"{ALL} (seed 0)"]
    assert line["test"]["caveat"] == "one seed has no interval"
    assert (entry.folder / "manifest.json").read_bytes() == before
    assert open_zoo(zoo.root).fsck() == []


def test_what_an_old_entry_cannot_say_is_left_as_it_is(zoo: Zoo) -> None:
    sound = store(zoo, manifest())
    assert stated(sound, "test", "accuracy") == {
        "value": 0.5,
        "stderr": 0.25,
        "n": 4,
        "caveat": None,
    }
    assert caveats(sound) == {}
    entry = one_class(zoo, runhash="22" * 8)
    (entry.folder / "predictions.safetensors").write_bytes(b"no")
    assert stated(entry, "test", "accuracy") == {
        **CERTAIN,
        "stderr": None,
        "caveat": "all 4 examples count alike: no standard error",
    }
    assert stated(entry, "test", "f1") is None


def test_what_is_stated_stands_in_tables(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"test": {"accuracy": STATED}, "dev": {"accuracy": {**STATED, "caveat": None}}}
    one = store(zoo, manifest(metrics=metrics))
    two = store(zoo, manifest(metrics=metrics, seed=1, runhash="22" * 8), 2.0)
    assert (one.digest, headline(one)) == (zoo.get(one.digest).digest, STATED)
    text = card(one.manifest)
    assert "| test | accuracy | 0.0000 ? | – | – | 4 |" in text
    assert "- ? test accuracy: undefined: all predictions are 'no'" in text
    assert "model-index" not in text or "value: 0.0" not in text.partition("dev")[0]
    at = ["--zoo", zoo.root]
    found = said(capsys, "zoo", "diff", one.ref, two.ref, *at)
    assert "? test.accuracy: undefined" in found
    compared = json.loads(said(capsys, "zoo", "diff", one.ref, two.ref, "--json", *at))["metrics"]
    assert compared["test.accuracy"]["caveat"] == STATED["caveat"]
    (row,) = results(zoo.entries())
    assert row.caveats == [f"{STATED['caveat']} (seed 0, 1)"]
    report = said(capsys, "report", *at)
    assert "0.0000? ± –" in report  # two seeds that collapsed alike are no narrow interval
    assert "? accuracy of toy/own, pfeiffer: undefined" in report


def test_the_graph_says_of_a_difference_what_its_scores_say(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store(zoo, manifest(task=task("helper")))
    store(zoo, manifest(metrics={"test": {"accuracy": STATED}}))
    better = {"test": {"accuracy": {"value": 0.75, "stderr": 0.2, "n": 4, "caveat": None}}}
    composition(zoo, [source], np.ones((1, 1, 4), np.float32), runhash="22" * 8, metrics=better)
    at = ["--zoo", zoo.root, "--graph", tmp_path / "graph"]
    said(capsys, "graph", "build", *at)
    shown = said(capsys, "graph", "show", *at)
    assert "+0.7500?" in shown
    why = f"toy/helper → toy/own: pfeiffer: {STATED['caveat']}"
    assert why in shown


def test_an_interval_of_one_value_or_of_equal_ones() -> None:
    assert interval_text(mean_interval([0.5])) == "0.5000 ± –"
    assert interval_text(mean_interval([0.5, 0.5, 0.5])) == "0.5000 ± –"
    assert mean_interval([0.1 + 0.2, 0.3]).caveat == "all 2 seeds gave one value"
    assert mean_interval([0.5, 0.6]).caveat is None
    assert interval_text(mean_interval([0.5, 0.6]), sign=True, mark="?").startswith(
        "+0.5500? ± 0.6"
    )


@pytest.mark.parametrize("wrong", [1, True, ["x"], {}])
def test_a_caveat_is_text(wrong: Any) -> None:
    value = manifest().to_dict()
    value["metrics"]["test"]["accuracy"]["caveat"] = wrong
    said = r"manifest\.metrics\.test\.accuracy\.caveat: should be a valid string, found"
    with pytest.raises(ZooError, match=said):
        Manifest.from_dict(value)
