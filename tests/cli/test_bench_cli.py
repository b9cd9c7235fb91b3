"""``mtl.bench`` end to end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, mtl, refused

LINE = ["--sources", "2", "--bottleneck", "3", "--batch", "2", "--tokens", "8", "--rounds", "1"]


def test_compose(tiny: Callable[[str], str]) -> None:
    said = mtl(
        "bench", "compose", "--model", tiny("deberta-v2"), "--device", "cpu", *LINE, "--json"
    )
    assert said.code == 0, said
    (result,) = said.json["results"]
    assert result["shape"]["type"] == "deberta-v2"
    assert result["composition_to_stock_adapter"] > 0
    said = mtl("bench", "compose", "--model", tiny("roberta"), "--device", "cpu", *LINE)
    assert said.code == 0, said
    for part in ("scalearn_folded", "stock_fuse", "ATen calls", "stock adapter of width 6", "fp32"):
        assert part in said.out


def test_compiling_without_a_compiler_ends_clearly(
    tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Torch finds it out deep inside its compiler: asked before anything is measured."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    monkeypatch.delenv("CXX", raising=False)
    line = ["bench", "compose", "--model", tiny("roberta"), "--device", "cpu", *LINE, "--compile"]
    # In a process of its own: torch remembers which compiler it found.
    done = subprocess.run(
        [sys.executable, "-m", "mtl", *line], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for part in ("--compile: torch.compile cannot compile for cpu", "C++ compiler", "without"):
        assert part in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled(tiny: Callable[[str], str]) -> None:
    line = ["bench", "compose", "--model", tiny("roberta"), "--device", "cpu", *LINE, "--compile"]
    said = mtl(*line, "--bf16", "--json")
    assert said.code == 0, said.err
    (result,) = said.json["results"]
    assert result["shape"]["compiled"] is True
    for rows in (result["training"], result["inference"]):
        for row in rows.values():
            assert row["seconds"] > 0
            assert row["launches"] is None  # counting would keep torch from compiling


def test_a_gpu_without_triton_is_measured_all_the_same(
    tiny: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --bf16 and --compile a GPU is measured in all four ways, or in the two it can."""
    import torch

    shapes: list[Any] = []

    def measure(config: Any, shape: Any, device: Any) -> dict[str, Any]:
        shapes.append((shape.bf16, shape.compiled, str(device)))
        return {}

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("mtl.bench.measure_compose", measure, raising=False)
    for problem, expected in (("", 4), ("no Triton", 2)):
        shapes.clear()
        monkeypatch.setattr(
            "mtl.bench.measuring.compile_problem", lambda device, problem=problem: problem
        )
        said = mtl("bench", "compose", "--model", tiny("roberta"), *LINE, "--json")
        assert said.code == 0, said.err
        assert len(shapes) == len(set(shapes)) == len(said.json["results"]) == expected
        assert {device for *_, device in shapes} == {"cuda"}
        assert ("no Triton" in said.err) == bool(problem)


def test_what_is_refused(tiny: Callable[[str], str]) -> None:
    refused(mtl("bench", "compose", "--model", "no-such-model"), "no-such-model")
    refused(mtl("bench", "compose", "--model", tiny("bert"), "--device", "tpu"), "tpu")
    refused(mtl("bench", "compose", "--model", tiny("bert"), "--batch", "0"), "--batch 0")
