"""Encoded splits against the tokenizer's own output, truncation, padding, the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_bench import ROWS, file_task, three

from mtl.data import (
    Passes,
    TaskData,
    encode,
    eval_order,
    load_data,
    tokenizer_fingerprint,
    train_order,
)
from mtl.errors import RequestError

LONG = {"a": "the cat sees a bird and " * 4, "b": "no dog likes a red apple", "label": "no"}


@pytest.fixture
def data(tmp_path: Path) -> TaskData:
    spec = file_task(tmp_path, three([*ROWS, LONG] * 3))
    return load_data(spec, protocol="official")


@pytest.fixture(params=["roberta", "bert"])
def tokenizer(request: pytest.FixtureRequest, tiny: Callable[[str], str]) -> Any:
    from mtl.backbone.backbones import load_tokenizer

    return load_tokenizer(tiny(request.param))


@pytest.fixture
def words(tiny: Callable[[str], str]) -> Any:
    from mtl.backbone.backbones import load_tokenizer

    return load_tokenizer(tiny("roberta"))


def same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name))
        for field in dataclasses.fields(a)
        if isinstance(getattr(a, field.name), np.ndarray)
    ) and (a.truncated, a.fingerprint, len(a)) == (b.truncated, b.fingerprint, len(b))


def expected(data: TaskData, tokenizer: Any, rows: np.ndarray, length: int) -> Any:
    texts = [[column[row] for row in rows] for column in data.splits["train"].texts]
    return tokenizer(
        *texts,
        truncation="longest_first",
        max_length=length,
        padding="longest",
        return_tensors="pt",
    )


@pytest.mark.parametrize("length", [64, 16])
def test_batches_are_what_the_tokenizer_pads(data: TaskData, tokenizer: Any, length: int) -> None:
    encoded = encode(data, "train", tokenizer, max_length=length)
    batches = [*train_order(encoded, 4, 0, 0), *eval_order(encoded, Passes(rows=4)), np.array([4])]
    for rows in batches:
        batch, whole = encoded.collate(rows), expected(data, tokenizer, rows, length)
        assert set(batch) == {*whole, "labels", "row"}
        for name, values in whole.items():
            assert batch[name].dtype == torch.int64
            assert torch.equal(batch[name], values), name
        assert batch["row"].tolist() == rows.tolist()
        assert batch["labels"].tolist() == data.splits["train"].labels[rows].tolist()
    assert encoded.truncated == (3 if length == 16 else 0)
    assert (encoded.types is not None) == ("token_type_ids" in tokenizer.model_input_names)


def test_the_longer_text_of_a_pair_is_cut_first(data: TaskData, words: Any) -> None:
    encoded = encode(data, "train", words, max_length=16)
    tokens = words.convert_ids_to_tokens(encoded.collate(np.array([4]))["input_ids"][0].tolist())
    assert len(tokens) == 16
    assert tokens[-7:] == ["no", "dog", "likes", "a", "red", "apple", "</s>"]
    assert tokens[:3] == ["<s>", "the", "cat"]


def test_token_types_tell_the_texts_apart(data: TaskData, tiny: Callable[[str], str]) -> None:
    from tokenizers import processors
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    sep, cls = tokenizer.sep_token, tokenizer.cls_token
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, tokenizer.cls_token_id), (sep, tokenizer.sep_token_id)],
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    encoded = encode(data, "train", tokenizer)
    batch = encoded.collate(np.array([1, 0]))
    # "no dog" [SEP] "the dog likes the old house": 4 and 7 tokens; the other row is shorter.
    assert batch["token_type_ids"][0].tolist() == [0] * 4 + [1] * 7
    assert batch["token_type_ids"][1].tolist() == [0] * 7 + [1] * 3 + [0]


def test_one_text(tmp_path: Path, words: Any) -> None:
    data = load_data(file_task(tmp_path, three(ROWS), inputs=["{b}"]), protocol="official")
    batch = encode(data, "test", words).collate(np.array([0, 2]))
    whole = words(["a bird", "some friend"], return_tensors="pt", padding=True)
    assert torch.equal(batch["input_ids"], whole["input_ids"])


def test_cache_gives_the_same_and_is_rebuilt_when_damaged(
    data: TaskData, words: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "encoded"
    plain = encode(data, "train", words)
    first = encode(data, "train", words, cache=cache)
    (file,) = cache.rglob("*.safetensors")
    stamp, content = file.stat().st_mtime_ns, file.read_bytes()
    calls = []
    second = encode(data, "train", _Counting(words, calls), cache=cache)
    assert not calls  # read, not tokenised
    assert file.stat().st_mtime_ns == stamp
    assert same(plain, first)
    assert same(first, second)
    for damage in (b"", content[:40], content[:-1], content[:-3] + b"\xff" + content[-2:]):
        file.write_bytes(damage)
        caplog.clear()
        assert same(plain, encode(data, "train", words, cache=cache))
        assert "is damaged; encoding again" in caplog.text
        assert file.read_bytes() == content


class _Counting:
    """A tokenizer that notes its calls."""

    def __init__(self, inner: Any, calls: list[int]) -> None:
        self._inner, self._calls = inner, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._calls.append(1)
        return self._inner(*args, **kwargs)


def test_cache_that_cannot_be_written_costs_only_time(
    data: TaskData, words: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    found = encode(data, "train", words, cache=tmp_path / "file")
    assert same(found, encode(data, "train", words))
    assert "not cached" in caplog.text


def test_fingerprints_follow_data_tokenizer_and_length(
    data: TaskData, words: Any, tiny: Any
) -> None:
    from mtl.backbone.backbones import load_tokenizer

    other = load_tokenizer(tiny("bert"))
    prints = {
        encode(data, "train", words).fingerprint,
        encode(data, "train", words, max_length=16).fingerprint,
        encode(data, "train", other).fingerprint,
    }
    assert len(prints) == 3
    assert encode(data, "train", words).fingerprint in prints
    before = tokenizer_fingerprint(words)
    words(["a", "a cat"], padding=True, truncation=True, max_length=4)  # leaves traces inside
    assert tokenizer_fingerprint(words) == before


def test_requests_that_cannot_be_met(data: TaskData, words: Any) -> None:
    with pytest.raises(RequestError, match=r"no split 'tset'; it has train, dev, test"):
        encode(data, "tset", words)
    with pytest.raises(RequestError, match=r"max_length=65 is more than the 64 tokens"):
        encode(data, "train", words, max_length=65)
    words.pad_token = None
    with pytest.raises(RequestError, match="no padding token"):
        encode(data, "train", words)
    slow = type("SlowTokenizer", (), {"is_fast": False})()
    with pytest.raises(RequestError, match="SlowTokenizer is a slow tokenizer"):
        encode(data, "train", slow)
