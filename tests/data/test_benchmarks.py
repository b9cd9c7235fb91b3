"""SuperGLUE, HumSet and SQuAD on fixtures with their real columns: texts, labels, splits."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import mirror_bench
import numpy as np
import pytest

from mtl.data import load_data
from mtl.errors import RequestError
from mtl.tasks import PREPARE, default_protocol, list_recipes, load_recipe, load_suite, load_task
from mtl.tasks.finding import resolve_task


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_bench.write_mirror(tmp_path_factory.mktemp("mirror"))


def data_of(mirror: Path, task: str, **changes: Any) -> Any:
    spec = load_task(task)
    values = {"data_root": mirror, "protocol": default_protocol(spec), **changes}
    return load_data(spec, **values)


def prepared(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import pyarrow as pa

    return PREPARE.get(name)(pa.Table.from_pylist(rows)).to_pylist()


def test_suites_are_those_of_the_papers() -> None:
    superglue, both = load_suite("superglue"), load_suite("glue+superglue")
    names = ["cb", "copa", "wsc", "rte", "wic", "boolq", "multirc", "record"]
    assert [task.split("/")[1] for task in superglue.tasks] == names
    assert "glue/rte" in superglue.tasks
    assert len(both.tasks) == 15
    assert {*both.tasks} == {*load_suite("glue").tasks, *superglue.tasks}
    humset = load_suite("humset")
    assert (humset.model, humset.protocol) == ("xlm-roberta-base", "official")
    assert len(humset.tasks) == 5


@pytest.mark.parametrize("suite", [None, "glue", "superglue", "glue+superglue", "humset"])
def test_names_that_users_type_are_unambiguous(suite: str | None) -> None:
    assert resolve_task("rte", suite) == "glue/rte"
    assert resolve_task("superglue/rte", suite) == "glue/rte"
    for name in ("boolq", "cb", "copa", "multirc", "record", "wic", "wsc"):
        assert resolve_task(name, suite) == f"superglue/{name}"
    assert resolve_task("squad", suite) == "squad/squad"
    assert resolve_task("subpillars_2d", suite) == "humset/subpillars_2d"


def test_recipes_have_the_papers_exceptions() -> None:
    assert "reference" in list_recipes()
    ours, theirs = load_recipe("scalearn"), load_recipe("reference")
    for recipe in (ours, theirs):
        assert recipe.settings("scalearn++", "superglue/record")["epochs"] == 3
        assert recipe.settings("fusion", "superglue/record")["epochs"] == 3
        assert recipe.settings("pfeiffer", "superglue/record")["epochs"] == 30
        assert recipe.settings("pfeiffer", "superglue/copa")["head"] == "two_layer"
        assert recipe.settings("pfeiffer", "humset/sectors")["select"] == "metric"
        assert recipe.settings("scalearn", "glue/rte")["select"] == "loss"
    assert ours.settings("scalearn", "superglue/copa")["head"] == "two_layer"
    assert theirs.settings("scalearn", "superglue/copa")["head"] == "frozen_pooler"
    assert theirs.settings("fusion", "superglue/copa")["head"] == "frozen_pooler"


def test_wsc_marks_the_pronoun_and_joins_words_by_single_spaces(mirror: Path) -> None:
    split = data_of(mirror, "wsc").splits["train"]
    words = split.texts[0][0].split(" ")
    assert words[:1] + words[2:] == [
        "the",
        "sees",
        "the",
        "tree",
        "and",
        "*it*",
        "is",
        "green",
        ".",
    ]
    assert split.texts[1][0] == f"the {words[1]}"
    with pytest.raises(RequestError, match=r"row 1: span2_index is 9, but the text has 2 words"):
        prepared("wsc", [{"text": "a b", "span2_index": 0}, {"text": "a b", "span2_index": 9}])
    with pytest.raises(RequestError, match="no column 'span2_index', only text"):
        prepared("wsc", [{"text": "a b"}])


def test_copa_continues_the_premise_and_keeps_its_full_stop(mirror: Path) -> None:
    rows = [{"question": "cause"}, {"question": "effect"}]
    assert [row["connective"] for row in prepared("copa", rows)] == ["because", "so"]
    data = data_of(mirror, "copa")
    split = data.splits["test"]
    assert {text[-9:] for text in split.texts[0]} == {". because", "happy . so"[-9:]}
    assert len(split.texts) == 3
    assert (data.spec.choices, data.spec.num_outputs) == (2, 1)
    assert split.labels.tolist() == [0, 1] * 4
    with pytest.raises(RequestError, match=r"row 0: question is 'why', .* cause, effect"):
        prepared("copa", [{"question": "why"}])


def test_multirc_has_a_row_per_answer_and_groups_per_question(mirror: Path) -> None:
    split = data_of(mirror, "multirc").splits["test"]
    assert split.texts[1][0].startswith("is it the cat ")
    assert split.table["group"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    same = {"paragraph": 0, "question": 5, "answer": 0}
    other = {"paragraph": 1, "question": 5, "answer": 0}
    found = prepared("multirc", [{"idx": same}, {"idx": other}, {"idx": same}])
    assert [row["group"] for row in found] == [0, 1, 0]


def test_record_has_a_row_per_entity(mirror: Path) -> None:
    row = {
        "passage": "One.\n@highlight\nTwo.\n@highlight\nThree.",
        "query": "today @placeholder sees @placeholder",
        "entities": ["the Dog", "Big Bird", "A. Cat"],
        "answers": ["Big Bird", "big  cat!"],
    }
    found = prepared("record", [row, {**row, "query": "@placeholder", "answers": ["the Dog"]}])
    assert len(found) == 6
    assert {item["passage"] for item in found} == {"One.\n- Two.\n- Three."}
    assert found[1]["query"] == "today Big Bird sees Big Bird"
    assert [item["label"] for item in found] == [0, 1, 0, 1, 0, 0]
    assert [item["group"] for item in found] == [0, 0, 0, 1, 1, 1]
    assert [item["order"] for item in found] == [2, 1, 0, 2, 1, 0]  # A. Cat < Big Bird < the Dog
    # "cat" against "big bird" and "big cat": one of 1 + 2 words in common, 2/3.
    assert [item["em"] for item in found] == [0, 1, 0, 1, 0, 0]
    assert [item["f1"] for item in found[:3]] == [0, 1, pytest.approx(2 / 3)]
    for change, message in (
        ({"query": "nothing"}, "row 0: the query has no @placeholder"),
        ({"entities": []}, "row 0: there are no entities"),
        ({"answers": []}, "row 0: there is no answer, which marks hidden labels"),
        ({"passage": None}, "row 0: column 'passage' is empty"),
    ):
        with pytest.raises(RequestError, match=message):
            prepared("record", [{**row, **change}])


def test_record_holds_each_passage_once_and_selects_on_the_test(mirror: Path) -> None:
    data = data_of(mirror, "record")
    assert dict(data.sizes) == {"train": 72, "dev": 24, "test": 24}
    assert data.fingerprints["dev"] == data.fingerprints["test"] != data.fingerprints["train"]
    passages = data.splits["train"].texts[0]
    assert len({id(text) for text in passages}) == len(set(passages)) == 12
    assert "- the" in passages[0]
    assert set(data.splits["dev"].table) == {"group", "order", "f1", "em"}


def test_sora_divides_queries_not_their_candidates(tmp_path: Path) -> None:
    rows = [mirror_bench.record(Random(row), row) for row in range(1012)]
    for split in ("train", "validation"):
        mirror_bench.write(tmp_path / "aps" / "super_glue" / "record", split, rows)
    data = data_of(tmp_path, "record", protocol="sora")
    assert dict(data.sizes) == {"train": 36, "dev": 3000, "test": 3036}
    for split in ("train", "dev"):
        assert set(Counter(data.splits[split].table["group"].tolist()).values()) == {3}
    groups = [set(data.splits[split].table["group"].tolist()) for split in ("train", "dev")]
    assert not groups[0] & groups[1]


def test_humset_has_one_sorted_label_list_for_all_splits(mirror: Path) -> None:
    data = data_of(mirror, "humset/sectors")
    # "Nutrition" stands in the test split only, and still has its column everywhere.
    assert data.spec.labels == ("Education", "Health", "Nutrition", "Shelter", "WASH")
    assert data.spec.num_outputs == 5
    test, train = data.splits["test"], data.splits["train"]
    assert test.labels[0].tolist() == [0, 0, 1, 0, 0]
    assert train.labels.shape == (24, 5)
    assert train.labels[:, 2].sum() == 0
    assert (train.labels.sum(axis=1) == 0).any()  # rows without any label are rows
    assert load_task("humset/sectors").labels == ()
    assert load_data(data.spec, data_root=mirror, protocol="official").spec == data.spec
    finer = data_of(mirror, "subpillars_1d")
    assert finer.spec.labels == ("Education->a", "Health->a", "Shelter->a", "WASH->a")


def test_humset_label_columns_that_are_none(tmp_path: Path) -> None:
    folder = tmp_path / "nlp-thedeep" / "humset" / "1.0.0"
    for value, message in (
        ([], "holds no label at all"),
        ("Health", "where a list of labels is expected"),
        ([["a"]], "in a list of labels, where a name is expected"),
        ([None, "a"], "row 0: a label is missing"),
    ):
        for split in ("train", "validation", "test"):
            mirror_bench.write(folder, split, [{"excerpt": "x", "sectors": value}])
        with pytest.raises(RequestError, match=message):
            data_of(tmp_path, "humset/sectors")
    for split in ("train", "validation", "test"):  # a list that a program wrote as text is one
        mirror_bench.write(folder, split, [{"excerpt": "x", "sectors": "['Health', 'WASH']"}])
    assert data_of(tmp_path, "humset/sectors").spec.labels == ("Health", "WASH")


def test_squad_labels_are_characters_of_the_context(mirror: Path) -> None:
    data = data_of(mirror, "squad")
    split = data.splits["test"]
    assert split.texts[0][0] == "the friend finds a door in the river ?"
    for context, (begin, end), answers in zip(
        split.texts[1], split.labels, split.table["answers"], strict=True
    ):
        assert context[begin:end] == answers[0]
        assert len(answers) == 2
    assert len(data.splits["dev"]) == 3  # a tenth of the 24 training questions
    row = mirror_bench.question(Random(0), 0)
    for change, message in (
        ({"text": [], "answer_start": []}, "row 0: there is no answer"),
        ({"text": ["cat"], "answer_start": [0]}, r"row 0: .*'cat' does not stand at character 0"),
    ):
        with pytest.raises(RequestError, match=message):
            prepared("squad", [{**row, "answers": change}])


def test_a_faulty_row_is_named_with_task_split_and_place(mirror: Path, tmp_path: Path) -> None:
    folder = tmp_path / "aps" / "super_glue" / "wsc"
    row = mirror_bench.wsc(Random(0), 0)
    for split in ("train", "validation"):
        mirror_bench.write(folder, split, [row, {**row, "span2_index": 50}])
    with pytest.raises(RequestError, match=r"superglue/wsc.*'train'.*prepare 'wsc': row 1: span2"):
        data_of(tmp_path, "wsc")


def test_tables_are_part_of_the_fingerprint(mirror: Path, tmp_path: Path) -> None:
    rows = [mirror_bench.multirc(Random(row), row) for row in range(12)]
    folder = tmp_path / "aps" / "super_glue" / "multirc"
    found = []
    for question in (0, 7):
        rows[0]["idx"]["question"] = question
        for split in ("train", "validation"):
            mirror_bench.write(folder, split, rows)
        found.append(data_of(tmp_path, "multirc", protocol="sora").fingerprint)
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("task", "counts", "validation", "sizes"),
    [
        ("boolq", [3553, 5874], 3270, (8484, 943, 3270)),
        ("cb", [115, 119, 16], 56, (225, 25, 56)),
        ("copa", [195, 205], 100, (360, 40, 100)),
        ("multirc", [15252, 11991], 4848, (24518, 2725, 4848)),
        ("wic", [2714, 2714], 638, (4885, 543, 638)),
        ("wsc", [295, 259], 104, (498, 56, 104)),
    ],
)
def test_scalearn_sizes_of_the_paper(
    task: str, counts: list[int], validation: int, sizes: tuple[int, int, int]
) -> None:
    from mtl.tasks import PROTOCOLS

    labels = {
        "train": np.repeat(np.arange(len(counts)), counts),
        "validation": np.zeros(validation),
    }
    spec = load_task(task)
    parts = PROTOCOLS.get("scalearn")(spec, list(labels), lambda split: labels[split])
    assert parts["train"].rows is not None
    assert parts["dev"].rows is not None
    found = (len(parts["train"].rows), len(parts["dev"].rows), validation)
    assert found == sizes
    shares = np.bincount(labels["train"][parts["dev"].rows]) / sizes[1]
    balanced = np.abs(shares - np.array(counts) / sum(counts)).max() < 1 / sizes[1]
    assert balanced or task == "cb"  # the reference does not stratify CB


@pytest.mark.parametrize(
    ("task", "train", "validation", "dev", "test"),
    [
        ("glue/rte", 2490, 277, 138, 139),
        ("boolq", 9427, 3270, 1635, 1635),
        ("sst2", 67349, 872, 1000, 872),
    ],
)
def test_sora_sizes_of_the_paper(
    task: str, train: int, validation: int, dev: int, test: int
) -> None:
    from mtl.tasks import PROTOCOLS

    sizes = {"train": train, "validation": validation}
    parts = PROTOCOLS.get("sora")(
        load_task(task), list(sizes), lambda split: np.zeros(sizes[split], dtype=np.int64)
    )
    assert parts["dev"].rows is not None
    assert len(parts["dev"].rows) == dev
    rows = parts["test"].rows
    assert (validation if rows is None else len(rows)) == test
