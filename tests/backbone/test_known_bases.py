"""Records of bases that were loaded before: when they count, and that nothing trains on them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_hostile_models import cached

from mtl.backbone import backbones, known, load_backbone
from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.remembered import made_by


@pytest.fixture
def folder(tiny: Callable[[str], str], tmp_path: Path) -> Path:
    """A base that nobody has loaded yet."""
    backbones._load.cache_clear()
    return Path(shutil.copytree(tiny("roberta"), tmp_path / "model"))


def record(tmp_path: Path) -> Path:
    """The one record of a base in the cache."""
    (found,) = (tmp_path / "cache" / "machine" / known.KIND).iterdir()
    return found


def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that are loaded from now on."""
    found: list[str] = []
    real = backbones._load.__wrapped__

    def load(model: str, *rest: Any) -> Any:
        found.append(model)
        return real(model, *rest)

    monkeypatch.setattr(backbones, "_load", load)
    return found


def test_a_known_base_is_loaded_when_it_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = loads(monkeypatch)
    first = load_backbone(str(folder))
    assert loaded == [str(folder)]
    again = load_backbone(str(folder))
    assert (again.base, again.tokens, again.pooler) == (first.base, first.tokens, first.pooler)
    assert loaded == [str(folder)]
    assert again.encoder().config.hidden_size == again.base.hidden_size
    assert again.tokenizer.is_fast
    assert loaded == [str(folder)] * 2
    assert again.pristine is again.pristine
    assert first.encoder().config.hidden_size == first.base.hidden_size
    assert loaded == [str(folder)] * 2


def write(name: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(text)


TOUCHED: dict[str, Callable[[Path], Any]] = {
    "written": lambda folder: (folder / "config.json").write_bytes(
        (folder / "config.json").read_bytes()
    ),
    "weights": lambda folder: (folder / "model.safetensors").touch(),
    "added": write("special_tokens_map.json.old", "{}"),
    "removed": lambda folder: (folder / "special_tokens_map.json").unlink(),
    "renamed": lambda folder: (folder / "special_tokens_map.json").rename(folder / "other.json"),
}


@pytest.mark.parametrize("how", TOUCHED)
def test_a_file_that_was_touched_makes_the_record_count_for_nothing(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "special_tokens_map.json").write_text("{}")
    load_backbone(str(folder))
    TOUCHED[how](folder)
    loaded = loads(monkeypatch)
    load_backbone(str(folder))
    assert loaded == [str(folder)]
    load_backbone(str(folder))
    assert loaded == [str(folder)]


def altered(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    def alter(text: str) -> str:
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    return alter


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "another value": lambda text: "[1, 2]",
    "of another": altered(lambda value: value.update(key="x")),
    "nothing in it": altered(lambda value: value.update(content=None)),
    "a digit": altered(lambda value: value["content"]["base"].update(hidden_size=768)),
    "a field less": altered(lambda value: value["content"]["base"].pop("pooler")),
    "no hash": altered(lambda value: value.pop("sha256")),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_is_none(
    how: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load_backbone(str(folder)).base
    path = record(tmp_path)
    path.write_text(DAMAGES[how](path.read_text()))
    loaded = loads(monkeypatch)
    assert load_backbone(str(folder)).base == expected
    assert loaded == [str(folder)]
    assert load_backbone(str(folder)).base == expected
    assert loaded == [str(folder)]


@pytest.mark.parametrize("of", ["mtl", "transformers"])
def test_a_record_of_other_code_is_none(
    of: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_backbone(str(folder))
    monkeypatch.setattr(known, "made_by", lambda *names: {**made_by(*names), of: "other"})
    loaded = loads(monkeypatch)
    load_backbone(str(folder))
    assert loaded == [str(folder)]


def test_nothing_is_computed_with_another_base_than_the_recorded_one(
    folder: Path, tmp_path: Path
) -> None:
    right = load_backbone(str(folder)).base
    path = record(tmp_path)
    value = json.loads(path.read_text())
    value["content"]["base"] |= {"weights": "0" * 64, "fingerprint": "0" * 64}
    value["sha256"] = sha256_json(value["content"])
    path.write_text(json.dumps(value))

    wrong = load_backbone(str(folder))
    assert wrong.base.fingerprint == "0" * 64
    with pytest.raises(RequestError, match=r"weights 00000000 and .*run the same command again"):
        wrong.encoder()
    assert not path.exists()
    again = load_backbone(str(folder))
    assert again.base == right
    again.encoder()


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "file"))
    load_backbone(str(folder)).encoder()


def test_a_model_of_the_hub_is_known_by_its_snapshot(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbones._load.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hub"))
    cached(tmp_path / "hub", "some/model", Path(tiny("roberta")))
    first = load_backbone("some/model").base
    loaded = loads(monkeypatch)
    assert load_backbone("some/model").base == first
    assert loaded == []
    repository = tmp_path / "hub" / "models--some--model"
    shutil.copytree(tiny("bert"), repository / "snapshots" / ("cd" * 20))
    (repository / "refs" / "main").write_text("cd" * 20)
    second = load_backbone("some/model").base
    assert (second.type, second.revision) == ("bert", "cd" * 20)
    assert loaded == ["some/model"]
    assert load_backbone("some/model@" + "ab" * 20).base == first
