"""AdapterFusion: golden outputs and gradients, and the low-rank form against the plain one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_golden_scalearn import GOLDEN, close, output_layers, put_weights, raw, run

from mtl.compose.composition import COMPOSITIONS
from mtl.compose.fusion import FusionSettings
from mtl.compose.sites import site_keys
from mtl.errors import RequestError
from mtl.files import read_safetensors
from mtl.methods import METHODS, attach, source_names
from mtl.methods.pfeiffer import PfeifferSettings

PARTS = ("query.weight", "query.bias", "key.weight", "key.bias", "value.weight")


def fused(encoder: Any, sources: int, settings: FusionSettings | None = None, **values: Any) -> Any:
    names = source_names(sources)
    for name in names:
        chosen = PfeifferSettings(**{"reduction_factor": 8, **values})
        attach(encoder, METHODS.get("pfeiffer"), chosen, name)
    encoder.double()
    found = COMPOSITIONS.get("fusion").attach(encoder, names, settings or FusionSettings())
    encoder.double()
    return found


@pytest.mark.parametrize("name", ["a_adapterfusion_eval", "b_adapterfusion_train_dropout"])
def test_layer_matches_reference(name: str, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case, _ = read_safetensors(GOLDEN / f"case02{name}.safetensors")
    names = source_names(3)
    for source in names:
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(reduction_factor=8), source)
    encoder.double()
    layer = output_layers(encoder)[0]
    for index, source in enumerate(names):
        put_weights(layer, source, case, f"adapter.{index}.")
    found = COMPOSITIONS.get("fusion").attach(encoder, names, FusionSettings(dropout=0.1))
    encoder.double()
    with torch.no_grad():
        for part in PARTS:
            found.parameters[f"fusion.0.{part}"].copy_(case[f"fusion.{part}"])
    keep = case.get("score_dropout_keep")
    encoder.train(keep is not None)
    scores: list[torch.Tensor] = []

    def recorded(score: torch.Tensor, p: float, training: bool) -> torch.Tensor:
        assert (p, training) == (0.1, keep is not None)
        scores.append(score.detach())
        return score if keep is None else score * keep / (1 - p)

    monkeypatch.setattr("mtl.compose.modules.fusion.functional.dropout", recorded)
    close(raw(encoder, layer, case), case["sources_up"])
    out, h, x, norm = run(layer, case)
    close(scores[0], case["attention_scores"])
    loss = (out * case["cotangent"]).sum()
    loss.backward()
    close(out, case["out"])
    close(loss, case["loss"])
    for part in PARTS:
        close(found.parameters[f"fusion.0.{part}"].grad, case[f"grad.fusion.{part}"])
    close(h.grad, case["grad.h"])
    close(x.grad, case["grad.x"])
    close(norm.weight.grad, case["grad.ln.weight"])
    close(norm.bias.grad, case["grad.ln.bias"])
    # the weights themselves, one token of one row at a time
    site = site_keys(encoder)["0"]
    for row, token in ((0, 0), (1, 4)):
        site.hold([None])
        with torch.no_grad():
            z = norm(case["h"] + case["x"])
            if keep is not None:
                monkeypatch.setattr(
                    "mtl.compose.modules.fusion.functional.dropout",
                    lambda score, p, training: score * keep[row, token] / (1 - p),  # noqa: B023
                )
            site(z[row : row + 1, token : token + 1])
        attention = site.attention()
        assert attention is not None
        torch.testing.assert_close(
            attention.double(), case["attention_probs"][row, token], rtol=0, atol=1e-6
        )


def test_regulariser_matches_reference(encoder: Any) -> None:
    case, _ = read_safetensors(GOLDEN / "case02c_adapterfusion_regulariser.safetensors")
    found = fused(encoder, 2)
    values = [found.parameters[f"fusion.{layer}.value.weight"] for layer in (0, 1)]
    with torch.no_grad():
        for layer, value in enumerate(values):
            value.copy_(case[f"layer{layer}.value.weight"])
    (penalty,) = found.penalties
    reg = penalty()["fusion_reg"]
    reg.backward()
    close(reg, case["regulariser"])
    for layer, value in enumerate(values):
        close(value.grad, case[f"grad.layer{layer}.value.weight"])


def test_regulariser_settings(encoder: Any) -> None:
    assert FusionSettings(fusion_reg="0").fusion_reg == "0"
    with pytest.raises(RequestError, match="paper"):
        FusionSettings(fusion_reg="papper")
    assert not fused(encoder, 2, FusionSettings(fusion_reg="0")).penalties


def looped(site: Any, sources: list[Any], z: torch.Tensor) -> torch.Tensor:
    """The formula as it is written, one source after the other."""
    outputs = [u.features(z) @ u.up()[0].t() + u.up()[1] for u in sources]
    query = site.query(z)
    scores = torch.stack([(query * site.key(u)).sum(-1) for u in outputs], dim=-1)
    weight = scores.softmax(-1)
    values = torch.stack([site.value(u) for u in outputs], dim=-1)
    return (values * weight.unsqueeze(-2)).sum(-1)


@pytest.mark.parametrize("bottlenecks", [(6, 6, 6), (2, 5, 3)])
def test_low_rank_form_equals_the_loop(encoder: Any, bottlenecks: tuple[int, ...]) -> None:
    from mtl.methods import as_source

    names = source_names(len(bottlenecks))
    for name, size in zip(names, bottlenecks, strict=True):
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(bottleneck=size), name)
    encoder.double()
    found = COMPOSITIONS.get("fusion").attach(encoder, names, FusionSettings(dropout=0.0))
    encoder.double()
    site = site_keys(encoder)["0"]
    layer = output_layers(encoder)[0]
    sources = [as_source(layer.adapters[n], encoder.adapters_config.get(n)) for n in names]
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters.values():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    z = torch.randn(2, 7, 48, dtype=torch.float64)
    own = [found.parameters[f"fusion.0.{part}"] for part in PARTS]
    fast, slow = site(z), looped(site, sources, z)
    assert (fast - slow).abs().max() < 1e-12
    seed = torch.randn_like(fast)
    ours = torch.autograd.grad((fast * seed).sum(), own)
    theirs = torch.autograd.grad((slow * seed).sum(), own)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-12 * max(1.0, b.abs().max().item())


def test_held_maps_give_the_same_and_count_attention(encoder: Any, tokens: dict[str, Any]) -> None:
    found = fused(encoder, 3)
    encoder.eval()
    with torch.no_grad():
        plain = encoder(**tokens).last_hidden_state
        assert not found.seen()
        with found.evaluating():
            held = encoder(**tokens).last_hidden_state
    assert (plain - held).abs().max() < 1e-12
    stored, seen = found.tensors(), found.seen()
    assert {name.partition(".")[0] for name in stored} == {"fusion"}
    assert list(seen) == ["0", "1"]
    for attention in seen.values():
        assert attention.shape == (3,)
        assert attention.sum().item() == pytest.approx(1.0)
    # as entries of before hold them
    found.load(stored | {f"attention.{layer}": value for layer, value in seen.items()})
