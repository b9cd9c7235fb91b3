"""Counts on known decoders, T5 and BART, from shapes alone, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from mtl.compose import count_composition
from mtl.methods import count_method

# Without the language model's head: embeddings, then per layer q, k, v, o, gate, up, down, norms.
BASES = {
    "llama-2-7b": 32000 * 4096 + 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008 + 2 * 4096) + 4096,
    "qwen3-0.6b": 151936 * 1024
    + 28 * (2 * 1024 * 2048 + 2 * 1024 * 1024 + 3 * 1024 * 3072 + 2 * 1024 + 2 * 128)
    + 1024,
    # Encoders alone: q, k, v, o, the FFN (with a gate in mT5), norms; the bias of distances once.
    "t5-base": 32128 * 768 + 12 * (4 * 768 * 768 + 2 * 768 * 3072 + 2 * 768) + 32 * 12 + 768,
    "mt5-base": 250112 * 768 + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768) + 32 * 12 + 768,
    "flan-t5-base": 32128 * 768 + 12 * (4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768) + 32 * 12 + 768,
    # Two positions more than there are, biases, and LayerNorms of two parameters per unit.
    "bart-base": (50265 + 1026 + 2) * 768
    + 6 * (4 * (768 + 1) * 768 + (768 + 1) * 3072 + (3072 + 1) * 768 + 4 * 768),
}
# (in + out) of the six linear modules of a layer together: q, k, v, attention, intermediate, output
SIDES = {
    "llama-2-7b": 4 * (4096 + 4096) + 2 * (4096 + 11008),
    "qwen3-0.6b": 2 * (1024 + 2048) + 2 * (1024 + 1024) + 2 * (1024 + 3072),
    **dict.fromkeys(("t5-base", "bart-base"), 4 * (768 + 768) + 2 * (768 + 3072)),
    **dict.fromkeys(("mt5-base", "flan-t5-base"), 4 * (768 + 768) + 2 * (768 + 2048)),
}
T5 = ("t5-base", "mt5-base", "flan-t5-base")
ALONE = (*T5, "bart-base")
WIDTH = {"llama-2-7b": 4096, "qwen3-0.6b": 1024, **dict.fromkeys(ALONE, 768)}
LAYERS = {"llama-2-7b": 32, "qwen3-0.6b": 28, **dict.fromkeys(T5, 12), "bart-base": 6}
# Outputs of q and of v: the value of grouped attention is narrower.
QUERY = {"llama-2-7b": 4096, "qwen3-0.6b": 2048, **dict.fromkeys(ALONE, 768)}
VALUE = {"llama-2-7b": 4096, "qwen3-0.6b": 1024, **dict.fromkeys(ALONE, 768)}


def expected(model: str, method: str) -> int:
    width, layers, sides = WIDTH[model], LAYERS[model], SIDES[model]
    if method == "pfeiffer":  # one bottleneck of D/16 per layer, with biases
        return layers * (2 * width * (width // 16) + width // 16 + width)
    if method == "lora":  # rank 8 on q and v
        return layers * 8 * (2 * width + QUERY[model] + VALUE[model])
    if method == "sora":  # rank 8 on all six, a gate per rank
        return layers * (8 * sides + 6 * 8)
    assert method == "adalora"  # rank 12 on all six, an importance per rank
    return layers * (12 * sides + 6 * 12)


@pytest.mark.parametrize("model", BASES)
@pytest.mark.parametrize("method", ["pfeiffer", "lora", "sora", "adalora"])
def test_counts_of_methods_by_hand(model: str, method: str) -> None:
    found = count_method(method, model, values={})
    assert found.method == expected(model, method)
    assert found.all_parameters == BASES[model] + found.method


@pytest.mark.parametrize("model", BASES)
def test_counts_of_compositions_by_hand(model: str) -> None:
    found = count_composition("scalearn", model, sources=8, values={})
    assert found.method == 8 * WIDTH[model] * LAYERS[model]
    shared = count_composition("scalearn++", model, sources=8, values={})
    assert shared.method == 8 * WIDTH[model]


def test_the_numbers_that_papers_print() -> None:
    assert BASES["llama-2-7b"] == 6_738_415_616 - 32000 * 4096
    assert BASES["qwen3-0.6b"] == 596_049_920
    assert [BASES[model] for model in T5] == [109_628_544, 277_040_256, 109_628_544]
    assert count_method("lora", "meta-llama/Llama-2-7b-hf", values={}).method == 4_194_304
    assert count_method("pfeiffer", "Qwen/Qwen3-0.6B", values={}).method == 3_700_480
