"""Parameter counts of the papers, on the real modules; and the bottleneck that a factor gives."""

from __future__ import annotations

from typing import Any

import pytest

from mtl.compose.count import count_composition
from mtl.errors import RequestError
from mtl.methods import count_method
from mtl.methods.pfeiffer import (
    PfeifferSettings,
    bottleneck_config,
    bottleneck_size,
    exact_reduction_factor,
)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("roberta-base", 894528),
        ("xlm-roberta-base", 894528),
        ("bert-base-uncased", 894528),
        ("microsoft/deberta-v3-base", 894528),
        ("roberta-large", 3171840),
        ("FacebookAI/roberta-large", 3171840),
    ],
)
def test_pfeiffer(model: str, expected: int) -> None:
    found = count_method("pfeiffer", model, values={})
    expect = {"method": expected, "layer_norm": 0, "head": 0, "total": expected}
    assert found.to_dict().items() >= expect.items()


@pytest.mark.parametrize(
    ("placement", "sites"), [("pfeiffer", 12), ("houlsby", 24), ("parallel", 12)]
)
@pytest.mark.parametrize("bottleneck", [1, 7, 48, 100])
def test_pfeiffer_settings(placement: str, sites: int, bottleneck: int) -> None:
    values = {"placement": placement, "bottleneck": bottleneck}
    found = count_method("pfeiffer", "roberta-base", values=values)
    assert found.method == sites * (2 * 768 * bottleneck + bottleneck + 768)


@pytest.mark.parametrize(
    ("method", "model", "sources", "expected"),
    [
        ("scalearn", "roberta-base", 8, 73728),
        ("scalearn-uniform", "roberta-base", 8, 96),
        ("scalearn++", "roberta-base", 8, 6144),
        ("scalearn-uniform++", "roberta-base", 8, 8),
        ("average", "roberta-base", 8, 0),
        ("gated", "roberta-base", 8, 73728 + 16),
        ("scalearn", "roberta-large", 8, 196608),
        ("scalearn-uniform", "roberta-large", 8, 192),
        ("scalearn++", "roberta-large", 8, 8192),
        ("scalearn-uniform++", "roberta-large", 8, 8),
        ("scalearn", "xlm-roberta-base", 5, 46080),
        ("scalearn-uniform", "xlm-roberta-base", 5, 60),
        ("scalearn++", "xlm-roberta-base", 5, 3840),
        ("scalearn-uniform++", "xlm-roberta-base", 5, 5),
        ("scalearn", "roberta-base", 15, 138240),
        ("scalearn-uniform", "roberta-base", 15, 180),
        ("scalearn++", "roberta-base", 15, 11520),
        ("scalearn-uniform++", "roberta-base", 15, 15),
    ],
)
def test_scalearn_family(method: str, model: str, sources: int, expected: int) -> None:
    found = count_composition(method, model, sources=sources, values={})
    expect = {"method": expected, "layer_norm": 0, "head": 0, "total": expected}
    assert found.to_dict().items() >= expect.items()


@pytest.mark.parametrize(
    ("head", "model", "labels", "expected"),
    [
        ("two_layer", "roberta-base", 2, 592130),
        ("two_layer", "roberta-large", 2, 1051650),
        ("two_layer", "roberta-base", 3, 592130 + 769),
        ("pooler_linear", "roberta-base", 2, 1538),
    ],
)
def test_heads(head: str, model: str, labels: int, expected: int) -> None:
    found = count_method("pfeiffer", model, values={}, head=head, labels=labels)
    assert found.head == expected
    assert found.total == found.method + expected
    composed = count_composition("scalearn", model, sources=2, values={}, head=head, labels=labels)
    assert composed.head == expected


@pytest.mark.parametrize(
    ("name", "model", "values", "said"),
    [
        ("pfeifer", "roberta-base", {}, "Did you mean 'pfeiffer'"),
        ("pfeiffer", "roberta-bse", {}, "roberta-base"),
        ("pfeiffer", "roberta-base", {"reduction": 3}, "reduction"),
        ("pfeiffer", "roberta-base", {"reduction_factor": 0}, "reduction_factor=0"),
        ("pfeiffer", "roberta-base", {"reduction_factor": 1e4}, "bottleneck"),
        ("pfeiffer", "roberta-base", {"activation": "rellu"}, "Did you mean 'relu'"),
        ("pfeiffer", "roberta-base", {"placement": "hoolsby"}, "Did you mean 'houlsby'"),
        ("pfeiffer", "roberta-base", {"dropout": 1.0}, "dropout=1.0"),
        ("pfeiffer", "gpt22", {}, "Did you mean 'openai-community/gpt2'"),
    ],
)
def test_wrong_requests(name: str, model: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        count_method(name, model, values=values)


def test_any_bottleneck_comes_out_exactly() -> None:
    for hidden in (24, 48, 128, 312, 768, 1024):
        for size in range(1, hidden + 1):
            assert int(hidden // exact_reduction_factor(size, hidden)) == size


@pytest.mark.parametrize("hidden", [48, 128, 768, 1024])
def test_the_library_agrees_on_the_bottleneck(hidden: int) -> None:
    from adapters.methods.modeling import Adapter

    for size in (1, 2, 3, 7, 13, 29, hidden // 16, hidden // 2 - 1, hidden):
        config = bottleneck_config(PfeifferSettings(bottleneck=size), hidden)
        down = int(hidden // config.reduction_factor)
        assert Adapter("a", hidden, down, config).adapter_down[0].out_features == size


def test_reduction_factor_and_bottleneck() -> None:
    assert bottleneck_size(16, 0, 768) == 48
    assert bottleneck_size(16, 5, 768) == 5
    with pytest.raises(RequestError, match="no bottleneck"):
        bottleneck_size(100, 0, 48)
