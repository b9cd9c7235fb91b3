"""Counts that are known without building the modules: shipped ones, and those of this machine."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtl.backbone import known_models
from mtl.compose import COMPOSITIONS
from mtl.errors import RequestError
from mtl.joint import JOINT
from mtl.methods import METHODS, count, count_method

SCRIPT = Path(__file__).parents[2] / "scripts" / "count_known.py"
QUICK = "bert-base-uncased"
NAMES = [*METHODS.names(), *COMPOSITIONS.names(), *JOINT.names()]

shipped_counts = count.shipped_counts.__wrapped__


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(count.SHIPPED.read_text())
    return content


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[] if name == QUICK else pytest.mark.slow)
        for name in known_models()
    ],
)
def test_what_is_shipped_is_what_the_modules_have(model: str) -> None:
    found = runpy.run_path(str(SCRIPT))["count_all"](model)
    assert len(found) == len(NAMES)
    counts = shipped()["counts"]
    differing = [key for key, value in found.items() if counts.get(key) != value]
    assert differing == [], "python scripts/count_known.py writes them again"


def test_nothing_else_is_shipped() -> None:
    assert len(shipped()["counts"]) == len(NAMES) * len(known_models())


def test_counts_of_other_versions_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_counts() == shipped()["counts"]
    other = tmp_path / "counts.json"
    other.write_text(json.dumps({**shipped(), "by": {"adapters": "0.0"}}))
    monkeypatch.setattr(count, "SHIPPED", other)
    assert shipped_counts() == {}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods that are counted from their modules from now on."""
    found: list[str] = []
    real = count._count

    def counting(method: Any, *rest: Any) -> Any:
        found.append(method.name)
        return real(method, *rest)

    monkeypatch.setattr(count, "_count", counting)
    return found


def test_this_machine_counts_once(
    counted: list[str], tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny("roberta"), model)
    first = count_method("pfeiffer", str(model), values={"bottleneck": 5})
    assert count_method("pfeiffer", str(model), values={"bottleneck": 5}) == first
    assert counted == ["pfeiffer"]
    assert count_method("pfeiffer", str(model), values={"bottleneck": 6}) != first
    assert count_method("pfeiffer", str(model), values={"bottleneck": 5}, head="linear") != first
    assert len(counted) == 3
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    assert count_method("pfeiffer", str(model), values={"bottleneck": 5}) != first
    assert len(counted) == 4


def test_a_damaged_count_is_counted_again(counted: list[str], tmp_path: Path) -> None:
    first = count_method("ia3", QUICK, values={})
    (path,) = (tmp_path / "cache" / "machine" / "counts").iterdir()
    path.write_text(path.read_text().replace(str(first.method), str(first.method + 1)))
    assert count_method("ia3", QUICK, values={}) == first
    assert counted == ["ia3", "ia3"]


def test_a_known_count_says_what_is_missing_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(count, "shipped_counts", shipped_counts)
    assert count_method("vera", QUICK, values={}).method > 0
    monkeypatch.setattr(count, "find_spec", lambda name: None)
    monkeypatch.setattr("mtl.methods.peft_files.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="pip install peft"):
        count_method("vera", QUICK, values={})


def test_what_another_package_brings_is_counted_each_time(
    counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code may change while ours does not."""
    monkeypatch.setattr(count, "shipped_counts", shipped_counts)
    settings = METHODS.get("pfeiffer").settings()
    other = replace(METHODS.get("pfeiffer"), summary="another of that name")
    for _ in range(2):
        count.count_settings(other, settings, QUICK)
    assert counted == ["pfeiffer"] * 2
    count.count_settings(METHODS.get("pfeiffer"), settings, QUICK)
    assert counted == ["pfeiffer"] * 2
