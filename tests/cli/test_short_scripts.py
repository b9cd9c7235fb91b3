"""``examples/short/``: ten lines at most, run as a stranger would, and right in what they say."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import pytest
from cli_bench import ROOT, digests, refused
from cli_bench import mtl as mtl_command

import mtl
from mtl.errors import RequestError
from mtl.zoo import open_zoo, read_predictions

SCRIPTS = ROOT / "examples/short"
MOOD = "mood/pfeiffer/seed0"


@pytest.fixture
def here(stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, where commands find the zoo of the sources."""
    monkeypatch.setenv("MTL_ZOO", str(stocked))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return stocked


def run(monkeypatch: pytest.MonkeyPatch, name: str, *argv: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *argv])
    runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")


def test_they_are_short_and_all_run_below() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    scripts = sorted(SCRIPTS.glob("*.py"))
    assert len(scripts) == 4
    for path in scripts:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 10, path
        assert f'"{path.stem}"' in tested
        assert f"examples/short/{path.name}" in lines[0]


def test_a_file_is_answered(
    here: Path, monkeypatch: pytest.MonkeyPatch, suite_folder: Path
) -> None:
    rows = [json.loads(text) for text in (suite_folder / "mood_test.jsonl").open()]
    Path("new.csv").write_text("text\n" + "".join(f"{row['text']}\n" for row in rows))
    run(monkeypatch, "predict_a_file", MOOD, "new.csv", "answers.csv")
    with Path("answers.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    entry = open_zoo().get(MOOD)
    stored = read_predictions(entry.folder)
    labels = ["sad", "happy"]
    assert [row["prediction"] for row in found] == [labels[p] for p in stored.prediction]
    for row in found:
        best = max(labels, key=lambda name: float(row[f"score_{name}"]))
        assert best == row["prediction"]


def test_mistakes_are_the_wrong_rows(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suite_folder: Path,
) -> None:
    rows = [json.loads(text) for text in (suite_folder / "mood_test.jsonl").open()]
    stored = read_predictions(open_zoo().get(MOOD).folder)
    wrong = stored.label != stored.prediction
    run(monkeypatch, "worst_mistakes", MOOD)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == min(int(wrong.sum()), 20) > 0
    texts = {row["text"] for row, bad in zip(rows, wrong, strict=True) if bad}
    assert {line.split(" | ")[1] for line in said} <= texts
    run(
        monkeypatch, "worst_mistakes", "shared/pfeiffer/seed0", "dev"
    )  # a regression has no sureness
    assert len(capsys.readouterr().out.splitlines()) == 20
    report = mtl.error_report(MOOD)
    assert report.wrong == wrong.sum()
    assert (report.split, report.notes) == ("test", ())
    with pytest.raises(RequestError, match=r"no split|no answers"):
        mtl.error_report(MOOD, "nowhere")


def test_methods_are_compared_by_dev(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "compare_by_dev", "mini/mood", "pfeiffer", "bitfit")
    said = capsys.readouterr().out.splitlines()
    assert {line.split(":")[0] for line in said} == {"pfeiffer", "bitfit"}
    means = []
    for line in said:
        method = line.split(":")[0]
        found = open_zoo().entries(task="mini/mood", method=method)
        assert line.endswith("seeds [0, 1, 2]")
        dev = [entry.manifest.metrics["dev"]["accuracy"]["value"] for entry in found]
        means.append(sum(dev) / 3)
        assert f"dev {means[-1]:.4f}" in line
    assert means == sorted(means, reverse=True)
    assert {row.task for row in mtl.results(suite="mini")} > {"mini/mood"}
    assert not mtl.results("mini/mood", where=["epochs=77"])


def test_a_model_is_sent(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    composed = mtl.compose_adapters("mini/same", max_steps=2, eval_every=1)
    run(monkeypatch, "send_the_model", composed.ref, "model.mtlzoo")
    assert capsys.readouterr().out.splitlines() == ["model.mtlzoo"]
    found = mtl.unpack("model.mtlzoo", zoo="theirs")
    assert digests(Path("theirs")) == {entry.ref: entry.digest for entry in found}
    assert [entry.digest for entry in found][-1] == composed.digest
    assert len(found) == 4
    pair = [("the cat sees a tree", "some cat")]
    theirs, ours = mtl.load(found[-1]), mtl.load(composed)
    assert theirs.predict(pair, scores=True).scores.tolist() == (
        ours.predict(pair, scores=True).scores.tolist()
    )
    with pytest.raises(RequestError, match=r"NAME\.mtlzoo"):
        mtl.pack(composed, "model.zip")
    with pytest.raises(RequestError, match="no entry"):
        mtl.pack([], "other.mtlzoo")
    with pytest.raises(RequestError, match="scorse"):
        ours.predict_file("a.csv", "b.csv", scorse=True)


def test_what_is_misspelt_is_said(here: Path) -> None:
    with pytest.raises(RequestError, match="Did you mean 'mini/mood'"):
        mtl.results("mini/moood")
    with pytest.raises(RequestError, match="Did you mean 'best-dev'"):
        mtl.results("mini/mood", pick="bestdev")
    with pytest.raises(RequestError, match=r"Did you mean 'aa'\? It reads 2 columns"):
        mtl.load("same/pfeiffer/seed0").predict([{"aa": "cat", "b": "dog"}])
    with pytest.raises(RequestError, match=r"row 1 has no 'b'\. It reads 2 columns"):
        mtl.load("same/pfeiffer/seed0").predict([{"a": "cat", "b": "dog"}, {"a": "cat"}])
    said = mtl_command("report", "--target", "mini/moood")
    refused(said, "holds no entry for --target mini/moood", "Did you mean 'mini/mood'?")
