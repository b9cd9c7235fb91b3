"""What a check says of sorted files and of rows that share a text or a user across a hold-out."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from task_bench import file_task

from mtl.checks.checking import check_task
from mtl.checks.findings import Finding

CLASSES = [f"c{number}" for number in range(10)]


def remarks(spec: Any, check: str, **options: Any) -> list[Finding]:
    report = check_task(spec, near=0, **options)
    assert report.data is not None, report.findings
    return [finding for finding in report.findings if finding.check == check]


def test_a_file_sorted_by_label_is_told_with_the_command_that_helps(tmp_path: Path) -> None:
    rows = [{"a": f"text {n}", "b": "x", "label": name} for name in CLASSES for n in range(30)]
    mixed = random.Random(0).sample(rows, len(rows))
    spec = file_task(
        tmp_path, {"train": rows, "validation": mixed, "test": rows[::3]}, labels=CLASSES
    )
    found = {finding.split: finding.text for finding in remarks(spec, "sorted-labels")}
    assert {*found} == {"train", "test"}
    assert "the first 100 hold 4 of 10 labels" in found["train"]
    assert (
        "python -m mtl.train --task own/pair --max-train-samples 100 --set sample=drawn"
        in (found["train"])
    )
    assert "--max-eval-samples 50 --set sample=drawn" in found["test"]
    # a hold-out shuffles rows, and the file is sorted all the same
    (tmp_path / "one").mkdir()
    alone = file_task(tmp_path / "one", {"train": rows}, labels=CLASSES)
    assert "train" in {finding.split for finding in remarks(alone, "sorted-labels")}


def premises(count: int) -> list[dict[str, str]]:
    """A premise with three hypotheses each, in any order."""
    rows = [
        {
            "a": f"the long premise number {n} is about something",
            "b": f"hypothesis {n} {m}",
            "label": "yes" if (n + m) % 2 else "no",
            "user": f"u{n % 40}",
            "stars": str(n % 50),
        }
        for n in range(count)
        for m in range(3)
    ]
    return random.Random(1).sample(rows, len(rows))


def test_columns_that_a_hold_out_tears_apart_are_told_and_group_by_ends_it(tmp_path: Path) -> None:
    spec = file_task(tmp_path, {"train": premises(120)})
    found = remarks(spec, "group-by")
    assert {finding.split for finding in found} == {"dev", "test"}
    texts = [finding.text for finding in found if finding.split == "test"]
    assert len(texts) == 2  # the premise and the user; neither the hypothesis nor the stars
    assert any("have their 'a' in train, too" in text for text in texts)
    assert any("`group_by: user`" in text and "--group-by user" in text for text in texts)
    assert all(finding.count >= 0.6 * finding.of for finding in found)
    (tmp_path / "by").mkdir()
    kept = file_task(tmp_path / "by", {"train": premises(120)}, group_by="a")
    assert not remarks(kept, "group-by")


def test_files_that_share_groups_are_told_where_group_by_cannot_help(tmp_path: Path) -> None:
    rows = premises(120)
    spec = file_task(tmp_path, {"train": rows[:300], "test": rows[300:]}, group_by="user")
    (found,) = remarks(spec, "group-by")
    assert found.split == "test"
    assert "group_by cannot mend" in found.text
    assert 40 < found.count < found.of == 60  # what dev holds is in no training row
