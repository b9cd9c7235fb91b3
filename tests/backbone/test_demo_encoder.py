"""The demo encoder: small, complete, and better than guessing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import torch
from demo_world import TASKS, generate, world_text
from demo_world.suite import text_of
from demo_world.text import tokens

from mtl.backbone import load_backbone, resolve_model

FOLDER = Path(resolve_model("demo").source)


def test_small_and_complete() -> None:
    assert (FOLDER / "model.safetensors").stat().st_size <= 3_000_000
    base = load_backbone("demo").base
    assert base.type == "roberta"
    assert base.id == "demo"
    assert not list(FOLDER.glob("*.bin"))
    assert json.loads((FOLDER / "config.json").read_text())["hidden_dropout_prob"] == 0.1


def test_knows_every_word_of_the_suite() -> None:
    tokenizer = load_backbone("demo").tokenizer
    for task in TASKS:
        for row in generate(task, "test")[:300]:
            ids = tokenizer(*text_of(row))["input_ids"]
            assert tokenizer.unk_token_id not in ids
            assert len(ids) <= 48


def test_a_word_is_told_by_its_context_better_than_by_its_frequency() -> None:
    """The nearest word embedding of a masked position, against always the most frequent word."""
    backbone = load_backbone("demo")
    tokenizer, encoder = backbone.tokenizer, backbone.pristine
    lines = [line for line in world_text(600, seed=99) if line[1]]
    words = Counter(word for first, second in lines for word in tokens(f"{first} {second}"))
    most = words.most_common(1)[0][1] / words.total()
    # the prediction head is not stored; a linear map fitted on half of the text stands in for it
    inputs = tokenizer([a for a, _ in lines], [b for _, b in lines], padding=True)
    ids = torch.tensor(inputs["input_ids"])
    generator = torch.Generator().manual_seed(0)
    asked = (ids > 4) & (torch.rand(ids.shape, generator=generator) < 0.15)
    spoiled = torch.where(asked, tokenizer.mask_token_id, ids)
    with torch.no_grad():
        hidden = encoder(
            input_ids=spoiled, attention_mask=torch.tensor(inputs["attention_mask"])
        ).last_hidden_state
    features, truth = hidden[asked].double(), ids[asked]
    half = len(truth) // 2
    known = torch.nn.functional.one_hot(truth[:half], len(tokenizer)).double()
    gram = features[:half].T @ features[:half]
    ridge = torch.eye(features.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram + ridge, features[:half].T @ known)
    right = ((features[half:] @ weights).argmax(-1) == truth[half:]).double().mean().item()
    assert right > 2 * most
