"""Joint runs in two processes on a CPU, as ``accelerate launch`` starts them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, entries, mtl


def launch(*argv: object) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `--cpu` would start one process, whatever their number; this is torchrun, and gloo
    command = [
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_machines",
        "1",
        "--num_processes",
        "2",
    ]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    return subprocess.run(
        [sys.executable, *map(str, [*command, "-m", "mtl.joint", *argv])],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def events(runs: Path) -> list[dict[str, Any]]:
    (path,) = runs.glob("*/events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["hyperformer++", "propetl-m"])
def test_two_processes_give_what_one_gives(
    method: str, mini: Path, make_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    """Every step has one task: heads, embeddings and masks of the others get no gradient."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = make_tiny(tmp_path / "still", "roberta", **still)
    line = ["--suite", "mini", "--method", method, "--model", model, "--lr", "1e-3"]
    line += ["--eval-every", "6", "--max-steps", "18", "--json"]
    alone = mtl("joint", *line)
    assert alone.code == 0, alone
    both = ["--runs", tmp_path / "both-runs"]  # the same zoo: in two processes it is another run
    said = launch(*line, *both)
    assert said.returncode == 0, said.stderr[-2000:]
    (answer,) = said.stdout.splitlines()  # the second process says nothing
    (row,) = json.loads(answer)["runs"]
    assert row["status"] == "done"
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in entries(mini)]
    manifest, _ = sorted(manifests, key=lambda found: -found["training"]["processes"])
    assert [found["training"]["processes"] for found in manifests].count(2) == 1
    assert manifest["verified"]["equal_predictions"] == 1.0
    first, second = events(tmp_path / "runs"), events(tmp_path / "both-runs")
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        for name in ("train_loss", "dev_loss"):
            assert other[name] == pytest.approx(one[name], rel=2e-3)
    assert row["tasks"] == [
        {**expected, "dev": pytest.approx(expected["dev"], abs=0.07),
         "test": pytest.approx(expected["test"], abs=0.07),
         "stderr": pytest.approx(expected["stderr"], abs=0.05)}
        for expected in alone.json["runs"][0]["tasks"]
    ]  # fmt: skip
