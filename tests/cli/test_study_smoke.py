"""``--smoke`` and ``--probe``: every cell of a study on a tiny base, and two steps timed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli_bench import digests, mtl, process
from study_bench import write_study

from mtl.data import load_data
from mtl.study import list_studies
from mtl.tasks import list_tasks, load_task


def smoke(*argv: object, timeout: float = 280) -> dict[str, str]:
    """(label → status) of the runs of a smoke; none may fail."""
    worker = process("study", "run", *argv, "--smoke", "--json")
    out, err = worker.communicate(timeout=timeout)
    assert worker.returncode == 0, (out[-3000:], err[-3000:])
    runs = yaml.safe_load(out)["runs"]
    assert {run["status"] for run in runs} == {"done"}, runs
    return {f"{run['task']} {run['method']}": run["status"] for run in runs}


def test_a_cell_of_every_kind_without_data(tmp_path: Path) -> None:
    """Candidates, choices, pairs, windows and label sets, made from specs; all kinds of runs."""
    path = tmp_path / "few.yaml"
    content = {
        "tasks": ["superglue/copa", "superglue/record", "squad/squad", "humset/sectors"],
        "model": "xlm-roberta-base",
        "recipe": "scalearn",
        "protocol": "official",
        "seeds": [3],
        "train": [{"method": "pfeiffer"}],
        "compose": [{"method": "scalearn", "targets": ["superglue/copa"], "source_seeds": "same"}],
        "joint": [{"method": "adapter-m", "tasks": ["superglue/copa", "humset/sectors"]}],
    }
    path.write_text(yaml.safe_dump(content))
    done = smoke(path, "--workers", 1)
    assert len(done) == 6
    assert not (tmp_path / "zoo").exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("task", list_tasks())
def test_rows_made_from_a_spec_can_be_read(task: str, tmp_path: Path) -> None:
    from mtl.study.smoke import write_task

    spec = load_task(task)
    if "repo" not in spec.data:
        return
    made = load_task(str(write_task(spec, tmp_path)))
    protocol = "official" if spec.suite in {"humset", "nli"} else "scalearn"
    data = load_data(made, protocol=protocol, max_train_samples=32, max_eval_samples=32)
    assert data.sizes["train"] == 32
    assert (made.id, made.kind, made.inputs, made.metrics) == (
        *(spec.id, spec.kind, spec.inputs, spec.metrics),
    )


def test_two_steps_tell_what_a_run_costs(mini: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, "compose", "joint", seeds=[0, 1], tasks=["mood"])
    said = mtl("study", "plan", path, "--probe", "--json")
    assert said.code == 0, said
    runs = said.json["runs"]
    assert [run["seconds_by"] for run in runs] == ["probe", "probe"]
    assert all(0 < run["seconds"] < 60 for run in runs)
    assert said.json["bill"]["unknown"] == 0
    assert not digests(mini)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("study", list_studies())
def test_every_study_that_comes_along(study: str) -> None:
    assert len(smoke(study, "--workers", 2, timeout=3500)) >= 6
