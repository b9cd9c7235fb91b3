"""The registry: names, guesses, lazy targets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mtl.errors import RequestError
from mtl.registry import Registry


def test_names_in_order_and_guesses() -> None:
    registry: Registry[int] = Registry("number")
    registry.add("one", 1)
    registry.register("two")(2)
    assert registry.names() == list(registry) == ["one", "two"]
    assert registry.get("two") == 2
    assert "one" in registry
    assert "three" not in registry
    with pytest.raises(RequestError, match=r"Unknown number 'twoo'\. Did you mean 'two'\?") as said:
        registry.get("twoo", hint="See the list.")
    assert str(said.value).endswith("See the list.")
    with pytest.raises(ValueError, match="twice"):
        registry.add("one", 3)


def test_lazy_targets_are_imported_on_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazily_imported.py").write_text("thing = {'a': 1}\nwrong = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry: Registry[Any] = Registry("thing", dict)
    registry.add("thing", "lazily_imported:thing")
    registry.add("wrong", "lazily_imported:wrong")
    assert registry.names() == ["thing", "wrong"]
    assert "lazily_imported" not in sys.modules
    assert registry.get("thing") == {"a": 1}
    assert registry.get("thing") is registry.get("thing")
    with pytest.raises(TypeError, match="must be a dict"):
        registry.get("wrong")
    with pytest.raises(TypeError, match="must be a dict"):
        registry.add("bad", 3)


def test_every_registered_method_and_composition_can_be_had() -> None:
    from mtl.backbone import HEADS
    from mtl.compose import COMPOSITIONS
    from mtl.methods import METHODS

    for registry in (METHODS, COMPOSITIONS, HEADS):
        for name in registry.names():
            item = registry.get(name)
            assert getattr(item, "name", name) == name
    for name in METHODS.names():
        METHODS.get(name).settings()
    for name in COMPOSITIONS.names():
        COMPOSITIONS.get(name).settings(**COMPOSITIONS.get(name).defaults)
