"""Heads: what they compute, their files, and what must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl.backbone import Network, build_head, load_head, save_head
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, write_safetensors


def test_two_layers_compute_what_the_spec_says(encoder: Any, jiggle: Any) -> None:
    head = build_head("two_layer", encoder.config, 3, pooler=True).eval()
    assert sum(p.numel() for p in head.parameters()) == 48 * 48 + 48 + 3 * 48 + 3
    jiggle(head.parameters())
    w1, b1, w2, b2 = head.parameters()
    x = torch.randn(5, 48)
    torch.testing.assert_close(head(x), torch.tanh(x @ w1.T + b1) @ w2.T + b2)
    head.train()
    assert not torch.equal(head(x), head(x))


def test_a_new_head_starts_small_and_without_bias(encoder: Any) -> None:
    head = build_head("two_layer", encoder.config, 2, pooler=True)
    w1, b1, w2, b2 = head.parameters()
    assert w1.std().item() == pytest.approx(0.02, rel=0.1)
    assert w2.std().item() == pytest.approx(0.02, rel=0.4)
    assert b1.abs().max() == b2.abs().max() == 0


@pytest.mark.parametrize("name", ["two_layer", "pooler_linear"])
def test_what_the_head_reads(
    name: str, encoder: Any, tokens: dict[str, torch.Tensor], jiggle: Any
) -> None:
    head = build_head(name, encoder.config, 2, pooler=True)
    jiggle(head.parameters())
    network = Network(encoder, head).eval()
    labels = torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        output = encoder(**tokens)
        vector = output.pooler_output if name == "pooler_linear" else output.last_hidden_state[:, 0]
        logits = network({**tokens, "labels": labels, "row": labels, "task": "x"})
        assert torch.equal(logits, head(vector))
    assert logits.shape == (4, 2)


def test_the_mean_is_over_the_real_tokens(
    encoder: Any, tokens: dict[str, torch.Tensor], jiggle: Any
) -> None:
    head = build_head("mean", encoder.config, 2, pooler=False)
    assert [tuple(p.shape) for p in head.parameters()] == [(2, 48), (2,)]
    jiggle(head.parameters())
    network = Network(encoder, head).eval()
    lengths = tokens["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 1  # padding is in it
    with torch.no_grad():
        states = encoder(**tokens).last_hidden_state
        means = torch.stack([row[:n].mean(0) for row, n in zip(states, lengths, strict=True)])
        torch.testing.assert_close(network(tokens), head(means))


def test_stock_adapters_stops_at_a_head_that_it_would_answer_wrongly(
    tiny: Any, encoder: Any, tmp_path: Path
) -> None:
    from adapters import AutoAdapterModel

    head = build_head("mean", encoder.config, 2, pooler=True)
    save_head(
        head, tmp_path, "n", encoder.config, kind="classification", labels=("a", "b"), model_id="m"
    )
    assert load_head(tmp_path, encoder.config, pooler=True).mean
    stock = AutoAdapterModel.from_pretrained(tiny("roberta"))
    with pytest.raises(TypeError, match="pooling"):
        stock.load_head(str(tmp_path), use_safetensors=True)
    stored = json.loads((tmp_path / "head_config.json").read_text())
    stored["config"]["pooling"] = "max"
    (tmp_path / "head_config.json").write_text(json.dumps(stored))
    with pytest.raises(ZooError, match="max"):
        load_head(tmp_path, encoder.config, pooler=True)


@pytest.mark.parametrize("name", ["two_layer", "pooler_linear", "mean"])
@pytest.mark.parametrize(
    ("kind", "labels", "outputs"),
    [
        ("classification", ("yes", "nö", "a/b.c"), 3),
        ("regression", (), 1),
        ("multilabel", ("p", "q"), 2),
    ],
)
def test_saved_and_loaded_is_the_same(
    name: str,
    kind: str,
    labels: tuple[str, ...],
    outputs: int,
    encoder: Any,
    jiggle: Any,
    tmp_path: Path,
) -> None:
    head = build_head(name, encoder.config, outputs, pooler=True).eval()
    jiggle(head.parameters())
    save_head(head, tmp_path, "n", encoder.config, kind=kind, labels=labels, model_id="m")
    found = load_head(tmp_path, encoder.config, pooler=True).eval()
    x = torch.randn(5, 48)
    assert torch.equal(found(x), head(x))
    assert (found.use_pooler, found.mean) == (head.use_pooler, head.mean)
    stored = json.loads((tmp_path / "head_config.json").read_text())
    assert stored["config"]["num_labels"] == outputs
    if labels:
        assert stored["config"]["label2id"] == {label: i for i, label in enumerate(labels)}


@pytest.mark.parametrize("kind", ["multiple_choice", "span_extraction"])
@pytest.mark.parametrize("name", ["two_layer", "linear"])
def test_stock_adapters_answers_as_we_do(
    kind: str, name: str, tiny: Any, encoder: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    from adapters import AutoAdapterModel

    labels = ("one", "two") if kind == "multiple_choice" else ()
    outputs = 1 if labels else 2
    head = build_head(name, encoder.config, outputs, pooler=True, kind=kind)
    jiggle(head.parameters())
    save_head(head, tmp_path, "n", encoder.config, kind=kind, labels=labels, model_id="m")
    found = load_head(tmp_path, encoder.config, pooler=True)
    assert found.tokens == head.tokens == (kind == "span_extraction")
    ours = Network(encoder, found).eval()
    stock = AutoAdapterModel.from_pretrained(tiny("roberta"))
    stock.load_head(str(tmp_path), use_safetensors=True)
    stock.active_head = "n"
    stock.eval()
    with torch.no_grad():
        logits = ours(tokens)
        if labels:
            pairs = {key: value.reshape(2, 2, -1) for key, value in tokens.items()}
            torch.testing.assert_close(logits.reshape(2, 2), stock(**pairs).logits)
            return
        answer = stock(**tokens)
    assert logits.shape == (4, tokens["input_ids"].shape[1], 2)
    real = tokens["attention_mask"] == 1
    torch.testing.assert_close(logits[..., 0][real], answer.start_logits[real])
    torch.testing.assert_close(logits[..., 1][real], answer.end_logits[real])
    assert (logits[~real] == -1e4).all()  # padding is no place for an answer


def test_the_references_pooler_is_the_bases_or_random_and_never_trained(
    encoder: Any, jiggle: Any, tmp_path: Path
) -> None:
    own = build_head("frozen_pooler", encoder.config, 1, pooler=True)
    assert own.use_pooler
    assert len(own.trained()) == len(list(own.parameters())) == 2
    head = build_head("frozen_pooler", encoder.config, 1, pooler=False)
    assert sum(p.numel() for p in head.trained().values()) == 48 + 1
    jiggle(head.parameters())
    w1, b1, w2, b2 = head.parameters()
    x = torch.randn(5, 48)
    head.eval()
    torch.testing.assert_close(head(x), torch.tanh(x @ w1.T + b1) @ w2.T + b2)
    assert head[0].p == 0.0  # nothing is dropped before a pooler
    save_head(
        head, tmp_path, "n", encoder.config, kind="multiple_choice", labels=("a", "b"), model_id="m"
    )
    assert torch.equal(load_head(tmp_path, encoder.config, pooler=False).eval()(x), head(x))


@pytest.mark.parametrize("name", ["pooler_linear", "frozen_pooler", "mean"])
def test_spans_are_not_read_from_a_pooler(name: str, encoder: Any) -> None:
    with pytest.raises(RequestError, match=r"every token.*head=linear"):
        build_head(name, encoder.config, 2, pooler=True, kind="span_extraction")


def test_pooler_heads_need_a_pretrained_pooler(encoder: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="two_layer"):
        build_head("pooler_linear", encoder.config, 2, pooler=False)
    head = build_head("pooler_linear", encoder.config, 2, pooler=True)
    save_head(
        head, tmp_path, "n", encoder.config, kind="classification", labels=("a", "b"), model_id="m"
    )
    with pytest.raises(RequestError, match="pooler"):
        load_head(tmp_path, encoder.config, pooler=False)


def test_an_unknown_head_is_guessed(encoder: Any) -> None:
    with pytest.raises(RequestError, match="Did you mean 'two_layer'"):
        build_head("two_layers", encoder.config, 2, pooler=True)


@pytest.mark.parametrize(
    "damage", ["missing", "surplus", "shape", "truncated", "json", "keys", "width", "gone"]
)
def test_damaged_head_files_are_refused(damage: str, encoder: Any, tmp_path: Path) -> None:
    head = build_head("two_layer", encoder.config, 2, pooler=True)
    save_head(
        head, tmp_path, "n", encoder.config, kind="classification", labels=("a", "b"), model_id="m"
    )
    weights, config = tmp_path / "model_head.safetensors", tmp_path / "head_config.json"
    tensors, _ = read_safetensors(weights)
    stored = json.loads(config.read_text())
    name = next(key for key in tensors if key.endswith("weight"))
    if damage == "missing":
        del tensors[name]
    elif damage == "surplus":
        tensors["heads.n.9.weight"] = torch.zeros(2)
    elif damage == "shape":
        tensors[name] = tensors[name][:1].clone()
    elif damage == "keys":
        del stored["config"]["layers"]
    elif damage == "width":
        stored["hidden_size"] = 64
    write_safetensors(weights, tensors)
    config.write_text("{" if damage == "json" else json.dumps(stored))
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "gone":
        weights.unlink()
    with pytest.raises(ZooError, match=str(tmp_path)):
        load_head(tmp_path, encoder.config, pooler=True)
