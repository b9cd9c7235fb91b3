"""``--method gated``: what it stores is an omega like any other, for all who read one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from cli_bench import mtl
from safetensors.numpy import load_file

from mtl.zoo import open_zoo


def test_it_is_verified_measured_and_exported(stocked: Path, tmp_path: Path) -> None:
    said = mtl("compose", "--target", "same", "--method", "gated", "--epochs", "2")
    assert said.code == 0, said
    (entry,) = open_zoo(stocked).entries(kind="composition")
    stored = load_file(entry.folder / "composition.safetensors")
    assert {name: value.shape for name, value in stored.items()} == {
        "omega.0": (3, 48),
        "omega.1": (3, 48),
    }
    # gates and scales are shared: what differs between layers is v alone, which moves slowly
    means = np.stack([value.mean(1) for value in stored.values()])
    assert np.abs(means[0] - means[1]).max() < 0.05
    assert mtl("zoo", "verify", entry.ref).code == 0
    measured = mtl("zoo", "show", entry.ref, "--measure", "--json")
    assert measured.code == 0, measured
    said = mtl("export", entry.ref, tmp_path / "out", "--to", "adapters", "--json")
    assert said.code == 0, said
