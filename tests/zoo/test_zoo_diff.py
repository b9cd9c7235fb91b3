"""What differs between two entries, and entries that are nearly the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from care_bench import layers, put, run, said
from zoo_bench import composition, task

from mtl.errors import MtlError, RequestError
from mtl.zoo import Zoo
from mtl.zoo.arrays import read_arrays
from mtl.zoo.diff import distances
from mtl.zoo.twins import NEAR, twin_of, twins


def test_distances_per_layer_are_those_of_numpy(zoo: Zoo) -> None:
    rng = np.random.default_rng(0)
    a, b = (
        {k: rng.normal(size=v.shape).astype(np.float32) for k, v in layers(0).items()} for _ in "ab"
    )
    one, other = put(zoo, a), put(zoo, b, seed=1, runhash="1" * 16)
    found = distances(one, other)
    assert [group.group for group in found.groups] == ["layer 0", "layer 1"]
    assert found.only == {}
    for index, group in enumerate(found.groups):
        x, y = (side[f"encoder.layer.{index}.w"].ravel().astype(float) for side in (a, b))
        mean = (np.linalg.norm(x) + np.linalg.norm(y)) / 2
        assert group.relative == pytest.approx(np.linalg.norm(x - y) / mean, rel=1e-12)
        cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        assert group.cosine == pytest.approx(cosine, rel=1e-12)
        assert group.largest == pytest.approx(np.abs(x - y).max())
        assert group.values == 6
    assert found.whole is not None
    assert found.whole.values == 12


def test_diff_of_two_entries(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    better = {"test": {"accuracy": {"value": 0.75, "stderr": 0.2, "n": 4}}}
    one = put(zoo, layers(1.0))
    other = put(
        zoo,
        {**layers(1.0, last=3.0), "extra": np.ones(1, np.float32)},
        seed=1, runhash="1" * 16, metrics=better, run_settings={"lr": 0.01},
    )  # fmt: skip
    at = ["--zoo", str(zoo.root)]
    found = said(capsys, "diff", one.ref, other.ref, *at)
    assert found["settings"] == {"run_settings.lr": [0.001, 0.01], "seed": [0, 1]}
    assert found["metrics"]["test.accuracy"] == pytest.approx(
        {"a": 0.5, "b": 0.75, "difference": 0.25, "stderr": np.hypot(0.25, 0.2), "caveat": None}
    )
    assert found["predictions"] == {"n": 4, "equal": 1.0}
    groups = {group["group"]: group for group in found["weights"]["groups"]}
    assert groups["layer 0"]["relative"] == 0
    assert groups["layer 0"]["cosine"] == pytest.approx(1)
    assert groups["layer 1"]["relative"] == pytest.approx(1.0)  # |1 − 3| / mean(1, 3)
    assert groups["layer 1"]["largest"] == 2
    assert found["weights"]["only"] == {"adapter.safetensors:extra": "b"}
    assert run("diff", one.ref, other.ref, *at) == 0
    out = capsys.readouterr().out
    assert "run_settings.lr" in out
    assert "100.00% of 4 test predictions are equal" in out
    assert run("diff", one.ref, one.ref, *at) == 0
    assert "the same entry" in capsys.readouterr().out
    assert run("diff", one.ref, "nothing", *at) == 2


def test_bfloat16_is_read_as_what_it_is(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x20\xc0")
    assert read_arrays(path)["w"].tolist() == [1.0, -2.5]


@pytest.mark.parametrize(
    ("tensors", "changes", "how"),
    [
        (layers(1.0), {"seed": 1}, "weights"),
        (layers(5.0), {}, "settings"),
        (layers(1.0 + NEAR / 2), {"seed": 1}, "near"),
        (layers(1.0 + NEAR * 2), {"seed": 1}, None),
        (layers(-1.0), {"seed": 1}, None),
        (layers(1.0), {"seed": 1, "task": task("elsewhere")}, None),
    ],
)
def test_a_near_duplicate_is_named_when_it_is_stored(
    tensors: Any, changes: Any, how: str | None, zoo: Zoo, caplog: pytest.LogCaptureFixture
) -> None:
    first = put(zoo, layers(1.0))
    caplog.clear()
    with caplog.at_level(logging.WARNING, "mtl.zoo"):
        second = put(zoo, tensors, runhash="1" * 16, **changes)
    found = twin_of(zoo, second)
    if how is None:
        assert found is None
        assert caplog.records == []
        return
    assert found is not None
    assert (found.other, found.how) == (first.ref, how)
    assert first.ref in caplog.text
    assert "mtl.zoo diff" in caplog.text


def test_ls_names_near_duplicates(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    first = put(zoo, layers(1.0))
    second = put(zoo, layers(1.0), task=task("other"), created="2026-02-01T00:00:00+00:00")
    put(zoo, layers(2.0), seed=3, runhash="3" * 16)
    assert [(twin.ref, twin.other) for twin in twins(zoo.summaries())] == [(second.ref, first.ref)]
    at = ["--zoo", str(zoo.root)]
    rows = {row["ref"]: row for row in said(capsys, "ls", *at)["entries"]}
    assert rows[second.ref]["same_as"] == {"ref": first.ref, "how": "weights"}
    assert rows[first.ref]["same_as"] is None
    assert run("ls", *at) == 0
    assert f"note: {second.ref} has exactly the weights of {first.ref}" in capsys.readouterr().out


def test_a_composition_shows_in_diff_with_its_parents(zoo: Zoo) -> None:
    from mtl.zoo.diff import diff

    sources = [put(zoo, layers(n + 1.0), task=task(name)) for n, name in enumerate("ab")]
    one = composition(zoo, sources, np.ones((2, 2, 8), np.float32))
    other = composition(zoo, sources[::-1], 3 * np.ones((2, 2, 8), np.float32), runhash="2" * 16)
    found = diff(one, other)
    assert "parents" in found["settings"]
    assert [group["group"] for group in found["weights"]["groups"]] == ["layer 0", "layer 1"]
    assert found["weights"]["all"]["relative"] == pytest.approx(1.0)
    with pytest.raises((RequestError, MtlError)):
        zoo.get("nothing")
