"""bf16 end to end on a CPU: train, compose, verify, export, in the process that ran fp32."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from cli_bench import mtl

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
