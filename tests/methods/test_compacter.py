"""Compacter and Compacter++: golden gradients, shared rule, files, and sources beside others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import AutoAdapterModel, CompacterConfig, CompacterPlusPlusConfig
from adapters.context import ForwardContext
from adapters.methods.modeling import Adapter
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mtl.backbone import load_backbone
from mtl.backbone.injection import bottleneck_layers
from mtl.compose.composition import COMPOSITIONS
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, write_safetensors
from mtl.methods import METHODS, as_source, attach, load
from mtl.methods.method import make_settings

GOLDEN = Path(__file__).parents[1] / "golden"
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]
NAMES = ["compacter", "compacter++"]


def settings_of(name: str, **values: Any) -> Any:
    method = METHODS.get(name)
    return make_settings(name, method.settings, {**method.defaults, **values})


def last(encoder: Any, tokens: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return encoder(**tokens).last_hidden_state


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


class Shared:
    """What a PHM layer asks the forward context for."""

    def __init__(self, rule: Tensor) -> None:
        self.shared_parameters = {"mine": {"phm_rule": rule}}


def test_golden_gradients_of_the_layers_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    g = load_file(GOLDEN / "case03b_compacterpp_layers.safetensors")
    leaves = {
        key: value.clone().requires_grad_(True)
        for key, value in g.items()
        if f"grad.{key}" in g and not key.startswith("grad.")
    }
    monkeypatch.setattr(ForwardContext, "get_context", lambda: Shared(leaves["phm.A"]))
    total = torch.zeros((), dtype=torch.float64)
    for layer in ("layer0", "layer1"):
        config = CompacterPlusPlusConfig(reduction_factor=48 / 8.5)
        adapter = Adapter("mine", 48, 8, config).double()
        for part, module in (("down", adapter.adapter_down[0]), ("up", adapter.adapter_up)):
            for own, theirs in (("W_left", "s"), ("W_right", "t"), ("b", "bias")):
                delattr(module, own)
                setattr(module, own, leaves[f"{layer}.{part}.{theirs}"])
        weight, bias = (leaves[f"{layer}.ln.{what}"] for what in ("weight", "bias"))
        both = leaves[f"{layer}.h"] + leaves[f"{layer}.x"]
        inner = functional.layer_norm(both, (48,), weight, bias, 1e-5)
        inner = adapter.adapter_up(adapter.adapter_down(inner))
        out = functional.layer_norm(inner + both, (48,), weight, bias, 1e-5)
        close(out.detach(), g[f"{layer}.out"])
        total = total + (out * g[f"{layer}.cotangent"]).sum()
    close(total.detach(), g["loss"])
    total.backward()
    assert len(leaves) == 21
    for key, leaf in leaves.items():
        close(leaf.grad, g[f"grad.{key}"])


@pytest.mark.parametrize(
    ("name", "stock"), zip(NAMES, [CompacterConfig, CompacterPlusPlusConfig], strict=True)
)
def test_the_defaults_are_the_librarys(name: str, stock: Any, backbone: Any) -> None:
    encoder = backbone.encoder()
    attach(encoder, METHODS.get(name), settings_of(name, bottleneck=8), "mine")
    found = encoder.adapters_config.get("mine").to_dict()
    expected = stock().to_dict()
    assert found.pop("reduction_factor") == 48 / 8.5
    assert expected.pop("reduction_factor") == settings_of(name).reduction_factor == 32
    assert found == expected


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", NAMES)
def test_trains_the_shared_rule_and_loads_under_another_name(
    name: str, kind: str, tiny: Callable[[str], str], jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny(kind))
    encoder, method = backbone.encoder(), METHODS.get(name)
    settings = settings_of(name, bottleneck=8)
    tuned = attach(encoder, method, settings, "mine")
    rules = [key for key in tuned.parameters if key.endswith("phm_rule")]
    assert len(rules) == 1
    assert not any("mine" in key for key in tuned.parameters)
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == {
        id(p) for p in tuned.parameters.values()
    }
    jiggle(tuned.parameters.values(), 0.5)
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuned.parameters.values())
    before = last(encoder, tokens)
    tuned.save(tmp_path, "tiny")
    other = backbone.encoder()
    load(other, method, settings, "source0000", tmp_path, active=True)
    assert not any(p.requires_grad for p in other.parameters())
    assert torch.equal(last(other, tokens), before)
    # What stage two makes of it is the same function.
    assert method.as_source is not None
    method.as_source(other, settings, "source0000")
    torch.testing.assert_close(last(other, tokens), before, rtol=1e-5, atol=1e-5)
    # Stored again from where it was loaded: the same bytes under the same name.
    again = backbone.encoder()
    load(again, method, settings, "mine", tmp_path).save(tmp_path / "again", "tiny")
    for file in ("adapter.safetensors", "adapter_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / file).read_bytes()


@pytest.mark.parametrize("kind", TYPES)
def test_stock_adapters_reads_the_entry(
    kind: str, tiny: Callable[[str], str], jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny(kind))
    encoder = backbone.encoder()
    tuned = attach(
        encoder, METHODS.get("compacter++"), settings_of("compacter++", bottleneck=8), "mine"
    )
    jiggle(tuned.parameters.values(), 0.5)
    tuned.save(tmp_path, "tiny")
    model = AutoAdapterModel.from_pretrained(tiny(kind))
    info: dict[str, Any] = {}
    model.load_adapter(
        str(tmp_path),
        load_as="theirs",
        use_safetensors=True,
        set_active=True,
        loading_info=info,
        with_head=False,
    )
    assert info["missing_keys"] == info["unexpected_keys"] == []
    model.eval()
    with torch.no_grad():
        found = model.base_model(**tokens).last_hidden_state
    assert torch.equal(found, last(encoder, tokens))


@pytest.mark.parametrize("name", ["mine", "another"])
def test_a_file_without_the_rule_is_refused(name: str, backbone: Any, tmp_path: Path) -> None:
    encoder, method = backbone.encoder(), METHODS.get("compacter++")
    settings = settings_of("compacter++", bottleneck=8)
    attach(encoder, method, settings, "mine").save(tmp_path, "tiny")
    path = tmp_path / "adapter.safetensors"
    tensors, metadata = read_safetensors(path)
    write_safetensors(path, {k: v for k, v in tensors.items() if "phm_rule" not in k}, metadata)
    with pytest.raises(ZooError, match="phm_rule"):
        load(backbone.encoder(), method, settings, name, tmp_path)


@pytest.mark.parametrize(
    "placement",
    ["pfeiffer", "houlsby"],
)
def test_mixes_with_other_sources_of_its_placement(
    placement: str, backbone: Any, jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    """Omega one-hot is that adapter alone, whatever stands beside it."""
    compacter = "compacter" if placement == "houlsby" else "compacter++"
    kinds: list[tuple[str, dict[str, Any]]] = [
        (compacter, {"bottleneck": 8}),
        ("pfeiffer", {"bottleneck": 5, "placement": placement, "activation": "gelu"}),
        (compacter, {"bottleneck": 4, "activation": "tanh"}),
        ("propetl", {"bottleneck": 6, "placement": placement}),
        ("tensorized-tr", {"bottleneck": 7, "placement": placement}),
        ("tensorized-cp", {"bottleneck_form": False, "placement": placement}),
    ]
    encoder = backbone.encoder()
    names, alone = [], []
    signatures = []
    for index, (name, values) in enumerate(kinds):
        method, settings = METHODS.get(name), settings_of(name, **values)
        trained = backbone.encoder()
        tuned = attach(trained, method, settings, "mine")
        jiggle(tuned.parameters.values(), 0.5, seed=index)
        folder = tmp_path / str(index)
        tuned.save(folder, "tiny")
        names.append(f"source{index:04d}")
        load(encoder, method, settings, names[-1], folder)
        trained.double()
        alone.append(last(trained, tokens))
        assert method.placement is not None
        signatures.append(method.placement(settings, 48))
    assert all(found == signatures[0] for found in signatures)
    encoder.double()
    for (name, values), source in zip(kinds, names, strict=True):
        method = METHODS.get(name)
        if method.as_source is not None:
            method.as_source(encoder, settings_of(name, **values), source)
    composition = COMPOSITIONS.get("scalearn")
    found = composition.attach(encoder, names, composition.settings(**composition.defaults))
    encoder.double()
    for index, expected in enumerate(alone):
        rows = torch.zeros(len(names), 1, dtype=torch.float64)
        rows[index] = 1
        with torch.no_grad():
            for omega in found.parameters.values():
                omega.copy_(rows.expand_as(omega))
        torch.testing.assert_close(last(encoder, tokens), expected, rtol=0, atol=1e-11)
    assert (alone[0] - alone[2]).abs().max() > 1e-2


def test_as_source_of_maps_that_are_not_dense_says_so(backbone: Any) -> None:
    encoder = backbone.encoder()
    attach(encoder, METHODS.get("compacter++"), settings_of("compacter++"), "mine")
    for _, _, layer in bottleneck_layers(encoder):
        if "mine" in layer.adapters:
            with pytest.raises(RequestError, match="phm_layer"):
                as_source(layer.adapters["mine"], encoder.adapters_config.get("mine"))
