"""Commands of the zoo run in this process, and entries with weights that are chosen."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from zoo_bench import fill, manifest

from mtl.cli.main import dispatch
from mtl.zoo import Entry, Zoo


def run(*arguments: str) -> int:
    return dispatch("zoo", list(arguments))


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    """The line of JSON that a command prints."""
    assert run(*arguments, "--json") == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def put(zoo: Zoo, tensors: dict[str, np.ndarray], **changes: Any) -> Entry:
    described = manifest(**changes)
    ref = zoo.location(
        "tiny-abababab", "toy", described.task["name"], described.method, described.seed,
        described.runhash,
    )  # fmt: skip
    with zoo.stage(ref) as folder:
        fill(folder)
        save_file(tensors, folder / "adapter.safetensors")
        return zoo.commit(folder, ref, described)


def layers(value: float, last: float | None = None) -> dict[str, np.ndarray]:
    full = {f"encoder.layer.{i}.w": np.full((2, 3), value, np.float32) for i in range(2)}
    if last is not None:
        full["encoder.layer.1.w"] = np.full((2, 3), last, np.float32)
    return full
