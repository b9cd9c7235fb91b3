"""Linear modules of a layer: found on every type, their deltas, their names for peft."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from mtl.backbone import load_backbone
from mtl.backbone.linear import (
    LINEARS,
    add_delta,
    linear_paths,
    linear_sites,
    module_names,
    path_pattern,
)
from mtl.errors import RequestError

TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


@pytest.mark.parametrize("kind", TYPES)
def test_six_linears_per_layer(kind: str, tiny: Any) -> None:
    encoder = load_backbone(tiny(kind)).encoder()
    sites = linear_sites(encoder, LINEARS)
    assert list(sites) == [f"{layer}.{name}" for layer in (0, 1) for name in LINEARS]
    assert len({id(linear) for linear in sites.values()}) == 12
    shapes = {name: tuple(sites[f"1.{name}"].weight.shape) for name in LINEARS}
    square = dict.fromkeys(["q", "k", "v", "attention"], (48, 48))
    assert shapes == {**square, "intermediate": (64, 48), "output": (48, 64)}
    in_layers = [
        module
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear) and ".layer." in name
    ]
    assert {id(module) for module in in_layers} == {id(linear) for linear in sites.values()}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("modules", [["q", "v"], ["attention"], ["output"], list(LINEARS)])
def test_the_pattern_matches_exactly_the_sites(kind: str, modules: list[str], tiny: Any) -> None:
    encoder = load_backbone(tiny(kind)).encoder()
    paths = linear_paths(encoder, modules)
    sites = linear_sites(encoder, modules)
    assert all(encoder.get_submodule(paths[site]) is linear for site, linear in sites.items())
    pattern = path_pattern(list(paths.values()))
    matched = [name for name, _ in encoder.named_modules() if re.fullmatch(pattern, name)]
    assert sorted(matched) == sorted(paths.values())
    assert re.fullmatch(pattern, f"model.bert.{next(iter(paths.values()))}")


def test_a_delta_is_added_until_it_is_removed(encoder: Any) -> None:
    linear = linear_sites(encoder, ["intermediate"])["0.intermediate"]
    x = torch.randn(2, 3, 48)
    plain = linear(x)
    names = [name for name, _ in encoder.named_parameters()]
    weight = torch.randn(64, 48)
    handle = add_delta(linear, lambda z: z @ weight.t())
    torch.testing.assert_close(linear(x), plain + x @ weight.t())
    assert [name for name, _ in encoder.named_parameters()] == names
    handle.remove()
    assert torch.equal(linear(x), plain)


def test_names() -> None:
    assert module_names("output, q ,k") == ("q", "k", "output")
    assert module_names("all") == LINEARS
    assert module_names("all", ("q", "v")) == ("q", "v")
    for text, said in (("", "no module"), (" , ", "no module"), ("v,v", "twice")):
        with pytest.raises(RequestError, match=said):
            module_names(text)
    with pytest.raises(RequestError, match="Did you mean 'attention'"):
        module_names("attenton")


def test_layers_of_another_build_are_named(encoder: Any) -> None:
    encoder.encoder.layer[1].output.dense = nn.Identity()
    with pytest.raises(RequestError, match=r"'output' in layer 1 .*'roberta'.*output\.dense"):
        linear_sites(encoder, LINEARS)
