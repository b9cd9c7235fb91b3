"""``import mtl``: the functions of the face do what the commands do, and models answer new rows."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cli_bench import ROOT, TASKS, digests, mtl, rows_of, write_suite
from hub_bench import hub
from loopback_state import Hub

import mtl as face
from mtl.errors import RequestError
from mtl.zoo import Entry, open_zoo, read_predictions

__all__ = ["hub"]  # the fixture
SHORT = {"epochs": 1, "max_steps": 4}


def entry_of(zoo: Path, task: str, kind: str = "adapter") -> Entry:
    (found,) = open_zoo(zoo).entries(kind=kind, task=task)
    return found


def agrees(model: face.Model, answers: face.Answers, task: str = "") -> None:
    """The answers are the stored predictions of the test split, bit for bit."""
    name = f"predictions/{task}.safetensors" if task else "predictions.safetensors"
    stored = read_predictions(model.entry.folder, name)
    np.testing.assert_array_equal(answers.raw, stored.scores)
    np.testing.assert_array_equal(answers.prediction, stored.prediction)


def test_a_run_by_hand_and_by_the_face_is_one_run(stocked: Path) -> None:
    before = digests(stocked)
    sources = [face.train_adapter(task, suite="mini") for task in TASKS]
    assert digests(stocked) == before
    assert mtl("compose", "--target", "same", *flags(SHORT)).code == 0
    by_hand = entry_of(stocked, "mini/same", "composition")
    assert face.compose_adapters("mini/same", **SHORT).digest == by_hand.digest
    assert face.compose_adapters("mini/same", sources=sources, **SHORT).digest == by_hand.digest
    assert face.compose_adapters("same", suite="mini", sources=TASKS, **SHORT) == by_hand


def flags(settings: Mapping[str, Any]) -> list[str]:
    return [
        word
        for key, value in settings.items()
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]


def test_the_manifest_tells_the_command_that_does_the_same(stocked: Path) -> None:
    own = entry_of(stocked, "mini/same")
    made = [
        face.train_adapter("mini/mood", method="bitfit", seed=3, batch_size=8, **SHORT),
        face.compose_adapters("mini/same", sources=[own, "mini/mood"], method="average", **SHORT),
        face.train_joint(TASKS[:2], method="adapter-m", zoo=stocked, **SHORT),
    ]
    for entry in made:
        python, m, module, *words = shlex.split(entry.manifest.command)
        assert (python, m) == ("python", "-m")
        assert "tiny-roberta" in words  # what the folder is called: put in your own path of it
        words = [os.environ["MTL_MODEL"] if word == "tiny-roberta" else word for word in words]
        (row,) = mtl(module.removeprefix("mtl."), *words, "--zoo", stocked, "--json").json["runs"]
        assert (row["status"], row["digest"]) == ("skipped", entry.digest)


@pytest.mark.parametrize("task", TASKS)
def test_every_form_of_rows_gives_the_stored_predictions(
    task: str, stocked: Path, suite_folder: Path
) -> None:
    import datasets
    import pandas as pd
    import pyarrow as pa

    name = task.rpartition("/")[2]
    model = face.load(entry_of(stocked, task))
    rows = rows_of(suite_folder, name)
    names = model.spec().columns
    columns = {name: [row[name] for row in rows] for name in names}
    plain: Any = list(zip(*columns.values(), strict=True))
    if len(names) == 1:
        plain = [text for (text,) in plain]
    for inputs in (
        rows,
        plain,
        columns,
        pd.DataFrame(rows, index=range(7, 7 + len(rows))),
        datasets.Dataset.from_list(rows),
        pa.Table.from_pylist(rows),
        pd.Series(plain, index=range(7, 7 + len(rows))),
        np.array(plain, dtype=object),
    ):
        agrees(model, model.predict(inputs, scores=True))
    few = model.predict(plain[:3])
    assert few == model.predict(plain[:3], scores=True).labels
    if name == "shared":
        assert all(isinstance(value, float) for value in few)
    else:
        assert set(few) <= set(model.spec().labels)
        found = model.predict(plain, scores=True)
        np.testing.assert_allclose(found.scores.sum(axis=1), 1, rtol=1e-6)
        assert found.rows()[0]["prediction"] == found[0]


def test_compositions_and_joint_models_answer_as_stored(stocked: Path, suite_folder: Path) -> None:
    composed = face.load(face.compose_adapters("mini/same", **SHORT))
    agrees(composed, composed.predict(rows_of(suite_folder, "same"), scores=True))
    joint = face.load(face.train_joint(suite="mini", method="adapter-m", **SHORT))
    assert joint.tasks == TASKS
    for task in TASKS:
        rows = rows_of(suite_folder, task.rpartition("/")[2])
        agrees(joint, joint.predict(rows, task=task, scores=True), task)
        told = joint.entry.manifest.metrics["test"]
        found = joint.evaluate("test", task=task)
        assert found == {name: told[f"{task}/{name}"] for name in found}
    with pytest.raises(RequestError, match=r"answers 3 tasks .* name one with task="):
        joint.predict(["a cat"])
    with pytest.raises(RequestError, match="Did you mean 'mini/mood'"):
        joint.predict(["a cat"], task="mini/mod")


KINDS: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "sets": (
        "kind: multilabel\ninputs: ['{text}']\nlabels: [cat, dog]\nmetrics: [macro_f1]\n",
        lambda n: {
            "text": f"the {'cat' if n % 2 else 'bird'} and a {'dog' if n % 3 else 'tree'}",
            "label": [*(["cat"] if n % 2 else []), *(["dog"] if n % 3 else [])],
        },
    ),
    "choice": (
        "kind: multiple_choice\ninputs: ['{text}', '{one}', '{two}']\nlabels: ['one', 'two']\n"
        "metrics: [accuracy]\n",
        lambda n: {
            "text": f"the {'cat' if n % 2 else 'dog'} sees",
            "one": "a cat" if n % 3 else "the big cat",
            "two": "a dog in the house",
            "label": n % 2,
        },
    ),
    "spans": (
        "kind: span_extraction\nprepare: squad\ninputs: ['{question}', '{context}']\n"
        "metrics: [token_f1, exact_match]\n",
        lambda n: {
            "question": f"  the {'cat' if n % 2 else 'dog'} ",
            "context": "every bird " * (n % 5) + "the cat sees the house and the dog finds a stone",
            "answers": {"text": ["the cat"], "answer_start": [11 * (n % 5)]},
        },
    ),
    "queries": (
        "kind: candidates\nprepare: record\ninputs: ['{passage}', '{query}']\n"
        "labels: [wrong, right]\nmetrics: [token_f1, exact_match]\n",
        lambda n: {
            "passage": "the cat sees the dog\n@highlight\nthe bird is small",
            "query": f"@placeholder sees the {'dog' if n % 2 else 'cat'}",
            "entities": ["cat", "dog", "bird"][: 2 + n % 2],
            "answers": ["cat" if n % 2 else "dog"],
        },
    ),
    "agreed": (
        "kind: classification\nprepare: labelled\ninputs: ['{text}']\nlabels: [sad, happy]\n"
        "metrics: [accuracy]\n",
        lambda n: {"text": "happy cat" if n % 2 else "sad dog", "label": n % 2},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_answers_rows_without_labels(
    kind: str, tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, make = KINDS[kind]
    for split, size in (("train", 24), ("dev", 12), ("test", 13)):
        lines = "".join(json.dumps(make(n)) + "\n" for n in range(size))
        (tmp_path / f"{kind}_{split}.jsonl").write_text(lines)
    files = ", ".join(f"{split}: {kind}_{split}.jsonl" for split in ("train", "dev", "test"))
    file = tmp_path / "task.yaml"
    file.write_text(f"id: own/{kind}\ndata: {{files: {{{files}}}}}\nmax_length: 32\n{text}")
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    entry = face.train_adapter(str(file), lr=1e-2, **SHORT)
    file.unlink()  # answering needs what the entry records, and no file of the task
    model = face.load(entry)
    rows = rows_of(tmp_path, kind)
    found = model.predict(rows, scores=True)
    agrees(model, found)
    bare = [{k: v for k, v in row.items() if k not in {"label", "answers"}} for row in rows]
    again = model.predict(bare, scores=True)
    np.testing.assert_array_equal(again.raw, found.raw)
    assert again.labels == found.labels
    if kind == "spans":
        assert all(label in row["context"] for label, row in zip(again.labels, rows, strict=True))
    if kind == "sets":
        assert all(set(label) <= {"cat", "dog"} for label in again.labels)
    if kind == "queries":
        assert again.labels.count("right") == len(rows)


def test_rows_that_cannot_be_answered_are_refused_with_what_the_task_reads(stocked: Path) -> None:
    pair, single = (face.load(entry_of(stocked, f"mini/{name}")) for name in ("same", "mood"))
    for inputs, why in (
        ("a cat", "one text is no list of rows"),
        ([], "there is no row"),
        ([("a",)], "each row has 1 value"),
        ([("a", "b"), ("a",)], "row 1 has 1 value"),
        ([("a", "b"), {"a": "a"}], "row 0 is a tuple of texts, row 1 is dict"),
        ([{"a": "x", "bb": "y"}], "no column 'b', only a, bb"),
        ({"a": ["x"], "b": ["y", "z"]}, "of different lengths (a 1, b 2)"),
        ({"a": "x", "b": ["y"]}, "column 'a' is one text"),
        ([{"a": "x", "b": ["y"]}], "lists, not texts"),
        (7, "int is no list of rows"),
        ([None], "row 0 is NoneType"),
        (np.zeros(3), "row 0 is float, no text, tuple or dict"),
    ):
        with pytest.raises(RequestError) as error:
            pair.predict(inputs)
        assert why in str(error.value), (inputs, str(error.value))
        assert "a" in str(error.value)
    with pytest.raises(RequestError, match="It reads 1 column: text"):
        single.predict([("a", "b")])


def test_a_model_evaluates_and_exports(stocked: Path, tmp_path: Path) -> None:
    entry = entry_of(stocked, "mini/same")
    model = face.load("same/pfeiffer/seed0")
    assert model.entry == entry
    assert model.evaluate("test") == entry.manifest.metrics["test"]
    record = model.export(tmp_path / "out", to="adapters", evaluate=True)
    assert record["proof"]["max_logit_difference"] <= 1e-5
    assert (tmp_path / "out" / "adapter_config.json").is_file()
    with pytest.raises(RequestError, match="Did you mean 'adapters'"):
        model.export(tmp_path / "other", to="adaptors")
    with pytest.raises(RequestError, match="Did you mean 'prune'"):
        model.export(tmp_path / "other", prun=0.1)
    with pytest.raises(RequestError, match="Did you mean 'test'"):
        model.evaluate("tst")


@pytest.mark.parametrize("task", TASKS)
def test_the_code_on_the_card_of_an_export_answers_as_the_model_does(
    task: str, stocked: Path, suite_folder: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model = face.load(entry_of(stocked, task))
    folder = tmp_path / "out"
    model.export(folder)
    code = (folder / "README.md").read_text().split("```python\n")[1].partition("```")[0]
    row = rows_of(suite_folder, task.rpartition("/")[2])[0]
    code = code.replace("FOLDER_OF_THE_ENCODER", repr(tiny("roberta"))).replace(
        "FOLDER", repr(str(folder))
    )
    for number, column in enumerate(model.spec().columns, start=1):
        assert f'"text {number}"' in code
        code = code.replace(f'"text {number}"', json.dumps(row[column]))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (told,) = ast.literal_eval(done.stdout.splitlines()[-1])
    (expected,) = model.predict([row])
    assert told == (pytest.approx(expected, abs=1e-5) if task == "mini/shared" else expected)


def test_an_entry_of_the_hub_is_pulled_and_answers(
    stocked: Path,
    hub: Hub,
    tmp_path: Path,
    suite_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = face.compose_adapters("mini/same", sources=["mini/mood", "mini/same"], **SHORT)
    assert mtl("zoo", "push", entry.ref, "--repo", "ada/same").code == 0
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "elsewhere"))
    card = hub.files("ada/same")[f"{entry.ref}/README.md"].decode()
    (code,) = [block for block in card.split("```python\n") if "mtl.load" in block]
    rows = rows_of(suite_folder, "same")
    scope: dict[str, Any] = {"ROWS": rows}
    exec(code.partition("```")[0].replace("model.predict", "answers = model.predict"), scope)
    model = face.load("hub:ada/same")
    assert scope["answers"] == model.predict(rows)
    assert model.entry.digest == entry.digest
    agrees(model, model.predict(rows_of(suite_folder, "same"), scores=True))
    with pytest.raises(RequestError, match="user/name"):
        face.load("hub:same")


def test_entries_say_which_zoo_is_meant(
    stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = open_zoo(stocked).entries(kind="adapter")
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "another"))
    entry = face.compose_adapters("mini/same", sources=sources, method="average", **SHORT)
    assert entry.folder.is_relative_to(stocked)
    assert face.load(entry).predict([("the cat sees a tree", "some cat")])
    shutil.copytree(stocked, tmp_path / "another")
    own, other = entry_of(stocked, "mini/same"), entry_of(tmp_path / "another", "mini/mood")
    with pytest.raises(RequestError, match="of several zoos"):
        face.compose_adapters("mini/same", sources=[other, own], **SHORT)


def test_what_is_wrong_is_said_before_anything_is_loaded(stocked: Path) -> None:
    joint = face.train_joint(TASKS[:2], method="adapter-m", **SHORT)
    for call, why in (
        (lambda: face.train_adapter("mini/mod"), "Did you mean"),
        (lambda: face.train_adapter("mini/mood", method="pfeifer"), "Did you mean 'pfeiffer'"),
        (lambda: face.train_adapter("mini/mood", lrr=1), "Did you mean 'lr'"),
        (lambda: face.train_adapter("mini/mood", lr="fast"), "must be a finite number"),
        (lambda: face.train_adapter("mini/mood", lr=[1e-3, 3e-3]), "call it once for each value"),
        (
            lambda: face.compose_adapters("mini/same", seeds=[0, 1]),
            "compose_adapters() has no argument 'seeds', and 'scalearn' no such setting. "
            "Did you mean 'seed'?",
        ),
        (lambda: face.compose_adapters("mini/same", source=["mini/mood"]), "mean 'sources'?"),
        (
            lambda: face.compose_adapters("mini/same", sources="all:pfeiffer"),
            "--sources all --source-method pfeiffer",
        ),
        (lambda: face.train_adapter(3), "A task is a name"),  # type: ignore[arg-type]
        (lambda: face.compose_adapters("mini/same", method="scalern"), "Did you mean 'scalearn'"),
        (lambda: face.compose_adapters("mini/same", sources=[joint]), "only adapters of one task"),
        (lambda: face.train_joint(["mini/same"], method="adapter-m"), "at least two tasks"),
        (lambda: face.load("no/such/entry"), "no/such/entry"),
    ):
        with pytest.raises(RequestError) as error:
            call()
        assert why in str(error.value)


def test_the_face_is_listed_and_costs_nothing_heavy() -> None:
    code = (
        "import sys, mtl\n"
        "assert {'train_adapter', 'compose_adapters', 'train_joint', 'load', 'open_zoo',"
        " 'load_task'} <= set(dir(mtl)), dir(mtl)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pyarrow', 'yaml'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
        "mtl.load_task; mtl.open_zoo\n"
        "heavy = {'torch', 'transformers', 'datasets'} & {*sys.modules}\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_script_prints_what_it_prints_and_nothing_else(stocked: Path) -> None:
    entry = entry_of(stocked, "mini/mood")
    code = f"import mtl; print(mtl.load({entry.digest!r}).predict(['every cat is happy today']))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "MTL_QUIET"},
    )
    assert done.stdout in {"['happy']\n", "['sad']\n"}
    assert done.stderr == ""


def test_the_example_of_the_readme_runs(tmp_path: Path) -> None:
    """As it stands there, but for the length of training."""
    blocks = (ROOT / "README.md").read_text().split("```python\n")[1:]
    (code,) = [block.partition("```")[0] for block in blocks if "compose_adapters" in block]
    assert len([line for line in code.splitlines() if line.strip()]) == 6
    short = {"max_steps": 2, "max_train_samples": 64, "max_eval_samples": 32}
    functions = {name: getattr(face, name) for name in ("train_adapter", "compose_adapters")}
    shortened = {name: partial(function, **short) for name, function in functions.items()}
    module = SimpleNamespace(**shortened, load=face.load)
    *lines, last = code.replace("import mtl\n", "").strip().splitlines()
    scope: dict[str, Any] = {"mtl": module}
    exec("\n".join(lines), scope)
    (label,) = eval(last.partition("#")[0], scope)
    assert label in {"entailment", "not_entailment"}


def test_a_task_of_ones_own_goes_all_the_way(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_suite(tmp_path / "mini")
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    shutil.rmtree(folder / "recipes")
    spec = face.load_task(str(folder / "mood.yaml"))
    entry = face.train_adapter(spec, **SHORT)
    assert face.load(entry).predict(["every cat is happy today"])[0] in spec.labels


def test_what_python_shows_of_an_entry_and_a_zoo(stocked: Path) -> None:
    zoo = face.open_zoo()
    assert repr(zoo) == f"<Zoo {zoo.root}: 3 entries>"
    (entry,) = zoo.entries(task="mood", method="pfeiffer")
    test = entry.manifest.headline()
    assert test is not None
    assert repr(entry) == str(entry) == f"<Entry {entry.ref}: accuracy test {test['value']:.4f}>"
    assert zoo.entries(task="mood", method="lora") == []
    with pytest.raises(TypeError):
        zoo.entries(tsk="mood")  # type: ignore[call-arg]
