"""Encoder and tokenizer compared in every respect, by ``check --model`` and before training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_bench import entries, mtl, refused
from safetensors.torch import load_file, save_file

from mtl.backbone import load_backbone
from mtl.backbone.encoder_fit import position_limit

LONG = 30
"""Words of the longest row; its encoding has two tokens more."""


@pytest.fixture
def long_task(mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Pairs; one test row is longer than every training row."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for split, words in (("train", 3), ("dev", 3), ("test", LONG - 2)):
        rows = [{"a": "cat " * (words - n % 2), "b": "dog", "label": n % 2} for n in range(16)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text)
    (folder / "long.yaml").write_text(
        "id: own/long\ndata: {files: {train: train.jsonl, validation: dev.jsonl, "
        'test: test.jsonl}}\nkind: classification\ninputs: ["{a}", "{b}"]\n'
        "labels: [no, yes]\nmetrics: [accuracy]\nmax_length: 64\n"
    )
    monkeypatch.setenv("MTL_TASKS", str(folder))
    return "own/long"


def changed(source: str, target: Path, tokenizer: Any = (), **config: Any) -> Path:
    """A copy with another config, its embeddings cut to that, and other tokenizer settings."""
    shutil.copytree(source, target)
    for name, values in (("config.json", config), ("tokenizer_config.json", dict(tokenizer))):
        content = json.loads((target / name).read_text())
        (target / name).write_text(json.dumps({**content, **values}))
    tensors = load_file(target / "model.safetensors")
    for key, tensor in (
        ("max_position_embeddings", "embeddings.position_embeddings.weight"),
        ("type_vocab_size", "embeddings.token_type_embeddings.weight"),
    ):
        if key in config:
            tensors[tensor] = tensors[tensor][: config[key]].clone()
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def both(task: str, model: Path, *parts: str) -> None:
    """The same message by ``check --model`` and by training, before the first step."""
    said = mtl("tasks", "check", task, "--model", model, "--json")
    assert said.code == 1, said
    problems = " ".join(said.json["tasks"][0]["problems"])
    assert all(part in problems for part in parts), problems
    said = mtl("train", "--task", task, "--model", model, "--max-steps", "1")
    refused(said, task, "does not fit the model", *parts)


@pytest.mark.parametrize(("kind", "padding"), [("roberta", 2), ("bert", 0)])
def test_more_tokens_than_positions(
    kind: str, padding: int, long_task: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    """RoBERTa counts from the padding id on, so that two positions are never used."""
    needed = LONG + 2 + padding
    short = changed(tiny(kind), tmp_path / "short", max_position_embeddings=needed - 1)
    said = f"test: the longest encoding has {LONG + 2} tokens, the encoder has positions for "
    both(long_task, short, said + str(LONG + 1), f"max_length: {LONG + 1}", "model_max_length")
    assert not entries(tmp_path / "zoo")
    line = ["--task", long_task, "--max-steps", "1", "--model"]
    enough = changed(tiny(kind), tmp_path / "enough", max_position_embeddings=needed)
    assert mtl("train", *line, enough).code == 0
    # what the message recommends
    cut = changed(
        tiny(kind),
        tmp_path / "cut",
        {"model_max_length": LONG + 1},
        max_position_embeddings=needed - 1,
    )
    assert mtl("train", *line, cut).code == 0


@pytest.mark.parametrize("kind", ["roberta", "bert", "xlm-roberta", "deberta-v2"])
def test_the_limit_is_what_the_encoder_itself_takes(kind: str, tiny: Callable[[str], str]) -> None:
    encoder = load_backbone(tiny(kind)).encoder()
    limit = position_limit(encoder.config)
    assert limit == (None if kind == "deberta-v2" else 66 if kind == "bert" else 64)

    def read(tokens: int) -> None:
        ids = torch.full((1, tokens), 7)
        with torch.no_grad():
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))

    read(limit or 100)
    if limit is not None:
        with pytest.raises((IndexError, RuntimeError)):
            read(limit + 1)


def with_types(folder: Path) -> Path:
    """Its tokenizer gives the second text the type 1, as BERT's does."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    pair = content["post_processor"]["pair"]
    for piece in pair[3:]:
        next(iter(piece.values()))["type_id"] = 1
    path.write_text(json.dumps(content))
    return folder


def test_more_token_types_than_the_encoder_knows(
    long_task: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    wrong = with_types(changed(tiny("roberta"), tmp_path / "wrong"))
    parts = ["gives texts the token type 1, the encoder knows 1", "type_vocab_size"]
    both(long_task, wrong, *parts, '"model_input_names": ["input_ids", "attention_mask"]')
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    mended = with_types(changed(tiny("roberta"), tmp_path / "mended", names))
    line = ["--task", long_task, "--max-steps", "1", "--model"]
    assert mtl("train", *line, mended).code == 0
    assert mtl("train", *line, with_types(changed(tiny("bert"), tmp_path / "bert"))).code == 0
    ignored = with_types(changed(tiny("deberta-v2"), tmp_path / "deberta"))
    assert mtl("train", *line, ignored).code == 0


def test_token_types_that_the_tokenizer_keeps_to_itself(
    long_task: str,
    tiny: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    model = changed(tiny("bert"), tmp_path / "model", names)
    said = mtl("tasks", "check", long_task, "--model", model, "--json")
    assert said.code == 0, said
    (remark,) = [text for text in said.json["tasks"][0]["remarks"] if "token types" in text]
    assert "model_input_names are input_ids, attention_mask" in remark
    assert mtl("train", "--task", long_task, "--model", model, "--max-steps", "1").code == 0
    assert [text for text in caplog.messages if "token types" in text] == [f"{long_task}, {remark}"]


def test_a_vocabulary_beyond_the_embedding(
    long_task: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny("roberta"), model)
    content = json.loads((model / "tokenizer.json").read_text())
    content["model"]["vocab"]["onemore"] = 9999
    content["model"]["vocab"] |= {f"more{n}": 500 + n for n in range(9)}
    (model / "tokenizer.json").write_text(json.dumps(content))
    said = ("its tokenizer knows", "its embedding holds", "do not belong together")
    refused(mtl("tasks", "check", long_task, "--model", model), *said)
    refused(mtl("train", "--task", long_task, "--model", model), *said)


def test_the_cache_of_encodings_knows_what_the_tokenizer_hands_over(
    long_task: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    """Token types of an earlier tokenizer, out of the cache, went to an encoder without."""
    from mtl.data import load_data
    from mtl.tasks import load_task

    data = load_data(load_task(long_task))
    cache = tmp_path / "encoded"
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    with_them = load_backbone(str(with_types(changed(tiny("bert"), tmp_path / "a"))))
    without = load_backbone(str(with_types(changed(tiny("bert"), tmp_path / "b", names))))
    assert with_them.encode(data, "train", cache).types is not None
    assert without.encode(data, "train", cache).types is None
    assert with_them.encode(data, "train", cache).types.max() == 1
    left = load_backbone(
        str(with_types(changed(tiny("bert"), tmp_path / "c", {"truncation_side": "left"})))
    )
    marks = {b.encode(data, "train", cache).fingerprint for b in (with_them, without, left)}
    assert len(marks) == 3
