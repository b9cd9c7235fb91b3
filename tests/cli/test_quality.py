"""Is it any good? Baselines beside every result, constant answers, losses that hardly moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_bench import digests, mtl, write_spans

from mtl.zoo import open_zoo
from mtl.zoo.quality import (
    baselines,
    beside,
    constant_of,
    cut_text,
    findings,
    hardly_moved,
    remarks,
)

LINE = ["--suite", "mini", "--task", "same", "--json"]


def train(*more: object) -> dict[str, Any]:
    said = mtl("train", *LINE, *more)
    assert said.code == 0, said
    found: dict[str, Any] = said.json["runs"][0]
    return found


def test_every_result_stands_beside_baselines(mini: Path, tmp_path: Path) -> None:
    row = train("--epochs", "1")
    assert set(row["baselines"]) == {"majority", "tfidf", "probe"}
    entry = open_zoo(mini).get(row["ref"])
    record = baselines(entry.manifest)
    assert (record["train"], record["missing"]) == (96, {})
    train_labels = [line.rpartition(",")[2] for line in _rows("same_train.csv")]
    test_labels = [line.rpartition(",")[2] for line in _rows("same_test.csv")]
    most = max(["other", "same"], key=train_labels.count)
    share = test_labels.count(most) / len(test_labels)
    assert record["scores"]["majority"]["says"] == f"always {most}"
    for split in ("dev", "test"):
        for found in record["scores"].values():
            assert set(found["splits"][split]) == {"accuracy", "f1"}
    item = beside(entry.manifest)["majority"]
    assert (item["value"], item["n"]) == (pytest.approx(share), 40)
    # the words of a mood are its label: anything that reads them is right
    mood = mtl("train", "--suite", "mini", "--task", "mood", "--epochs", "1", "--json").json
    assert mood["runs"][0]["baselines"]["tfidf"] == 1.0
    # all of it is said where people look, and is no part of what an entry is
    card = (entry.folder / "README.md").read_text()
    assert "## Beside simple baselines" in card
    assert f"always {most}" in card
    told = mtl("report", "--suite", "mini").out
    assert "baselines on test, mini/same, 96 training rows: majority " in told
    (line,) = mtl("report", "--target", "same", "--json").json["rows"]
    assert line["baselines"]["majority"] == pytest.approx(share)
    assert "baselines on test: majority" in mtl("zoo", "show", row["ref"]).out
    table = mtl("train", *LINE[:-1], "--epochs", "1").out
    assert "TF-IDF" in table.splitlines()[0]
    before = digests(mini)
    manifest = json.loads((entry.folder / "manifest.json").read_text())
    for key in ("baselines", "losses"):
        del manifest["training"][key]
    (entry.folder / "manifest.json").write_text(json.dumps(manifest))
    assert digests(mini) == before  # entries of before have none, and are the same
    assert beside(open_zoo(mini).get(row["ref"]).manifest) == {}
    assert mtl("report", "--target", "same").code == 0


def _rows(name: str) -> list[str]:
    import os

    return (Path(os.environ["MTL_TASKS"]) / name).read_text().splitlines()[1:]


def test_they_are_computed_once_for_the_same_rows(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import baselines as module

    made = []
    for name, make in dict(module._MAKERS).items():
        monkeypatch.setitem(
            module._MAKERS, name, lambda rows, make=make, name=name: made.append(name) or make(rows)
        )
    train("--max-steps", "1")
    train("--max-steps", "1", "--seeds", "1")
    assert made == ["majority", "tfidf", "probe"]
    few = train("--max-steps", "1", "--max-train-samples", "40")
    assert made == ["majority", "tfidf", "probe"] * 2  # other rows
    record = baselines(open_zoo(mini).get(few["ref"]).manifest)
    assert record["train"] == record["scores"]["probe"]["train"] == 40


def test_a_baseline_that_fails_costs_nothing_but_itself(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import baselines as module

    def broken(rows: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setitem(module._MAKERS, "probe", broken)
    row = train("--max-steps", "1")
    assert set(row["baselines"]) == {"majority", "tfidf"}
    entry = open_zoo(mini).get(row["ref"])
    assert "no room" in baselines(entry.manifest)["missing"]["probe"]
    assert "No baseline probe of mini/same" in (entry.folder / "README.md").read_text()


def test_kinds_without_a_baseline_say_why(mini: Path, suite_folder: Path, tmp_path: Path) -> None:
    said = mtl("train", "--task", write_spans(tmp_path), "--recipe", "none", "--max-steps", "1",
               "--set", "head=linear", "--json")  # fmt: skip
    assert said.code == 0, said
    entry = open_zoo(mini).get(said.json["runs"][0]["ref"])
    record = baselines(entry.manifest)
    assert record["scores"] == {}
    assert set(record["missing"]) == {"majority", "tfidf", "probe"}


def test_a_regression_and_a_joint_run_have_theirs(mini: Path) -> None:
    said = mtl("joint", "--suite", "mini", "--method", "adapter-m", "--max-steps", "1", "--json")
    assert said.code == 0, said
    rows = {row["task"]: row for row in said.json["runs"][0]["tasks"]}
    assert set(rows["mini/shared"]["baselines"]) == {"majority", "tfidf", "probe"}
    assert rows["mini/shared"]["baselines"]["majority"] == 0.0  # a mean correlates with nothing
    assert rows["mini/mood"]["baselines"]["tfidf"] == 1.0
    table = mtl("joint", "--suite", "mini", "--method", "adapter-m", "--max-steps", "1").out
    assert "majority" in table.splitlines()[0]


def test_a_constant_answer_is_called_one(mini: Path) -> None:
    """As nine SICK runs were, at 0.6367 ± 0.0000: here too, in entries of before."""
    row = train("--max-steps", "1", "--lr", "1e-9")
    entry = open_zoo(mini).get(row["ref"])
    from mtl.zoo import read_predictions

    (only,) = set(read_predictions(entry.folder).prediction.tolist())
    name = ("other", "same")[only]
    assert row["constant"] == name
    assert f"every test row got the same answer, {name}" in row["remarks"][0]
    said = mtl("train", *LINE[:-1], "--max-steps", "1", "--lr", "1e-9")
    assert (
        f"note: mini/same pfeiffer seed 0: every test row got the same answer, {name}" in said.err
    )
    assert "a higher --lr (it was 1e-09), more --max-steps (1)" in said.err
    told = f"every test row got the same answer, {name}"
    assert f"{told} (seed 0)" in mtl("report", "--target", "same").out
    assert told in mtl("zoo", "show", row["ref"]).out
    assert told in (entry.folder / "README.md").read_text()
    manifest = json.loads((entry.folder / "manifest.json").read_text())
    for key in ("baselines", "losses", "constant"):
        del manifest["training"][key]
    (entry.folder / "manifest.json").write_text(json.dumps(manifest))
    old = open_zoo(mini).get(row["ref"])
    assert constant_of(old) == name
    assert f"{told} (seed 0)" in mtl("report", "--target", "same").out


def changed(entry: Any, **training: Any) -> Any:
    from dataclasses import replace

    return replace(entry.manifest, training={**entry.manifest.training, **training})


def test_what_is_said_of_which_result(mini: Path) -> None:
    entry = open_zoo(mini).get(train("--epochs", "1")["ref"])
    manifest = entry.manifest

    def having(value: float, majority: float, probe: float, least: float) -> Any:
        def score(v: float) -> Any:
            item = {"value": v, "stderr": 0.02, "n": 40, "caveat": None}
            return {"train": 96, "says": "always same", "splits": {"test": {"accuracy": item}}}

        scores = {"majority": score(majority), "probe": score(probe)}
        record = {"train": 96, "seconds": 1.0, "scores": scores, "missing": {}}
        found = changed(
            entry,
            baselines={"mini/same": record},
            constant=None,
            losses={"constant": 0.69, "least": least},
        )
        item = {"value": value, "stderr": 0.02, "n": 40, "caveat": None}
        object.__setattr__(found, "metrics", {**manifest.metrics, "test": {"accuracy": item}})
        return found

    assert findings(having(0.8, 0.5, 0.79, 0.3)) == {}
    assert remarks(having(0.8, 0.5, 0.79, 0.3)) == []
    assert set(findings(having(0.51, 0.5, 0.5, 0.3))) == {"majority"}
    assert set(findings(having(0.53, 0.5, 0.5, 0.3))) == set()  # more than its standard error
    assert set(findings(having(0.6, 0.5, 0.8, 0.3))) == {"probe"}
    assert set(findings(having(0.6, 0.5, 0.61, 0.3))) == set()
    assert set(findings(having(0.8, 0.5, 0.5, 0.68))) == {"losses"}
    assert set(findings(having(0.96, 0.5, 0.5, 0.68))) == set()  # all is learned, in small scores
    assert hardly_moved(having(0.8, 0.5, 0.5, 0.63)) is not None
    assert hardly_moved(having(0.8, 0.5, 0.5, 0.61)) is None  # a tenth of 0.69 below it
    (said,) = remarks(having(0.51, 0.5, 0.5, 0.3))
    assert "always same: 0.5000" in said
    # a tiny encoder at a rate below that of recipe small is told of it
    assert "a higher --lr (it was 0.003), more --epochs (1)" in said
    object.__setattr__(manifest, "run_settings", {**manifest.run_settings, "lr": 3e-4})
    slow = having(0.51, 0.5, 0.5, 0.3)
    object.__setattr__(slow, "run_settings", {**manifest.run_settings, "lr": 3e-4})
    assert "or --recipe small (lr 0.003)" in remarks(slow)[-1]


def _least_loss(spec: Any, labels: Any, weights: Any) -> float:
    """What gradient descent on one vector of logits, the same for all rows, finds."""
    import torch

    from mtl.tasks import task_loss

    logits = torch.zeros(1, 2, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=100)

    def closure() -> Any:
        optimiser.zero_grad()
        loss = task_loss(spec, logits.expand(len(labels), 2), labels, weights)
        loss.backward()
        return loss

    optimiser.step(closure)
    return float(closure().detach())


def test_the_loss_of_an_answer_that_ignores_the_text() -> None:
    import torch
    from task_bench import spec_of

    from mtl.runs.standing import constant_loss, losses
    from mtl.tasks.class_weights import class_weights

    rng = np.random.default_rng(0)
    classes = spec_of()
    labels = rng.choice(2, size=200, p=[0.8, 0.2])
    several = spec_of(kind="multilabel", metrics=("macro_f1",))
    sets = (rng.random((200, 2)) < [0.1, 0.6]).astype(np.float32)
    for spec, given in ((classes, labels), (several, sets)):
        for weights in (None, class_weights(spec, given)):
            w = None if weights is None else torch.from_numpy(weights)
            least = _least_loss(spec, torch.from_numpy(given), w)
            assert constant_loss(spec, given, weights) == pytest.approx(least, abs=1e-4)
    number = spec_of(kind="regression", labels=(), metrics=("pearson",))
    assert constant_loss(number, np.array([0.0, 4.0]), None) == 4.0
    events = [{"train_loss": 0.9, "dev_loss": 0.7}, {"train_loss": 0.6, "dev_loss": None}]
    assert losses(classes, np.array([0, 1]), None, events) == {
        "constant": pytest.approx(np.log(2)),
        "least": 0.6,
    }
    assert losses(classes, np.array([0, 1]), None, []) is None


def test_a_rate_made_for_larger_encoders_is_told_before_and_while_it_runs(
    mini: Path, tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTL_QUIET")
    line = ["--suite", "mini", "--task", "same", "--max-steps", "1"]
    for more in (["--dry-run"], []):
        said = mtl("train", *line, "--recipe", "scalearn", *more)
        assert said.code == 0, said
        assert "pfeiffer trains at lr 0.0003, made for roberta-base (hidden size 768)" in said.err
        assert "hidden size 48: --recipe small trains it at 0.003" in said.err
    for quiet in (
        ["--recipe", "scalearn", "--lr", "1e-3"],
        ["--recipe", "small"],
        [],  # the suite's own
    ):
        said = mtl("train", *line, *quiet, "--dry-run")
        assert said.code == 0, said
        assert "made for" not in said.err
    said = mtl("train", *line, "--recipe", "none", "--method", "bitfit", "--dry-run")
    assert "if the loss hardly moves, give a higher --lr" in said.err
    assert mtl("train", *line, "--recipe", "small").code == 0


def test_texts_that_were_cut_are_said(mini: Path) -> None:
    row = train("--epochs", "1", "--max-length", "8")
    manifest = open_zoo(mini).get(row["ref"]).manifest
    counts = manifest.training["cut"]["mini/same"]
    assert {split: (item["of"], item["tokens"]) for split, item in counts.items()} == {
        split: (manifest.data["sizes"][split], 8) for split in ("train", "dev", "test")
    }
    said = "96 of 96 train, 32 of 32 dev, 40 of 40 test texts were cut at 8 tokens"
    assert said in row["remarks"][0]
    assert "try a higher --lr" not in row["remarks"][0]
    assert said in mtl("zoo", "show", row["ref"]).out
    assert said in mtl("report", "--target", "same").out
    few = dict(counts, train={**counts["train"], "texts": 9}, test={**counts["test"], "texts": 4})
    training = {**manifest.training, "cut": {"mini/same": few}}
    text = cut_text(replace(manifest, training=training))
    assert text is not None
    assert text.startswith("32 of 32 dev, 4 of 40 test texts")
    strange: list[Any] = [None, [], {"mini/same": 3}, {"mini/same": {"train": {"texts": "a"}}}]
    for cut in strange:
        assert cut_text(replace(manifest, training={**manifest.training, "cut": cut})) is None
    assert "cut" not in open_zoo(mini).get(train("--epochs", "1")["ref"]).manifest.training
