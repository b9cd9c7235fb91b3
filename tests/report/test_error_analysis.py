"""What an entry gets wrong: counted by hand, on every kind of task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from zoo_bench import fill, manifest, predictions

from mtl.cli.main import dispatch
from mtl.errors import RequestError, ZooError
from mtl.report import error_report, own_adapter, render_errors
from mtl.report.error_parts import calibrate
from mtl.report.errors import answered
from mtl.report.errors_page import write_page
from mtl.report.errors_text import picture
from mtl.zoo import Entry, Zoo, open_zoo, write_predictions


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def task(kind: str, labels: Sequence[str] = (), outputs: int | None = None) -> dict[str, Any]:
    return {
        **manifest().task,
        "kind": kind,
        "labels": list(labels),
        "num_outputs": outputs or max(1, len(labels)),
    }


def put(
    zoo: Zoo, label: Any, answer: Any, scores: Any, *, split: str = "test", **changes: Any
) -> Entry:
    """An entry with these answers."""
    described = manifest(**changes)
    ref = zoo.location(
        "tiny-abababab", "toy", "own", described.method, described.seed, described.runhash
    )
    with zoo.stage(ref) as folder:
        fill(folder)
        name = "predictions.safetensors" if split == "test" else f"predictions-{split}.safetensors"
        write_predictions(folder, name, np.arange(len(label)), label, answer, scores)
        return zoo.commit(folder, ref, described)


LABEL = [0, 0, 0, 1, 1, 2, 2, 2]
ANSWER = [0, 1, 1, 1, 0, 2, 2, 1]


def logits(answer: Sequence[int], width: int, sure: Sequence[float]) -> np.ndarray:
    """Scores whose softmax gives the answer this probability."""
    scores = np.zeros((len(answer), width), np.float32)
    for row, (place, p) in enumerate(zip(answer, sure, strict=True)):
        scores[row, place] = np.log(p / (1 - p) * (width - 1))
    return scores


SURE = [0.91, 0.81, 0.96, 0.71, 0.61, 0.99, 0.51, 0.86]


@pytest.fixture
def three(zoo: Zoo) -> Entry:
    return put(zoo, LABEL, ANSWER, logits(ANSWER, 4, SURE), task=task("classification", "abcd", 4))


def test_classes_by_hand(three: Entry) -> None:
    found = error_report(three)
    assert (found.n, found.wrong) == (8, 4)
    rows = {row.label: row for row in found.classes}
    assert (rows["a"].n, rows["a"].predicted) == (3, 2)
    assert (rows["a"].precision, rows["a"].recall) == (pytest.approx(1 / 2), pytest.approx(1 / 3))
    assert rows["b"].precision == pytest.approx(1 / 4)
    assert (rows["c"].precision, rows["c"].recall) == (1.0, pytest.approx(2 / 3))
    assert rows["d"].precision is rows["d"].recall is rows["d"].f1 is None  # no row, no answer
    assert found.macro["recall"] == pytest.approx((1 / 3 + 1 / 2 + 2 / 3) / 3)
    assert found.confusion is not None
    expected = [[1, 2, 0, 0], [1, 1, 0, 0], [0, 1, 2, 0], [0] * 4]
    assert np.array_equal(found.confusion.matrix, expected)
    assert [(p.label, p.predicted, p.n) for p in found.pairs] == [
        ("a", "b", 2),
        ("b", "a", 1),  # half of its rows, of c a third
        ("c", "b", 1),
    ]
    assert found.pairs[0].share == pytest.approx(2 / 3)
    assert [m.row for m in found.mistakes] == [2, 7, 1, 4]  # the surest first
    assert found.mistakes[0].confidence == pytest.approx(0.96, abs=1e-6)
    assert (found.mistakes[0].label, found.mistakes[0].predicted) == ("a", "b")
    assert json.loads(json.dumps(found.to_dict()))["classes"][3]["f1"] is None


def test_texts_are_those_of_the_row(three: Entry) -> None:
    texts = [[f"first {row}" for row in range(8)], [f"second {row}" for row in range(8)]]
    found = error_report(three, texts=texts, top=2)
    assert [m.texts for m in found.mistakes] == [("first 2", "second 2"), ("first 7", "second 7")]
    assert "second 7" in render_errors(found)
    with pytest.raises(ZooError, match="answers rows that its split test has not"):
        error_report(three, texts=[texts[0][:5]])


def test_calibration_by_hand(three: Entry) -> None:
    found = error_report(three).calibration
    assert found is not None
    right = np.array([1, 0, 0, 1, 0, 1, 1, 0])
    assert found.confidence == pytest.approx(np.mean(SURE), abs=1e-6)
    assert found.right == 0.5
    bins = np.ceil(np.array(SURE) * 10 - 1e-6)
    by = [
        (bins == b).sum() * abs(right[bins == b].mean() - np.array(SURE)[bins == b].mean())
        for b in np.unique(bins)
    ]
    assert found.ece == pytest.approx(sum(by) / 8, abs=1e-6)
    perfect = calibrate(np.full(1000, 0.75), np.arange(1000) % 4 != 0)
    assert perfect is not None
    assert perfect.ece == pytest.approx(0)
    assert calibrate(np.array([np.nan]), np.array([True])) is None
    edges = calibrate(np.array([0.0, 1.0, 0.1, 0.100001]), np.ones(4, bool))
    assert edges is not None
    assert [(b.low, b.n) for b in edges.bins] == [(0.0, 2), (0.1, 1), (0.9, 1)]


def test_what_a_composition_mends_and_breaks(zoo: Zoo, three: Entry) -> None:
    better = [0, 0, 1, 1, 1, 2, 1, 2]  # mends rows 1, 4 and 7, breaks row 6
    entry = put(
        zoo,
        LABEL,
        better,
        logits(better, 4, [0.6] * 8),
        task=task("classification", "abcd", 4),
        method="houlsby",
    )
    found = error_report(entry, against=three).compared
    assert found is not None
    assert (found.mended, found.broken, found.same) == (3, 1, (3, 1))
    assert found.p == pytest.approx(0.625)  # 2 · (C(4,0) + C(4,1)) / 2⁴
    assert [m.row for m in found.mends] == [7, 1, 4]  # the other's surest mistakes first
    assert found.mends[0].predicted == "b"
    assert [(m.row, m.label, m.predicted) for m in found.breaks] == [(6, "c", "b")]
    same = error_report(three, against=three).compared
    assert same is not None
    assert (same.mended, same.broken, same.p) == (0, 0, None)
    text = render_errors(error_report(entry, against=three))
    assert "mends 3 and breaks 1 (+2)" in text
    assert "p = 0.625" in text


def test_rows_that_cannot_be_compared(zoo: Zoo, three: Entry) -> None:
    described: dict[str, Any] = {"task": task("classification", "abcd", 4), "method": "houlsby"}
    fewer = put(zoo, LABEL[:5], ANSWER[:5], logits(ANSWER[:5], 4, SURE[:5]), **described)
    with pytest.raises(RequestError, match="cannot be compared row by row"):
        error_report(three, against=fewer)


def test_the_own_adapter_is_found_or_named(zoo: Zoo, three: Entry) -> None:
    def composed(parent: Entry, seed: int, number: int) -> Entry:
        parents = [
            {
                "ref": parent.ref,
                "digest": parent.digest,
                "task": "toy/own",
                "method": parent.manifest.method,
                "seed": parent.manifest.seed,
            }
        ]
        described = manifest(
            kind="composition",
            method="average",
            placement=None,
            seed=seed,
            parents=parents,
            runhash=f"{number:08x}" * 2,
            task=three.manifest.task,
        )
        ref = zoo.location("tiny-abababab", "toy", "own", "average", seed, described.runhash)
        with zoo.stage(ref) as folder:
            write_predictions(
                folder, "predictions.safetensors", np.arange(8), LABEL, LABEL, np.eye(4)[LABEL]
            )
            return zoo.commit(folder, ref, described)

    newer = put(
        zoo,
        LABEL,
        ANSWER,
        logits(ANSWER, 4, SURE),
        task=three.manifest.task,
        runhash="5" * 16,
        created="2026-02-01T00:00:00+00:00",
    )
    entry = composed(three, 0, 1)
    assert own_adapter(entry, zoo) == three  # its source goes before the newer one
    assert own_adapter(composed(newer, 0, 2), zoo) == newer
    missing = own_adapter(composed(three, 3, 3), zoo)
    assert isinstance(missing, str)
    assert "no own adapter of toy/own (pfeiffer) with seed 3" in missing


def test_regression(zoo: Zoo) -> None:
    label, answer = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.5, 1.0, 4.0, 2.0, 4.25])
    near = put(
        zoo, label, answer, answer[:, None], task={**task("regression"), "headline": "pearson"}
    )
    found = error_report(near)
    assert found.wrong is None
    assert found.residuals is not None
    assert found.residuals.mae == pytest.approx(3.75 / 5)
    assert found.residuals.bias == pytest.approx(1.75 / 5)
    assert found.residuals.rmse == pytest.approx(np.sqrt((0.25 + 4 + 1 + 0.0625) / 5))
    assert found.residuals.mean_mae == pytest.approx(6 / 5)
    assert sum(r.n for r in found.residuals.ranges) == 5
    assert [(m.row, m.difference) for m in found.mistakes] == [
        (2, 2.0), (3, -1.0), (0, 0.5), (4, 0.25),
    ]  # fmt: skip
    flat = np.full(5, 2.0)
    other = put(zoo, label, flat, flat[:, None], task=near.manifest.task, method="houlsby")
    compared = error_report(near, against=other).compared
    assert compared is not None
    assert (compared.mended, compared.broken, compared.same) == (3, 1, (1, 0))
    assert compared.test == "sign test"
    assert "is closer on 3" in render_errors(error_report(near, against=other))
    assert picture(found, answered(near)).startswith(b"\x89PNG")


def test_multilabel(zoo: Zoo) -> None:
    label = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], np.float32)
    scores = np.array([[2.0, -1, -3], [1.5, 1, -1], [-2, -2, -2]], np.float32)
    entry = put(zoo, label, (scores > 0).astype(int), scores, task=task("multilabel", "xyz"))
    found = error_report(entry)
    assert (found.n, found.wrong) == (3, 2)
    assert [(row.label, row.n, row.predicted) for row in found.classes] == [
        ("x", 1, 2), ("y", 1, 1), ("z", 1, 0),
    ]  # fmt: skip
    assert (found.classes[0].precision, found.classes[2].recall) == (0.5, 0.0)
    assert [m.row for m in found.mistakes] == [0, 1]  # −3 is the surest wrong decision
    assert found.mistakes[0].label == ["x", "z"]
    assert found.mistakes[0].predicted == ["x"]
    assert found.mistakes[0].confidence == pytest.approx(1 / (1 + np.exp(-3)))
    assert found.confusion is None
    assert picture(found, answered(entry)).startswith(b"\x89PNG")
    assert "all of its labels" in render_errors(found)


def test_choices_candidates_and_spans(zoo: Zoo, tmp_path: Path) -> None:
    choice = put(
        zoo, [0, 1], [1, 1], [[0.0, 2.0], [0.0, 1.0]], task=task("multiple_choice", "AB", 1)
    )
    assert error_report(choice).wrong == 1
    assert error_report(choice).calibration is not None
    candidate = put(
        zoo,
        [1, 0, 0],
        [0, 1, 0],
        [[0.0, 1.0], [0.0, 2.0], [0.0, 0.0]],
        task=task("candidates", ["wrong", "right"]),
        method="houlsby",
    )
    found = error_report(candidate)
    assert found.calibration is None
    assert "not calibrated by row" in render_errors(found)
    span = put(
        zoo,
        [[0, 3], [4, 7]],
        [[0, 3], [0, 3]],
        [[5.0], [2.0]],
        task=task("span_extraction", outputs=2),
        method="parallel",
    )
    found = error_report(span, texts=[["who?", "who?"], ["the cat", "the dog"]])
    assert (found.wrong, found.mistakes[0].label, found.mistakes[0].predicted) == (1, "dog", "the")
    assert found.mistakes[0].confidence == 2.0
    assert error_report(span).mistakes[0].label == [4, 7]
    with pytest.raises(RequestError, match="nothing to draw of spans"):
        picture(found, answered(span))
    write_page(found, answered(span), tmp_path / "span.html")
    assert "nothing to draw of spans" in (tmp_path / "span.html").read_text()


def test_dev_and_splits_that_are_not_stored(zoo: Zoo, three: Entry, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no answers on the split 'dev'.* of test \(--split\)"):
        error_report(three, "dev")
    described = manifest(method="houlsby")
    ref = zoo.location("tiny-abababab", "toy", "own", "houlsby", 0, described.runhash)
    with zoo.stage(ref) as folder:
        fill(folder)
        right = [1, 0, 1, 1]
        write_predictions(
            folder, "predictions-dev.safetensors", range(4), right, right, np.eye(2)[right]
        )
        entry = zoo.commit(folder, ref, described)
    assert (error_report(entry, "dev").wrong, error_report(entry).wrong) == (0, 1)


def test_seventy_seven_classes_stay_readable(zoo: Zoo, tmp_path: Path) -> None:
    names = [f"intent {number}" for number in range(77)]
    rng = np.random.default_rng(0)
    label = rng.integers(0, 77, 2000)
    scores = rng.normal(0, 1.2, (2000, 77)).astype(np.float32)
    scores[np.arange(2000), label] += 3
    answer = scores.argmax(axis=1)
    entry = put(zoo, label, answer, scores, task=task("classification", names))
    found = error_report(entry)
    text = render_errors(found)
    assert len(text.splitlines()) < 80
    assert max(map(len, text.splitlines())) < 160
    assert "The 20 of 77 with the lowest F1" in text
    assert len(found.to_dict()["classes"]) == 77
    write_page(found, answered(entry), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert all(f"<td>{name}</td>" in page for name in names)
    assert "data:image/png;base64," in page


def test_strings_of_strangers_are_only_text(zoo: Zoo, tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>", "\x1b[2J$\\frac{"]
    entry = put(zoo, [0, 1], [1, 0], [[0.0, 1], [1, 0]], task=task("classification", evil))
    found = error_report(entry, texts=[["<img src=x>", "\x1b[31m"]])
    assert "\x1b" not in render_errors(found)
    write_page(found, answered(entry), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    ("label", "answer"), [([0, 5], [0, 0]), ([0, 0], [0, -1]), ([0.0, 1.0], [0.0, 1.0])]
)
def test_answers_that_are_none(zoo: Zoo, label: Any, answer: Any) -> None:
    entry = put(zoo, label, answer, np.zeros((2, 2)), task=task("classification", "ab"))
    with pytest.raises(ZooError, match="none of the 2 classes"):
        error_report(entry)


def test_scores_that_are_no_numbers(zoo: Zoo) -> None:
    scores = np.full((2, 2), np.nan, np.float32)
    entry = put(zoo, [0, 1], [1, 1], scores, task=task("classification", "ab"))
    found = error_report(entry)
    assert found.calibration is None
    assert found.mistakes[0].confidence is None
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_the_command(
    zoo: Zoo, three: Entry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"png": str(tmp_path / "a.png"), "html": str(tmp_path / "a.html")}
    line = ["--errors", three.ref, "--png", files["png"], "--html", files["html"], "--top", "2"]
    assert dispatch("report", [*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["written"] == files
    assert len(found["mistakes"]) == 2
    assert "without their texts" in found["notes"][-1]  # nobody here knows the task
    assert Path(files["png"]).read_bytes().startswith(b"\x89PNG")
    assert dispatch("report", line) == 0
    said = capsys.readouterr().out
    assert "8 rows, 4 wrong (50.0%)" in said
    for argv, part in (
        (["--split", "dev"], "--split says something of --errors"),
        (["--errors", three.ref, "--split", "dev"], "no answers on the split 'dev'"),
        (["--errors", three.ref, "--suite", "toy"], "--suite says nothing"),
        (["--errors", three.ref, "--top", "-1"], "--top -1 must be"),
        (["--errors", "no/such"], "no/such"),
        (["--errors", three.ref, "--task", "nowhere.yaml"], "nowhere.yaml"),
    ):
        assert dispatch("report", argv) == 2, argv
        assert part in capsys.readouterr().err


def test_a_damaged_entry(three: Entry, capsys: pytest.CaptureFixture[str]) -> None:
    predictions(three.folder, [0] * 4)
    assert dispatch("report", ["--errors", three.ref]) == 1
    assert "is damaged" in capsys.readouterr().err
