"""Golden outputs and gradients of the reference, through the real adapter sites of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mtl.backbone import bottleneck_layers
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.sites import site_keys
from mtl.files import read_safetensors
from mtl.methods import METHODS, as_source, attach, source_names
from mtl.methods.pfeiffer import PfeifferSettings

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-10
SINGLE = {
    "a_scalearn_vector_eval": ("scalearn", {}),
    "b_scalearn_uniform_eval": ("scalearn-uniform", {}),
    "c_scalearn_vector_train_dropout": ("scalearn", {}),
    "d_scalearn_uniform_train_dropout": ("scalearn-uniform", {}),
    "g_scalearn_ablation_mean": ("scalearn", {"normalise": "mean", "dropout": 0.0}),
    "h_scalearn_ablation_softmax": ("scalearn", {"normalise": "softmax", "dropout": 0.0}),
}


def close(found: torch.Tensor | None, golden: torch.Tensor) -> None:
    assert found is not None
    assert found.shape == golden.shape
    scale = max(1.0, golden.abs().max().item())
    assert (found - golden).abs().max().item() / scale <= TOLERANCE


def output_layers(encoder: Any) -> list[Any]:
    return [layer for _, key, layer in bottleneck_layers(encoder) if key == "output_adapter"]


def put_weights(layer: Any, name: str, case: dict[str, torch.Tensor], prefix: str) -> None:
    adapter = layer.adapters[name]
    with torch.no_grad():
        adapter.adapter_down[0].weight.copy_(case[f"{prefix}down.weight"])
        adapter.adapter_down[0].bias.copy_(case[f"{prefix}down.bias"])
        adapter.adapter_up.weight.copy_(case[f"{prefix}up.weight"])
        adapter.adapter_up.bias.copy_(case[f"{prefix}up.bias"])


def layer_norm(case: dict[str, torch.Tensor], prefix: str = "") -> nn.LayerNorm:
    weight = case[f"{prefix}ln.weight"]
    norm = nn.LayerNorm(len(weight), eps=1e-5, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(weight)
        norm.bias.copy_(case[f"{prefix}ln.bias"])
    return norm


def composed(
    encoder: Any, method: str, values: dict[str, Any], case: dict[str, Any], prefixes: list[str]
) -> Any:
    """Attach golden sources (``prefixes[l]`` in layer l) and the composition with its omega."""
    names = source_names(case["omega"].shape[0])
    for name in names:
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(reduction_factor=8), name)
    encoder.double()
    for layer, prefix in zip(output_layers(encoder), prefixes, strict=False):
        for index, name in enumerate(names):
            put_weights(layer, name, case, f"{prefix}adapter.{index}.")
    composition = COMPOSITIONS.get(method)
    settings = composition.settings(**{**composition.defaults, **values})
    found = composition.attach(encoder, names, settings)
    encoder.double()
    with torch.no_grad():
        for omega in found.parameters.values():
            omega.copy_(case["omega"])
    return found


def run(layer: Any, case: dict[str, torch.Tensor], prefix: str = "") -> Any:
    h = case[f"{prefix}h"].clone().requires_grad_()
    x = case[f"{prefix}x"].clone().requires_grad_()
    norm = layer_norm(case, prefix)
    out = layer.bottleneck_layer_forward(h, x, norm)
    return out, h, x, norm


def raw(encoder: Any, layer: Any, case: dict[str, torch.Tensor], prefix: str = "") -> torch.Tensor:
    """(B,T,K,D): what the sources answer to LN(h + x), as compositions see it, no residual."""
    z = layer_norm(case, prefix)(case[f"{prefix}h"] + case[f"{prefix}x"])
    found = []
    for name, adapter in layer.adapters.items():
        source = as_source(adapter, encoder.adapters_config.get(name))
        up, bias = source.up()
        found.append(source.features(z) @ up.t() + bias)
    return torch.stack(found, dim=2).detach()


@pytest.mark.parametrize("name", SINGLE)
def test_layer_matches_reference(name: str, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method, values = SINGLE[name]
    case, metadata = read_safetensors(GOLDEN / f"case01{name}.safetensors")
    found = composed(encoder, method, values, case, [""])
    keep = case.get("omega_dropout_keep")
    if keep is not None:
        probability = float(metadata["dropout_p"])
        encoder.train()

        def recorded(tensor: torch.Tensor, p: float, training: bool) -> torch.Tensor:
            assert training
            assert p == probability
            assert tensor.shape == keep.shape
            return tensor * keep / (1 - p)

        monkeypatch.setattr("mtl.compose.modules.scalearn.functional.dropout", recorded)
    out, h, x, norm = run(output_layers(encoder)[0], case)
    loss = (out * case["cotangent"]).sum()
    loss.backward()
    close(raw(encoder, output_layers(encoder)[0], case), case["sources_up"])
    close(out, case["out"])
    close(loss, case["loss"])
    close(found.parameters["omega.0"].grad, case["grad.omega"])
    close(h.grad, case["grad.h"])
    close(x.grad, case["grad.x"])
    close(norm.weight.grad, case["grad.ln.weight"])
    close(norm.bias.grad, case["grad.ln.bias"])


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("e_scalearn_pp_shared_eval", "scalearn++"),
        ("f_scalearn_uniform_pp_shared_eval", "scalearn-uniform++"),
    ],
)
def test_shared_omega_collects_the_gradients_of_its_layers(
    name: str, method: str, encoder: Any
) -> None:
    case, _ = read_safetensors(GOLDEN / f"case01{name}.safetensors")
    found = composed(encoder, method, {}, case, ["layer0.", "layer1."])
    assert list(found.parameters) == ["omega.shared"]
    loss = torch.zeros((), dtype=torch.float64)
    runs = {}
    for index, layer in enumerate(output_layers(encoder)):
        prefix = f"layer{index}."
        out, h, x, norm = run(layer, case, prefix)
        close(out, case[f"{prefix}out"])
        loss = loss + (out * case[f"{prefix}cotangent"]).sum()
        runs[prefix] = (h, x, norm)
    loss.backward()
    close(loss, case["loss"])
    close(found.parameters["omega.shared"].grad, case["grad.omega"])
    for prefix, (h, x, norm) in runs.items():
        close(h.grad, case[f"grad.{prefix}h"])
        close(x.grad, case[f"grad.{prefix}x"])
        close(norm.weight.grad, case[f"grad.{prefix}ln.weight"])
        close(norm.bias.grad, case[f"grad.{prefix}ln.bias"])


def test_a_single_pfeiffer_adapter_matches_reference(encoder: Any) -> None:
    case, _ = read_safetensors(GOLDEN / "case03a_pfeiffer_layer.safetensors")
    settings = PfeifferSettings(reduction_factor=8)
    parameters = attach(encoder, METHODS.get("pfeiffer"), settings, "own").parameters
    encoder.double()
    layer = output_layers(encoder)[0]
    put_weights(layer, "own", case, "adapter.")
    close(raw(encoder, layer, case).squeeze(2), case["adapter_up_out"])
    out, h, x, norm = run(layer, case)
    loss = (out * case["cotangent"]).sum()
    loss.backward()
    close(out, case["out"])
    close(loss, case["loss"])
    close(h.grad, case["grad.h"])
    close(x.grad, case["grad.x"])
    close(norm.weight.grad, case["grad.ln.weight"])
    close(norm.bias.grad, case["grad.ln.bias"])
    down, up = layer.adapters["own"].adapter_down[0], layer.adapters["own"].adapter_up
    for name, parameter in (("down", down), ("up", up)):
        close(parameter.weight.grad, case[f"grad.adapter.{name}.weight"])
        close(parameter.bias.grad, case[f"grad.adapter.{name}.bias"])
    trained = {id(parameter) for parameter in parameters.values()}
    assert {id(down.weight), id(up.bias)} <= trained


@pytest.mark.parametrize(("sources", "method"), [(8, "scalearn"), (5, "scalearn-uniform++")])
def test_omega_starts_at_two_over_k(sources: int, method: str, encoder: Any) -> None:
    names = source_names(sources)
    for name in names:
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(), name)
    composition = COMPOSITIONS.get(method)
    torch.manual_seed(3)
    found = composition.attach(encoder, names, composition.settings(**composition.defaults))
    for omega in found.parameters.values():
        assert (omega - 2 / sources).abs().max() < 6e-3
        assert omega.std() > 0
    if method == "scalearn":
        first, second = found.parameters.values()
        assert first.std().item() == pytest.approx(1e-3, rel=0.2)
        assert not torch.equal(first, second)


def test_dropout_of_omega_is_off_in_evaluation_and_one_mask_per_site_in_training(
    encoder: Any,
) -> None:
    names = source_names(6)
    for name in names:
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(), name)
    composition = COMPOSITIONS.get("scalearn++")
    composition.attach(encoder, names, composition.settings(**composition.defaults))
    first, second = site_keys(encoder).values()
    encoder.eval()
    assert torch.equal(first.effective(), second.effective())
    encoder.train()
    a, b = first.effective(), second.effective()
    assert not torch.equal(a == 0, b == 0)
    share = (torch.stack([a, b]) == 0).double().mean().item()
    assert 0.2 < share < 0.4
    kept = a[a != 0]
    assert kept.mean().item() == pytest.approx(2 / 6 / 0.7, rel=0.01)
