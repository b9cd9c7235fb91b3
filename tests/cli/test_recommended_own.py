"""What is recommended to people with data of their own: a suite over them, a drawn limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_bench import mtl, write_suite
from recommended import follow, provoked, recommends

SHORT = ["--max-steps", "2"]


@recommends("cli/tasks_suite.py", "python -m mtl.train --suite")
@recommends("cli/tasks_suite.py", "python -m mtl.compose --suite")
@recommends("cli/tasks_suite.py", "# python -m mtl.tasks ls --suite")
def test_a_new_suite_says_what_comes_next(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_suite(tmp_path / "source")
    monkeypatch.delenv("MTL_TASKS")
    monkeypatch.chdir(tmp_path / "source")
    new = ["suite", "new", "my", "--tasks", "same.yaml", "mood.yaml", "--target", "same.yaml"]
    said = mtl("tasks", *new, "--out", "my.yaml", "--recipe", "none")
    assert said.code == 0, said
    lines = said.out.splitlines()
    train = provoked(lines[-2], "cli/tasks_suite.py", "python -m mtl.train --suite")
    assert follow(train, *SHORT).code == 0
    compose = provoked(lines[-1], "cli/tasks_suite.py", "python -m mtl.compose --suite")
    assert follow(compose, *SHORT).code == 0
    first = (tmp_path / "source" / "my.yaml").read_text().splitlines()[0]
    provoked(first, "cli/tasks_suite.py", "# python -m mtl.tasks ls --suite")
    listed = follow(first.removeprefix("# "))
    assert listed.code == 0
    assert "mini/same" in listed.out


@recommends("checks/order.py", "rows are sorted by label")
def test_a_sorted_file_and_a_limit_that_takes_all_labels(mini: Path, tmp_path: Path) -> None:
    words = ["cat", "dog", "bird", "tree", "house", "river"]
    rows = [{"text": f"the {word} {n}", "label": word} for word in words for n in range(40)]
    for split, part in (("train", rows), ("dev", rows[::3]), ("test", rows[::3])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (tmp_path / f"{split}.jsonl").write_text(lines)
    files = ", ".join(f"{split}: {split}.jsonl" for split in ("train", "dev", "test"))
    file = tmp_path / "sorted.yaml"
    file.write_text(
        f"id: own/sorted\ndata: {{files: {{{files}}}}}\nkind: classification\n"
        f"inputs: ['{{text}}']\nlabels: [{', '.join(words)}]\nmetrics: [accuracy]\nmax_length: 16\n"
    )
    said = mtl("tasks", "check", file).out
    (told,) = (line for line in said.splitlines() if "train: rows are sorted" in line)
    message = provoked(told, "checks/order.py", "rows are sorted by label")
    found = follow(message, "--recipe", "none", *SHORT, "--json")
    assert found.code == 0, found
    (row,) = found.json["runs"]
    assert row["status"] == "done"
