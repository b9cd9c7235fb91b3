"""bf16 end to end on a CPU: train, compose, verify, export, in the process that ran fp32."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl

from mtl.engine.hardware import cpu_has_bf16

BF16 = ["--suite", "mini", "--epochs", "2", "--json", "--set", "precision=bf16"]


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++", "fusion"])
def test_train_compose_verify_and_export(method: str, stocked: Path, tmp_path: Path) -> None:
    from mtl.files import read_safetensors

    said = mtl("train", "--task", "same", "--method", "houlsby", "--seeds", "7", *BF16)
    assert said.code == 0, said.err
    single = said.json["runs"][0]["ref"]
    said = mtl("compose", "--target", "same", "--method", method, *BF16)
    assert said.code == 0, said.err
    ref = said.json["runs"][0]["ref"]
    manifest = json.loads((stocked / ref / "manifest.json").read_text())
    assert manifest["training"]["precision"] == "bf16"
    assert manifest["run_settings"]["precision"] == "bf16"
    tensors, _ = read_safetensors(stocked / ref / "composition.safetensors")
    # What is learned stays fp32: steps of omega are far below what bf16 tells apart near 0.3.
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float32"}
    if method != "fusion":
        moved = [value for tensor in tensors.values() for value in tensor.flatten().tolist()]
        assert any(value != float(f"{value:.2f}") for value in moved)
    events = (tmp_path / "runs" / manifest["runhash"] / "events.jsonl").read_text().splitlines()
    assert len(events) == 2
    for line in events:
        event = json.loads(line)
        assert math.isfinite(event["train_loss"])
        assert math.isfinite(event["dev_loss"])
    # Sources of fp32 and compositions of bf16 are verified by one command, each as it was run.
    sources = [parent["ref"] for parent in manifest["parents"]]
    said = mtl("zoo", "verify", *sources, ref, single, *sources[:1], "--json")
    assert said.code == 0, said
    if method != "fusion":
        said = mtl("export", ref, tmp_path / "out", "--to", "adapters", "--evaluate", "--json")
        assert said.code == 0, said.err
        assert said.json["proof"]["max_logit_difference"] <= 1e-5


def test_the_two_precisions_are_two_runs(stocked: Path) -> None:
    line = ["compose", "--target", "same", "--suite", "mini", "--epochs", "1", "--json", "--set"]
    refs = {
        mtl(*line, f"precision={precision}").json["runs"][0]["ref"]
        for precision in ("fp32", "bf16", "fp32")
    }
    assert len(refs) == 2


@pytest.mark.skipif(not cpu_has_bf16(), reason="this processor has neither AVX512-BF16 nor AMX")
def test_a_processor_that_computes_in_bf16_gives_the_same_again(mini: Path, tmp_path: Path) -> None:
    """One seed in two zoos: weights and answers bit for bit, dropout on."""
    found = []
    for name in ("one", "two"):
        places = ["--zoo", tmp_path / name, "--runs", tmp_path / f"{name}-runs"]
        said = mtl("train", "--task", "same", "--method", "pfeiffer", *BF16, *places)
        assert said.code == 0, said.err
        folder = tmp_path / name / said.json["runs"][0]["ref"]
        files = {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".json"}
        del files["README.md"]
        assert {"adapter.safetensors", "predictions.safetensors"} <= files.keys()
        found.append(files)
    assert found[0] == found[1]


def test_simple_baselines_are_fp32_whatever_the_run(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand in tables, and one cache keeps them for runs of any precision."""
    from mtl.engine import vectors

    seen, real = [], vectors.token_vectors

    def token_vectors(encoder: Any, encoded: Any, device: Any, rows: Any = None) -> Any:
        seen.append(device.precision)
        return real(encoder, encoded, device, rows)

    monkeypatch.setattr(vectors, "token_vectors", token_vectors)
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    said = mtl("train", "--task", "mood", "--method", "pfeiffer", *BF16)
    assert said.code == 0, said.err
    assert set(seen) == {"fp32"}


def test_a_plan_says_where_bf16_is_emulated(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl.cli import plan

    line = ["train", "--suite", "mini", "--task", "same", "--dry-run"]
    for native in (True, False):
        monkeypatch.setattr(plan, "cpu_has_bf16", lambda native=native: native)
        said = mtl(*line, "--precision", "bf16")
        assert said.code == 0, said.err
        assert ("emulated" in said.out) is not native
        told = mtl(*line, "--precision", "bf16", "--json").json["plan"]
        assert told.get("emulated") == (None if native else ["bf16"])
        assert "emulated" not in mtl(*line, "--precision", "fp32").out


@pytest.mark.parametrize("method", ["adalora", "vera", "sora", "adamix", "madakron-full"])
def test_what_is_stored_in_another_form_differs_by_roundings(method: str, mini: Path) -> None:
    """Factors that are folded for storing, merged experts: equal in fp32, near in bf16."""
    values = {"adalora": ["rank=3", "target_rank=1"]}.get(method, [])
    said = mtl("train", "--task", "mood", "--method", method, *BF16, "lr=0.03", *values)
    assert said.code == 0, said.err
    ref = said.json["runs"][0]["ref"]
    verified = json.loads((mini / ref / "manifest.json").read_text())["verified"]
    assert verified["max_logit_difference"] <= 0.05
    said = mtl("zoo", "verify", ref, "--json")
    assert said.code == 0, said


def test_a_wrong_entry_does_not_hide_behind_the_roundings(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.01 beside is as little as a rounding of bf16, and still found: fp32 is asked, too."""
    import torch

    from mtl.backbone import heads

    real = heads.save_head

    def spoiled(head: torch.nn.Module, *args: object, **options: object) -> None:
        bias = list(head.parameters())[-1]
        with torch.no_grad():
            bias.add_(0.01)
            real(head, *args, **options)
            bias.sub_(0.01)

    monkeypatch.setattr(heads, "save_head", spoiled)
    said = mtl("train", "--task", "mood", "--method", "pfeiffer", *BF16)
    assert said.code == 1
    assert "does not answer as the trained model did" in said.err
    assert not list(mini.rglob("manifest.json"))


def test_tolerances() -> None:
    import numpy as np

    from mtl.runs.store import tolerance_of
    from mtl.tasks.spans import MASKED

    scores = np.array([[0.5, -8.0], [MASKED, 2.0]])
    assert tolerance_of("fp32", scores) == 1e-3
    assert tolerance_of("bf16", scores) == 8 / 32
    assert tolerance_of("bf16", scores[0] / 100) == 1 / 32
