"""LoRA: its formula, its sites, what is stored, wrong settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from low_rank_bench import TYPES, changed, check_round_trip, check_trains_alone, last

from mtl.backbone.linear import linear_sites
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, write_safetensors
from mtl.methods import METHODS, attach, count_method, load
from mtl.methods.lora import LoRASettings, read

METHOD = METHODS.get("lora")


@pytest.mark.parametrize(
    ("kind", "modules"),
    [
        *((kind, "all") for kind in TYPES),
        ("roberta", "q,v"),
        ("roberta", "intermediate,output"),
        ("roberta", "k"),
    ],
)
def test_stored_and_loaded_is_the_same(
    kind: str, modules: str, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    files = {"adapter_config.json", "adapter.safetensors"}
    check_round_trip(
        "lora", tiny(kind), tokens, jiggle, tmp_path, files, modules=modules, alpha=3.0, rank=5
    )


@pytest.mark.parametrize("modules", ["q,v", "all", "intermediate"])
def test_the_delta_is_the_formula(
    modules: str, encoder: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    """Adding (alpha/R)·B·A to the frozen weights gives the same network."""
    import copy

    merged = copy.deepcopy(encoder).double()
    tuned = changed(encoder, "lora", jiggle, modules=modules, rank=4, alpha=6.0)
    encoder.double()
    parts = LoRASettings(modules=modules).modules.split(",")
    for site, linear in linear_sites(merged, parts).items():
        trained = linear_sites(encoder, parts)[site].loras["mine"]
        with torch.no_grad():
            linear.weight += 1.5 * trained.lora_B @ trained.lora_A
    difference = (last(encoder, tokens) - last(merged, tokens)).abs().max()
    assert difference < 1e-10
    assert len(tuned.parameters) == 2 * 2 * len(parts)


def test_trains_alone(encoder: Any, tokens: Any, jiggle: Any) -> None:
    check_trains_alone(encoder, changed(encoder, "lora", jiggle), tokens)


def test_starts_as_the_base(encoder: Any, tokens: Any) -> None:
    before = last(encoder, tokens)
    tuned = attach(encoder, METHOD, LoRASettings(rank=16), "mine")
    assert torch.equal(last(encoder, tokens), before)
    downs = [p for name, p in tuned.parameters.items() if "lora_A" in name]
    # kaiming-uniform with a = √5 is uniform within 1/√in
    bound = 1 / math.sqrt(48)
    assert all(0.9 * bound < p.abs().max() <= bound for p in downs)


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        ("bert-base-uncased", {}, 294912),
        ("bert-base-uncased", {"rank": 16}, 589824),
        ("roberta-large", {"modules": "q,v"}, 786432),
        ("roberta-base", {"modules": "all"}, 12 * 8 * (3 * 2 * 768 + 2 * (768 + 3072))),
    ],
)
def test_counts(model: str, values: dict[str, Any], expected: int) -> None:
    assert count_method("lora", model, values=values).method == expected


def test_reading_factors_leaves_nothing(
    encoder: Any, backbone: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    tuned = changed(encoder, "lora", jiggle, alpha=4.0)
    tuned.save(tmp_path / "entry", "tiny")
    other = backbone.encoder()
    before, names = last(other, tokens), [name for name, _ in other.named_parameters()]
    found = read(other, LoRASettings(alpha=4.0), tmp_path / "entry")
    assert list(found) == ["0.q", "0.v", "1.q", "1.v"]
    assert torch.equal(found["1.v"].up, 0.5 * tuned_factor(encoder, "1.v").lora_B)
    assert torch.equal(last(other, tokens), before)
    assert [name for name, _ in other.named_parameters()] == names
    assert not other.adapters_config.adapters


def tuned_factor(encoder: Any, site: str) -> Any:
    return linear_sites(encoder, [site[2:]])[site].loras["mine"]


def test_weights_that_do_not_fit_are_refused(
    encoder: Any, backbone: Any, jiggle: Any, tmp_path: Path
) -> None:
    changed(encoder, "lora", jiggle).save(tmp_path / "entry", "tiny")
    path = tmp_path / "entry" / "adapter.safetensors"
    tensors, metadata = read_safetensors(path)
    name = next(key for key in tensors if "lora_B" in key)
    write_safetensors(path, {k: v for k, v in tensors.items() if k != name}, metadata)
    for use in (
        lambda e: load(e, METHOD, LoRASettings(), "other", tmp_path / "entry"),
        lambda e: read(e, LoRASettings(), tmp_path / "entry"),
    ):
        with pytest.raises(ZooError, match="lora_B"):
            use(backbone.encoder())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rank": 0}, "rank=0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"modules": ""}, "names no module"),
        ({"modules": "q,attention"}, "no site"),
        ({"modules": "q,outptu"}, "Did you mean 'output'"),
        ({"modules": "q,q"}, "twice"),
    ],
)
def test_wrong_settings(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        LoRASettings(**values)


def test_one_spelling_of_the_modules() -> None:
    assert LoRASettings(modules="v , q") == LoRASettings(modules="q,v")
    assert LoRASettings(modules="all").modules == "q,k,v,intermediate,output"
