"""``scripts/starter_zoo.sh`` on a tiny suite, its card, and the other side with a CSV file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_bench import ROOT, TASKS, digests, mtl, refused
from recommended import recommends

from mtl.zoo import open_zoo


def starter(model: str, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/starter_zoo.sh", model, str(out.parents[1]), str(out), *options],
        env={
            **os.environ,
            "MTL_PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
    )


@recommends("zoo/pack_card.py", "python -m mtl.zoo unpack {}")
@recommends("zoo/pack_card.py", "a task of yours (`python -m mtl.tasks new`)")
@recommends("zoo/pack_card.py", "python -m mtl.train --task my/task.yaml {}")
@recommends("zoo/pack_card.py", "python -m mtl.compose --target my/task.yaml")
def test_from_a_starter_zoo_to_a_task_of_ones_own(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = os.environ["MTL_MODEL"]
    out = tmp_path / "made" / "small.mtlzoo"
    tiny = ["--suite", "mini", "--rows", "32", "--eval", "16", "--epochs", "1"]
    tiny += ["--license", "mit"]
    done = starter(model, out, *tiny)
    assert done.returncode == 0, done.stderr
    packed = out.read_bytes()
    made = open_zoo(tmp_path / "made/small.zoo").entries()
    assert [entry.manifest.task["id"] for entry in made] == sorted(TASKS)
    for entry in made:
        assert entry.manifest.data["sizes"] == {"train": 32, "dev": 16, "test": 16}

    # the card says what made it, and nothing of this machine
    card = out.with_suffix(".md").read_text(encoding="utf-8")
    for entry in made:
        manifest = entry.manifest
        test = manifest.headline()
        line = next(text for text in card.splitlines() if f"| {manifest.task['id']} |" in text)
        assert f"| {manifest.method} | 0 | 32 | {manifest.task['headline']} |" in line
        assert test is not None
        assert f"{test['value']:.4f}" in line
        assert manifest.base["fingerprint"] in card
    assert "the first 32 rows only" in card
    assert card.count("| unknown |") == 3  # the task files name no licence of the data
    assert "Of the weights in this file: mit" in card
    assert "--max-train-samples 32" in card
    assert f"torch {made[0].manifest.versions['torch']}" in card
    assert str(tmp_path) not in card

    # again: nothing is trained, the same bytes
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "made/small.zoo").rglob("*.json")
    }
    assert starter(model, out, *tiny).returncode == 0
    assert out.read_bytes() == packed
    assert before == {path: path.stat().st_mtime_ns for path in before}

    # the other side, by the lines of the card
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    rows = [f"the {name} is here number {i},{name}" for i in range(20) for name in ("cat", "dog")]
    Path("own.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    lines = card.partition("```sh\n")[2].partition("```")[0].splitlines()
    assert len(lines) == 3
    Path("small.mtlzoo").write_bytes(packed)
    assert mtl("tasks", "new", "my/task", "--from", "own.csv", "--out", "my/task.yaml").code == 0
    for line in lines:
        _, _, module, *words = line.replace("ENCODER", model).split()
        quick = [] if "unpack" in line else ["--max-steps", "2"]
        said = mtl(module.removeprefix("mtl."), *words, *quick, "--zoo", "zoo")
        assert said.code == 0, (line, said)
    (composed,) = open_zoo("zoo").entries(kind="composition")
    assert composed.manifest.task["id"] == "my/task"
    sources = [parent["task"] for parent in composed.manifest.parents]
    assert sources == [*TASKS, "my/task"]
    theirs = {entry.digest for entry in made}
    assert theirs < set(digests(Path("zoo")).values())
    assert theirs == {parent["digest"] for parent in composed.manifest.parents[:-1]}


def test_what_the_script_refuses(tmp_path: Path) -> None:
    for argv in (["out.zip"], ["a.mtlzoo", "--rows"], ["a.mtlzoo", "--made-up", "3"]):
        done = subprocess.run(
            [ROOT / "scripts/starter_zoo.sh", "m", "d", *argv], capture_output=True, text=True
        )
        assert done.returncode == 2
        assert "mtlzoo" in done.stderr
    assert not list(tmp_path.iterdir())


def test_what_the_card_refuses(stocked: Path, tmp_path: Path) -> None:
    line = ["zoo", "pack", "--all", tmp_path / "a.mtlzoo", "--zoo", stocked]
    refused(mtl(*line, "--license", "mit"), "--license", "--card")
    refused(mtl(*line, "--license", "No Name!", "--card", tmp_path / "a.md"), "No Name!")
    assert not (tmp_path / "a.mtlzoo").exists()
    assert mtl(*line, "--card", tmp_path / "a.md", "--dry-run").code == 0
    assert not (tmp_path / "a.md").exists()
    assert mtl(*line, "--card", tmp_path / "a.md").code == 0
    assert "none was given" in (tmp_path / "a.md").read_text()
