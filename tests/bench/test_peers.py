"""The benchmark beside the loops that people use: both sides train the same rows, as often."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NUMBERS = {
    "ours, ms an example",
    "theirs",
    "processor, ratio",
    "processor, upper 95 %",
    "clock, ratio",
    "clock, upper 95 %",
}


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("MTL_QUIET", "1")
    import peers  # type: ignore[import-not-found]

    # what its main sets for the whole process
    libraries = [
        logging.getLogger(name) for name in ("adapters", "transformers", "peft", "accelerate")
    ]
    levels, threads = [library.level for library in libraries], torch.get_num_threads()
    yield peers
    for library, level in zip(libraries, levels, strict=True):
        library.setLevel(level)
    torch.set_num_threads(threads)
    sys.modules.pop("peers", None)


@pytest.mark.parametrize("peer", ["pfeiffer", "lora", "fusion"])
def test_both_loops_train_the_same_rows(
    peer: str,
    peers: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import DataCollatorWithPadding

    # the lengths of the rows that each side puts into a batch
    ours: list[int] = []
    theirs: list[int] = []
    collate, padded = peers.Given.collate, DataCollatorWithPadding.__call__

    def by_us(self: Any, task: str, rows: np.ndarray) -> dict[str, Any]:
        ours.extend(self.encoded.lengths[rows].tolist())
        return collate(self, task, rows)  # type: ignore[no-any-return]

    def by_them(self: Any, features: list[dict[str, Any]]) -> Any:
        theirs.extend(len(feature["input_ids"]) for feature in features)
        return padded(self, features)

    monkeypatch.setattr(peers.Given, "collate", by_us)
    monkeypatch.setattr(DataCollatorWithPadding, "__call__", by_them)
    line = ["--data-root", str(tmp_path), "--model", "demo", "--tasks", "demo/entail", "--json"]
    sizes = {"--batch": 4, "--steps": 1, "--pairs": 2, "--rows": 8, "--sources": 2}
    sizes_said = [word for name, value in sizes.items() for word in (name, str(value))]
    assert peers.main([*line, "--peers", peer, *sizes_said]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["base"] == "demo"
    assert [row["batches"] for row in found["rows"]] == ["drawn", "grouped", "drawn / grouped"]
    for row in found["rows"]:
        assert set(row) == {"peer", "task", "batches"} | NUMBERS
        assert (row["peer"], row["task"]) == (peer, "demo/entail")
        assert all(row[name] > 0 for name in NUMBERS)
    # rounds (one warms up) × drawn and grouped × a step that is not timed and one that is
    assert len(ours) == 3 * 2 * 2 * 4
    assert sorted(ours) == sorted(theirs)


def test_too_few_rows_are_refused(peers: ModuleType, tmp_path: Path) -> None:
    line = f"--data-root {tmp_path} --model demo --tasks demo/entail --batch 8 --steps 1 --rows 8"
    with pytest.raises(SystemExit, match=r"8 training rows, --batch × \(--steps \+ 1\) are 16"):
        peers.main(line.split())
