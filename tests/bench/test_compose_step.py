"""What ``mtl.bench compose`` measures: the right variants, and launches that do not grow with K."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.backbone.injection import init
from mtl.bench.compose_step import (
    INFERENCE,
    TRAINING,
    Shape,
    _looped,
    composed,
    measure_compose,
    random_encoder,
)
from mtl.bench.measuring import launches
from mtl.compose import COMPOSITIONS
from mtl.compose.scalearn import ScaLearnSettings
from mtl.errors import RequestError
from mtl.methods import METHODS, attach, source_names
from mtl.methods.method import make_settings


@pytest.fixture(scope="module")
def config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
    )


SMALL = {"bottleneck": 4, "batch": 2, "tokens": 8, "rounds": 1}


def test_every_variant_is_measured(config: Any) -> None:
    found = measure_compose(config, Shape(sources=3, **SMALL), torch.device("cpu"))
    assert tuple(found["training"]) == TRAINING
    assert tuple(found["inference"]) == INFERENCE
    for rows in (found["training"], found["inference"]):
        for row in rows.values():
            assert all(value > 0 for value in row.values()), row
    layer = 2 * 32 * 4 + 4 + 32
    trained = {name: row["trainable"] for name, row in found["training"].items()}
    assert trained["single"] == 2 * layer
    assert trained["scalearn_folded"] == trained["scalearn_looped"] == 2 * 3 * 32
    assert trained["fusion"] == trained["stock_fuse"] == 2 * (3 * 32 * 32 + 2 * 32)
    assert set(found["ratios"]) == {*TRAINING} - {"bare"}
    bare = found["training"]["bare"]["seconds"]
    assert found["ratios"]["fusion"] == round(found["training"]["fusion"]["seconds"] / bare, 3)
    assert json.loads(json.dumps(found)) == found


def test_bf16_saves_less_for_the_backward_pass(config: Any) -> None:
    """What is kept is measured in the precision that was asked for."""
    found = {}
    for bf16 in (False, True):
        shape = Shape(sources=2, bottleneck=4, batch=16, tokens=32, rounds=1, bf16=bf16)
        result = measure_compose(
            config, shape, torch.device("cpu"), training=("bare", "scalearn_folded"), inference=()
        )
        found[bf16] = {name: row["saved_mb"] for name, row in result["training"].items()}
    for name, saved in found[True].items():
        assert saved < 0.9 * found[False][name], name


def test_the_looped_variant_is_the_same_function(config: Any) -> None:
    shape = Shape(sources=3, **SMALL)
    pristine = random_encoder(config)
    tokens = {"input_ids": torch.arange(16).reshape(2, 8)}
    outputs: list[Tensor] = []
    for build in (_looped, lambda p, s: composed(p, s, "scalearn")[0]):
        torch.manual_seed(4)
        encoder = build(pristine, shape).eval()
        with torch.no_grad():
            outputs.append(encoder(**tokens).last_hidden_state)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++", "fusion"])
@pytest.mark.parametrize("training", [True, False])
def test_launches_are_flat_in_the_number_of_sources(
    method: str, training: bool, config: Any
) -> None:
    """Counted, not timed: one source costs as many kernels as 64, in training and inference."""
    pristine = random_encoder(config)
    tokens = {"input_ids": torch.arange(16).reshape(2, 8)}
    counts = []
    for sources in (1, 8, 64):
        encoder, _, found = composed(pristine, Shape(sources=sources, **SMALL), method)
        encoder.train(training)

        def step(encoder: Any = encoder) -> None:
            with torch.set_grad_enabled(training):
                out = encoder(**tokens).last_hidden_state.sum()
            if training:
                out.backward()

        if training:
            counts.append(launches(step, torch.device("cpu")))
        else:
            with found.evaluating():
                counts.append(launches(step, torch.device("cpu")))
    assert len(set(counts)) == 1, counts
    assert counts[0] > 50


@pytest.mark.parametrize(
    "method", [name for name in METHODS.names() if METHODS.get(name).composes == "bottleneck"]
)
def test_launches_are_flat_for_sources_of_every_method(method: str, config: Any) -> None:
    """Also of sources that are no plain bottlenecks, whose maps are computed from factors."""
    pristine = random_encoder(config)
    tokens = {"input_ids": torch.arange(16).reshape(2, 8)}
    found = METHODS.get(method)
    settings = make_settings(method, found.settings, dict(found.defaults))
    counts = []
    for sources in (2, 24):
        encoder, names = init(copy.deepcopy(pristine)), source_names(sources)
        for name in names:
            attach(encoder, found, settings, name)
            if found.as_source is not None:
                found.as_source(encoder, settings, name)
        encoder.requires_grad_(False)
        COMPOSITIONS.get("scalearn").attach(encoder, names, ScaLearnSettings())
        encoder.train()

        def step(encoder: Any = encoder) -> None:
            encoder(**tokens).last_hidden_state.sum().backward()

        counts.append(launches(step, torch.device("cpu")))
    assert counts[0] == counts[1], counts


def test_inference_of_a_composition_launches_no_more_than_a_stock_adapter(config: Any) -> None:
    found = measure_compose(config, Shape(sources=4, **SMALL), torch.device("cpu"), training=())
    rows = found["inference"]
    assert rows["composition"]["launches"] <= rows["stock_adapter"]["launches"]
    assert found["ratios"] == {}


def test_shapes_are_checked(config: Any) -> None:
    with pytest.raises(RequestError, match="--sources 0"):
        Shape(sources=0)
    with pytest.raises(RequestError, match="at most 40"):
        measure_compose(config, Shape(tokens=100), torch.device("cpu"))


@pytest.mark.parametrize("kind", ["distilbert", "albert", "modernbert", "mpnet", "t5", "bart"])
def test_other_types_are_measured_likewise(kind: str) -> None:
    """ModernBERT's linears have no bias that the bare encoder could train; ALBERT one layer."""
    from mtl.backbone.arch import tiny_config

    config = tiny_config(kind, vocab_size=60, pad_token_id=1)
    shape = Shape(sources=2, **SMALL)
    found = measure_compose(
        config, shape, torch.device("cpu"), training=("bare", "scalearn_folded"), inference=()
    )
    assert found["training"]["bare"]["trainable"] == 48
    layers = 1 if kind == "albert" else 2
    assert found["training"]["scalearn_folded"]["trainable"] == layers * 2 * 48
