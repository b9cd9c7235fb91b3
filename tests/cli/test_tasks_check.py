"""What ``mtl.tasks check`` finds in data: leaks, duplicates, imbalance; each with its places."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl, refused

SENTENCES = [
    f"the {size} {animal} near the {place} {verb} every {thing} in the {where} today"
    for size in ("small", "old", "quiet")
    for animal in ("cat", "dog", "teacher", "friend")
    for place in ("river", "house")
    for verb in ("finds", "brings", "likes")
    for thing in ("stone", "apple")
    for where in ("garden of the king", "town")
]


def rows_of(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Texts that are unlike each other: each sentence stands between long numbers of its own."""
    return [
        {"text": f"{n**9:x} {SENTENCES[n % len(SENTENCES)]} {n**11:x}", "label": "ab"[n % 2]}
        for n in numbers
    ]


def write_task(folder: Path, name: str, splits: Mapping[str, Sequence[Any]], **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for split, rows in splits.items():
        path = folder / f"{name}_{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files[split] = path.name
    content = {
        "id": f"own/{name}",
        "data": {"files": files},
        "kind": "classification",
        "inputs": ["{text}"],
        "labels": ["a", "b"],
        "metrics": ["accuracy"],
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return path


def findings(said: Any, check: str) -> list[dict[str, Any]]:
    return [f for task in said.json["tasks"] for f in task["findings"] if f["check"] == check]


@pytest.fixture
def clean() -> dict[str, list[dict[str, Any]]]:
    return {
        "train": rows_of(range(100, 200)),
        "dev": rows_of(range(200, 240)),
        "test": rows_of(range(300, 350)),
    }


def test_nothing_is_found_where_nothing_is(clean: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", clean)
    said = mtl("tasks", "check", path, "--strict", "--json")
    assert (said.code, said.json["tasks"][0]["findings"]) == (0, [])
    assert "nothing wrong" in mtl("tasks", "check", path).out


def test_leaks_of_a_task_into_its_own_test(clean: Any, tmp_path: Path) -> None:
    clean["test"][3] = dict(clean["train"][17])
    near = clean["train"][40]["text"].upper().replace("TODAY", "again") + "!"
    clean["test"][9] = {**clean["test"][9], "text": near}
    clean["dev"][0] = dict(clean["train"][2])
    path = write_task(tmp_path, "t", clean)
    said = mtl("tasks", "check", path, "--json")
    assert said.code == 1
    dev, test = findings(said, "leak-exact")
    assert (dev["split"], dev["level"], dev["count"]) == ("dev", "remark", 1)
    assert (test["split"], test["level"], test["count"], test["of"]) == ("test", "problem", 1, 50)
    (example,) = test["examples"]
    assert example["place"] == f"line 4 of {tmp_path / 't_test.jsonl'}"
    assert example["other"] == f"line 18 of {tmp_path / 't_train.jsonl'}"
    assert example["text"] == clean["train"][17]["text"]
    (close,) = findings(said, "leak-near")
    assert (close["split"], close["level"], close["count"]) == ("test", "remark", 1)
    assert close["examples"][0]["other"] == f"line 41 of {tmp_path / 't_train.jsonl'}"
    assert 0.8 <= close["examples"][0]["similarity"] < 1
    text = mtl("tasks", "check", path).out
    assert "test: 1 of 50 rows (2.0%) have inputs that stand in train, too" in text
    assert f"line 4 of {tmp_path / 't_test.jsonl'} = line 18 of" in text
    assert "≈" in text
    assert not findings(mtl("tasks", "check", path, "--near", "0", "--json"), "leak-near")


def test_one_row_in_very_many_is_a_remark(clean: Any, tmp_path: Path) -> None:
    clean["test"] = rows_of(range(300, 500))
    clean["test"][3] = dict(clean["train"][17])
    path = write_task(tmp_path, "t", clean)
    assert mtl("tasks", "check", path).code == 0
    assert mtl("tasks", "check", path, "--strict").code == 1


def test_pairs_that_share_one_text(tmp_path: Path) -> None:
    def pairs(numbers: Sequence[int], premise: int | None = None) -> list[dict[str, Any]]:
        first = [row["text"] for row in rows_of([premise or n for n in numbers])]
        second = rows_of([n + 1000 for n in numbers])
        return [{**row, "p": text} for row, text in zip(second, first, strict=True)]

    splits = {"train": pairs(range(100, 140)), "dev": pairs(range(200, 220))}
    splits["test"] = [*pairs(range(300, 320)), *pairs([320, 321], premise=105)]
    path = write_task(tmp_path, "t", splits, inputs=["{p}", "{text}"])
    said = mtl("tasks", "check", path, "--json")
    assert said.code == 0
    (found,) = findings(said, "leak-text")
    assert (found["split"], found["count"], found["level"]) == ("test", 2, "remark")
    assert "'{p}'" in found["text"]
    assert found["examples"][0]["other"].startswith("line 6 of")


def test_leaks_from_one_task_into_another(clean: Any, tmp_path: Path) -> None:
    """The other task pairs the same texts otherwise; both ways round are looked at."""
    path = write_task(tmp_path, "t", clean)
    ours = [row["text"] for row in clean["test"]]
    other_rows = [
        {"one": row["text"], "two": text, "label": row["label"]}
        for row, text in zip(rows_of(range(600, 640)), ours, strict=False)
    ]
    other_rows[39]["two"] = ours[49].replace("every", "each")
    test = [{"one": "no", "two": clean["train"][5]["text"], "label": "a"}]
    test += [{"one": "no", "two": row["text"], "label": "b"} for row in rows_of(range(700, 710))]
    other = write_task(
        tmp_path,
        "other",
        {"train": other_rows, "dev": clean["dev"][:0] or test[1:], "test": test},
        inputs=["{one}", "{two}"],
    )
    assert mtl("tasks", "check", path).code == 0
    said = mtl("tasks", "check", path, "--against", other, "--json")
    assert said.code == 1
    ours_found, theirs_found = findings(said, "leak-exact")
    assert (ours_found["count"], ours_found["of"], ours_found["level"]) == (39, 50, "problem")
    assert "in the training rows of own/other" in ours_found["text"]
    assert ours_found["examples"][0]["other"] == f"line 1 of {tmp_path / 'other_train.jsonl'}"
    # "no" is too short to count; the other text of the row stands in our training rows
    assert (theirs_found["count"], theirs_found["of"]) == (1, 11)
    assert theirs_found["text"].startswith("own/other, test: ")
    assert theirs_found["examples"][0]["other"] == f"line 6 of {tmp_path / 't_train.jsonl'}"
    (close,) = findings(said, "leak-near")
    assert (close["count"], close["level"]) == (1, "remark")
    again = mtl("tasks", "check", path, "--against", path, "--json")
    assert again.code == 0  # a task is not held against itself
    bad = write_task(tmp_path, "bad", {**clean, "dev": []})
    said = mtl("tasks", "check", path, "--against", bad)
    assert said.code == 1
    assert "own/bad cannot be read, so nothing was compared with it" in said.out


def test_duplicates_and_contradictions(clean: Any, tmp_path: Path) -> None:
    clean["train"][50] = dict(clean["train"][10])
    clean["train"][51] = {
        **clean["train"][11],
        "label": "a" if clean["train"][11]["label"] == "b" else "b",
    }
    said = mtl("tasks", "check", write_task(tmp_path, "t", clean), "--json")
    (twice,) = findings(said, "duplicates")
    assert (twice["count"], twice["of"], twice["level"]) == (2, 100, "remark")
    assert twice["examples"][0]["place"].startswith("line 11 of")
    assert twice["examples"][0]["other"].startswith("line 51 of")
    (torn,) = findings(said, "conflicting-labels")
    assert torn["count"] == 2
    assert torn["examples"][0]["other"].startswith("line 52 of")


def test_imbalance_and_rare_labels(clean: Any, tmp_path: Path) -> None:
    for row in clean["train"][4:]:
        row["label"] = "b"
    said = mtl("tasks", "check", write_task(tmp_path, "t", clean), "--json")
    (found,) = findings(said, "imbalance")
    assert (found["count"], found["of"]) == (98, 100)
    assert "'b'" in found["text"]
    assert "macro_f1" in found["text"]
    (rare,) = findings(said, "rare-label")
    assert rare["count"] == 2
    assert said.code == 0


def test_one_class_is_a_problem_and_can_still_be_compared_with(clean: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", clean)
    other = {**clean, "train": [{**row, "label": "a"} for row in clean["test"]]}
    single = write_task(tmp_path, "single", other)
    (found,) = findings(mtl("tasks", "check", single, "--json"), "one-class")
    assert "all 50 training rows have the label 'a'" in found["text"]
    said = mtl("tasks", "check", path, "--against", single, "--json")
    assert [f["count"] for f in findings(said, "leak-exact")] == [50]


def test_everything_that_is_wrong_with_a_file_at_once(clean: Any, tmp_path: Path) -> None:
    """Not only the first row: how many, which values, and where."""
    for row in (4, 6, 8, 10):
        clean["train"][row]["label"] = "B"
    clean["train"][20]["label"] = "c"
    clean["train"][30]["label"] = None
    clean["dev"][3]["text"] = None
    clean["test"] = [{"txt": row["text"], "label": row["label"]} for row in clean["test"]]
    said = mtl("tasks", "check", write_task(tmp_path, "t", clean), "--json")
    assert said.code == 1
    values = {f["text"].split(": ")[-1]: f for f in findings(said, "unknown-label")}
    assert [f["count"] for f in values.values()] == [4, 1]
    first = next(f for f in values.values() if f["count"] == 4)
    assert "4 of 100 rows (4.0%) of train: 'B' is none of the labels (a, b)" in first["text"]
    places = [example["place"] for example in first["examples"]]
    assert places == [f"line {n} of {tmp_path / 't_train.jsonl'}" for n in (5, 7, 9)]
    (missing,) = findings(said, "no-label")
    assert missing["examples"][0]["place"].startswith("line 31 of")
    (empty,) = findings(said, "empty-text")
    assert (empty["count"], empty["examples"][0]["place"].split()[1]) == (1, "4")
    (column,) = findings(said, "missing-column")
    assert "no column 'text' in test" in column["text"]
    assert "txt, label" in column["text"]


def test_hidden_labels_of_a_split_that_is_not_used_are_no_fault(clean: Any, tmp_path: Path) -> None:
    clean["test"] = [{**row, "label": -1} for row in clean["test"]]
    clean["train"][0]["label"] = "c"
    path = write_task(tmp_path, "t", clean)
    said = mtl("tasks", "check", path, "--protocol", "scalearn", "--json")
    assert [f["split"] for f in findings(said, "unknown-label")] == ["train"]


def test_wrong_requests(clean: Any, tmp_path: Path) -> None:
    path = write_task(tmp_path, "t", clean)
    refused(mtl("tasks", "check", path, "--near", "1.5"), "--near 1.5", "0 to 1")
    refused(mtl("tasks", "check", path, "--against", "demo/nlii"), "'demo/nlii'", "'demo/nli'")
    refused(mtl("tasks", "check", path, "--against", "no.yaml"), "There is no file no.yaml")
