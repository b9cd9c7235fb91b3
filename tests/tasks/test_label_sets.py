"""Sets of labels: separated cells, vectors and columns of 0 and 1, beside lists of names."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from task_bench import file_task, spec_of, three

from mtl.checks.checking import check_task
from mtl.checks.drafts import draft_task, render
from mtl.data import load_data
from mtl.errors import RequestError
from mtl.tasks.spec import TaskSpec

NAMES = ("toxic", "calm", "rude")
SETS = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]

FORMS: dict[str, tuple[Callable[[list[int]], dict[str, Any]], dict[str, Any]]] = {
    "lists of names": (
        lambda row: {"label": [name for name, on in zip(NAMES, row, strict=True) if on]},
        {},
    ),
    "vectors of integers": (lambda row: {"label": row}, {"label_vectors": True}),
    "vectors of truth values": (
        lambda row: {"label": [bool(on) for on in row]},
        {"label_vectors": True},
    ),
    "vectors of floats": (
        lambda row: {"label": [float(on) for on in row]},
        {"label_vectors": True},
    ),
    "vectors as numpy writes them": (
        lambda row: {"label": str(np.array(row))},
        {"label_vectors": True},
    ),
    "columns": (
        lambda row: dict(zip(NAMES, row, strict=True)),
        {"label_columns": list(NAMES)},
    ),
    "columns of mixed types": (
        lambda row: {"toxic": str(row[0]), "calm": bool(row[1]), "rude": float(row[2])},
        {"label_columns": list(NAMES)},
    ),
    "separated": (
        lambda row: {"label": "; ".join(n for n, on in zip(NAMES, row, strict=True) if on)},
        {"label_separator": ";"},
    ),
}


def rows_of(row: Callable[[list[int]], dict[str, Any]], sets: Any = SETS) -> list[dict[str, Any]]:
    return [{"a": f"some old cat {n}", **row(ones)} for n, ones in enumerate(sets)]


def sets_task(folder: Path, rows: Sequence[Mapping[str, Any]], **keys: Any) -> TaskSpec:
    keys = {"kind": "multilabel", "labels": NAMES, "metrics": ("macro_f1",), **keys}
    return file_task(folder, three(rows), inputs=("{a}",), **keys)


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_says_the_same(form: str, tmp_path: Path) -> None:
    write, keys = FORMS[form]
    spec = sets_task(tmp_path, rows_of(write), **keys)
    labels = load_data(spec, protocol="official").splits["train"].labels
    assert (labels.dtype, labels.tolist()) == (np.dtype("float32"), SETS)
    report = check_task(spec, near=0)
    assert {finding.check for finding in report.findings} == {"leak-exact"}  # one file, thrice
    assert report.splits[0]["labels"] == {"toxic": 2, "calm": 1, "rude": 1}
    assert TaskSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("form", ["vectors of integers", "columns"])
def test_one_1_per_row_may_be_a_class(form: str, tmp_path: Path) -> None:
    write, keys = FORMS[form]
    rows = rows_of(write, np.eye(3, dtype=int).tolist())
    keys = {**keys, "kind": "classification", "metrics": ("accuracy",)}
    data = load_data(sets_task(tmp_path, rows, **keys), protocol="official")
    assert data.splits["train"].labels.tolist() == [0, 1, 2]
    for ones, count in (([1, 1, 0], 2), ([0, 0, 0], 0)):
        spec = sets_task(tmp_path, rows_of(write, [[1, 0, 0], ones]), **keys)
        with pytest.raises(RequestError, match=rf"line 2 of .*{count} of the 3 labels are 1.*kind"):
            load_data(spec, protocol="official")


@pytest.mark.parametrize("form", ["vectors of integers", "vectors of truth values"])
def test_vectors_are_not_taken_for_names(form: str, tmp_path: Path) -> None:
    """With names, with the numbers 0 and 1 as labels, and without labels."""
    rows = rows_of(FORMS[form][0])
    for labels in (NAMES, ("0", "1"), ()):
        spec = sets_task(tmp_path, rows, labels=labels)
        with pytest.raises(RequestError, match=r"line 1 of .*label_vectors: true.*labels"):
            load_data(spec, protocol="official")
        (problem, *_) = check_task(spec, near=0).of_level("problem")
        assert "label_vectors: true" in problem.text


def test_class_numbers_in_lists_stay_class_numbers(tmp_path: Path) -> None:
    rows = [{"a": f"cat {n}", "label": [[0], [1, 2], [], [1]][n]} for n in range(4)]
    labels = load_data(sets_task(tmp_path, rows), protocol="official").splits["train"].labels
    assert labels.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 1, 0]]


WRONG: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "a short vector": ([{"label": [1, 0, 1]}, {"label": [1, 0]}], {"label_vectors": True},
        r"line 2 of .*a vector of 2 where the task has 3 labels \(toxic, calm, rude\)"),
    "a probability": ([{"label": [1, 0, 0.7]}], {"label_vectors": True},
        "place 2: 0.7 is neither 0 nor 1. Probabilities are not read"),
    "a count": ([{"label": [1, 0, 2]}], {"label_vectors": True}, "place 2: 2 is neither 0 nor 1"),
    "names in a vector": ([{"label": ["a", "b", "c"]}], {"label_vectors": True},
        "'a' is neither 0 nor 1"),
    "no vector": ([{"label": "toxic"}], {"label_vectors": True}, "a list of 0 and 1 is expected"),
    "a shortened array": ([{"label": "[0 0 ... 1]"}], {"label_vectors": True}, "was shortened"),
    "a hidden row": ([{"toxic": 1, "calm": 0, "rude": 0}, {"toxic": -1, "calm": -1, "rude": -1}],
        {"label_columns": list(NAMES)}, "line 2 of .*toxic: -1, which marks rows without"),
    "an empty cell": ([{"toxic": 1, "calm": None, "rude": 0}], {"label_columns": list(NAMES)},
        "line 1 of .*calm: neither 0 nor 1 stands there"),
    "a column that is not there": ([{"toxic": 1, "calm": 0}], {"label_columns": list(NAMES)},
        "has no column 'rude'"),
    "another name": ([{"label": "toxic;odd"}], {"label_separator": ";"},
        "'odd' is none of the labels"),
    "no text": ([{"label": 3}], {"label_separator": ";"}, "3 where text is expected"),
    "no separator given": ([{"label": "toxic;rude"}], {}, "say with `label_separator`"),
    "lists in lists": ([{"label": [["toxic"]]}], {}, r"\['toxic'\] in a list of labels"),
    "probabilities as names": ([{"label": [0.2, 0.8]}], {"labels": ()}, "probabilities are not"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(WRONG))
def test_what_is_no_set_of_labels(case: str, tmp_path: Path) -> None:
    rows, keys, message = WRONG[case]
    spec = sets_task(tmp_path, [{"a": "some old cat", **row} for row in rows], **keys)
    with pytest.raises(RequestError, match=message):
        load_data(spec, protocol="official")
    assert check_task(spec, near=0).of_level("problem")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"label_columns": ["x"]}, "label_columns must name two columns or more"),
        ({"label_columns": ["x", "x", "y"]}, "each once"),
        ({"label_columns": ["x", "y"]}, "labels has 3 names for 2 label_columns"),
        ({"label_columns": ["x", "y", "z"], "label_vectors": True}, "cannot stand beside"),
        ({"label_separator": " "}, "a space ends no name"),
        ({"label_vectors": True, "labels": ()}, "must name the places of the vectors"),
        ({"label_separator": ";", "kind": "classification"}, "is for kind multilabel, not for"),
        ({"label_vectors": True, "kind": "regression", "labels": ()}, "not for regression"),
    ],
)
def test_forms_that_do_not_fit(keys: dict[str, Any], message: str) -> None:
    given = {"kind": "multilabel", "labels": NAMES, "metrics": ("accuracy",), **keys}
    if given["kind"] == "regression":
        given["metrics"] = ("pearson",)
    with pytest.raises(RequestError, match=message):
        spec_of(**given)


def test_a_task_without_these_keys_hashes_as_before() -> None:
    assert not {"label_columns", "label_vectors", "label_separator"} & {*spec_of().to_dict()}
    named = spec_of(kind="multilabel", labels=(), label_columns=("x", "y"), metrics=("macro_f1",))
    assert named.labels == ("x", "y")


def test_names_of_class_numbers_in_a_list(tmp_path: Path) -> None:
    """A list of numbers with declared names, as GoEmotions comes from the Hub."""
    feature = {"feature": {"names": list(NAMES), "_type": "ClassLabel"}, "_type": "Sequence"}
    info = json.dumps({"info": {"features": {"label": feature}}})
    table = pa.table({"a": ["old cat"] * 4, "label": [[2], [0, 1], [], [0]]})
    path = tmp_path / "a.parquet"
    parquet.write_table(table.replace_schema_metadata({"huggingface": info}), path)
    draft = draft_task("my/x", dict.fromkeys(("train", "dev", "test"), path), tmp_path)
    assert draft.content["labels"] == sorted(NAMES)
    data = load_data(TaskSpec.from_dict(draft.content, tmp_path / "x.yaml"), protocol="official")
    found = [[n for n, on in zip(sorted(NAMES), row, strict=True) if on]
             for row in data.splits["train"].labels]  # fmt: skip
    assert found == [["rude"], ["calm", "toxic"], [], ["toxic"]]


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def flags(row: int) -> list[int]:
    return [row % 2, int(row % 3 == 0), int(row % 5 == 0)]


@pytest.mark.parametrize("names", [NAMES, ("y_0", "y_1", "y_2")])
def test_columns_of_0_and_1_are_drafted_together(names: Sequence[str], tmp_path: Path) -> None:
    rows = [[n + 100, f"some old cat {n}", *flags(n)] for n in range(60)]
    path = write_csv(tmp_path / "a.csv", ["id", "text", *names], rows)
    draft = draft_task("my/x", {"train": path}, tmp_path)
    content = draft.content
    assert (content["kind"], content["label_columns"]) == ("multilabel", list(names))
    assert (content["labels"], content["inputs"]) == (list(names), ["{text}"])
    assert draft.guesses[0].startswith(f"label: columns {' '.join(names)}, each 0 or 1")
    (tmp_path / "x.yaml").write_text(render(content, tmp_path / "x.yaml"))
    from mtl.tasks import load_task

    assert load_data(load_task(str(tmp_path / "x.yaml")), protocol="holdout").spec.num_outputs == 3


def test_vectors_are_no_column_of_0_and_1(tmp_path: Path) -> None:
    rows = [{"text": f"some old cat {n}", "spam": n % 2, "vec": flags(n)} for n in range(60)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = draft_task("my/x", {"train": path}, tmp_path).content
    assert (content["label_column"], content["label_vectors"]) == ("vec", True)


def test_exactly_one_1_is_drafted_as_a_class(tmp_path: Path) -> None:
    rows = [[f"some old cat {n}", *np.eye(3, dtype=int)[n % 3]] for n in range(60)]
    path = write_csv(tmp_path / "a.csv", ["text", *NAMES], rows)
    assert draft_task("my/x", {"train": path}, tmp_path).content["kind"] == "classification"
    draft = draft_task("my/x", {"train": path}, tmp_path, kind="multilabel")
    assert draft.content["kind"] == "multilabel"


@pytest.mark.parametrize(
    ("header", "ways"),
    [
        (["text", "spam", "long ago"], [["spam", "long ago"], ["long ago"]]),
        (["text", "lang", "spam", "ad", "odd"], [["spam", "ad", "odd"], ["lang"]]),
    ],
)
def test_one_column_or_several_is_asked(
    header: list[str], ways: list[list[str]], tmp_path: Path
) -> None:
    lang = [["de", "en"][n % 2] for n in range(60)] if "lang" in header else None
    rows = [
        [f"some old cat {n}", *([lang[n]] if lang else []), *flags(n)[: 3 if lang else 2]]
        for n in range(60)
    ]
    path = write_csv(tmp_path / "a.csv", header, rows)
    with pytest.raises(RequestError, match="hold nothing but 0 and 1") as caught:
        draft_task("my/x", {"train": path}, tmp_path)
    said = str(caught.value)
    for way in ways:  # both ways that the message names are open
        assert f"--label {shlex.join(way)}" in said
        draft = draft_task("my/x", {"train": path}, tmp_path, label=way, texts=["text"])
        found = draft.content.get("label_columns") or [draft.content["label_column"]]
        assert found == way


def test_a_column_that_is_called_label_is_the_label(tmp_path: Path) -> None:
    rows = [[f"some old cat {n}", *flags(n), "ab"[n % 2]] for n in range(60)]
    path = write_csv(tmp_path / "a.csv", ["text", "x", "y", "z", "label"], rows)
    assert draft_task("my/x", {"train": path}, tmp_path).content["labels"] == ["a", "b"]
    with pytest.raises(RequestError, match=r"Column 'label', line 2 of .*'a' is neither 0 nor 1"):
        draft_task("my/x", {"train": path}, tmp_path, label=["x", "label"])
