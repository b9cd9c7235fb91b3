"""ProPETL and Compacter: golden tensors, masks, counts, storage, and what stage two sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import CompacterPlusPlusConfig
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from mtl.backbone import load_backbone
from mtl.backbone.injection import bottleneck_layers
from mtl.errors import RequestError, ZooError
from mtl.methods import METHODS, PlainSource, as_source, attach, count_method, load
from mtl.methods.compacter import CompacterSettings
from mtl.methods.masks import keep_mask, new_scores, pack, unpack
from mtl.methods.modules.compacter import dense
from mtl.methods.modules.propetl import Masked, MaskedDown, Prototype
from mtl.methods.pfeiffer import PfeifferSettings
from mtl.methods.propetl import ProPETLSettings

GOLDEN = Path(__file__).parents[1] / "golden"
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("size", ["even24", "odd35", "ten", "single"])
def test_golden_masks(size: str, keep: float) -> None:
    g = load_file(GOLDEN / "case05a_propetl_mask.safetensors")
    name = f"{size}.k{keep}"
    scores = g[f"{name}.scores"].clone().requires_grad_(True)
    mask = keep_mask(scores, keep)
    close(mask.detach(), g[f"{name}.mask"])
    (mask * g[f"{name}.cotangent"]).sum().backward()
    close(scores.grad, g[f"{name}.grad_scores"])


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_equal_scores_keep_the_exact_share(keep: float) -> None:
    for scores in (torch.ones(7, 9), torch.tensor([[1.0, -1.0, 2.0, -2.0]] * 5)):
        mask = keep_mask(scores, keep)
        assert mask.sum() == scores.numel() - int((1 - keep) * scores.numel())
        kept = scores.abs() * mask
        assert kept.sum() == scores.abs().flatten().topk(int(mask.sum())).values.sum()


def test_golden_layers() -> None:
    g = load_file(GOLDEN / "case05c_propetl_single_task_layers.safetensors")
    prototype = Prototype(24, 4).double()
    with torch.no_grad():
        for part in ("down", "up"):
            for what in ("weight", "bias"):
                prototype.get_submodule(part).get_parameter(what).copy_(g[f"adapter.{part}.{what}"])
    total = torch.zeros((), dtype=torch.float64)
    scores: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}
    for layer in ("layer0", "layer1"):
        down, up = Masked(24, 4, 0.5).double(), Masked(4, 24, 0.5).double()
        for part, masked, linear in (("down", down, prototype.down), ("up", up, prototype.up)):
            with torch.no_grad():
                masked.scores.copy_(g[f"{layer}.{part}.scores"])
            masked.bind(linear)
            close(masked.current().detach(), g[f"{layer}.{part}.mask"])
            scores[f"{layer}.{part}.scores"] = masked.scores
        h, x = (g[f"{layer}.{what}"].clone().requires_grad_(True) for what in "hx")
        inputs |= {f"{layer}.h": h, f"{layer}.x": x}
        for what in ("weight", "bias"):
            inputs[f"{layer}.ln.{what}"] = g[f"{layer}.ln.{what}"].clone().requires_grad_(True)
        own = [inputs[f"{layer}.ln.{what}"] for what in ("weight", "bias")]
        norm = lambda v, own=own: functional.layer_norm(v, (24,), *own, 1e-5)  # noqa: E731
        out = norm(up(MaskedDown(down, "relu")(norm(h + x))) + h + x)
        close(out.detach(), g[f"{layer}.out"])
        total = total + (out * g[f"{layer}.cotangent"]).sum()
    total.backward()
    close(total.detach(), g["loss"])
    for name, tensor in {**scores, **inputs}.items():
        close(tensor.grad, g[f"grad.{name}"])
    for part in ("down", "up"):
        for what in ("weight", "bias"):
            parameter = prototype.get_submodule(part).get_parameter(what)
            close(parameter.grad, g[f"grad.adapter.{part}.{what}"])


def test_counts() -> None:
    found = count_method("propetl", "roberta-base", values={"reduction_factor": 16})
    assert (found.method, found.mask_entries) == (74_544, 884_736)
    large = count_method("propetl", "roberta-large", values={"reduction_factor": 16})
    assert (large.method, large.mask_entries) == (132_160, 3_145_728)
    for name, model, values, expected in (
        ("compacter", "bert-base-uncased", {"bottleneck": 24}, 57_088),
        ("compacter++", "bert-base-uncased", {}, 28_576),
        ("compacter++", "roberta-base", {"reduction_factor": 16}, 29_440),
    ):
        assert count_method(name, model, values=values).method == expected


def test_bits() -> None:
    torch.manual_seed(0)
    for shape in ((1, 1), (3, 5), (8, 8), (7, 9)):
        mask = (torch.rand(shape) < 0.5).float()
        bits = pack(mask)
        assert bits.dtype == torch.uint8
        assert bits.numel() == -(-mask.numel() // 8)
        assert torch.equal(unpack(bits, shape), mask)
    with pytest.raises(ValueError, match="no mask"):
        unpack(bits, (7, 10))
    scores = new_scores(768, 48)
    assert scores.abs().max().item() == pytest.approx(48**-0.5, rel=1e-3)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("learn", [True, False])
def test_propetl_stored_and_loaded_is_the_same(
    learn: bool, kind: str, tiny: Callable[[str], str], jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny(kind))
    method = METHODS.get("propetl")
    torch.manual_seed(0)
    settings = ProPETLSettings(
        bottleneck=6, learn_masks=learn, placement="houlsby", keep=0.3, activation="tanh"
    )
    encoder = backbone.encoder()
    tuned = attach(encoder, method, settings, "mine")
    assert [group.name for group in tuned.groups] == ["method", "masks"][: 1 + learn]
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == {
        id(p) for p in tuned.parameters.values()
    }
    jiggle(tuned.groups[0].parameters.values(), 0.3)
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in tuned.parameters.values())
    with torch.no_grad():
        before = encoder(**tokens).last_hidden_state
        with tuned.caches[0]():
            assert torch.equal(encoder(**tokens).last_hidden_state, before)
    tuned.save(tmp_path, "tiny")
    stored = load_file(tmp_path / "adapter.safetensors")
    floats = sum(v.numel() for v in stored.values() if v.dtype != torch.uint8)
    assert floats == 2 * 48 * 6 + 6 + 48
    bits = sum(v.numel() for v in stored.values() if v.dtype == torch.uint8)
    assert bits == tuned.mask_entries // 8 == 4 * 2 * 48 * 6 // 8
    other = backbone.encoder()
    load(other, method, settings, "another", tmp_path, active=True)
    with torch.no_grad():
        assert torch.equal(other(**tokens).last_hidden_state, before)
    smaller = ProPETLSettings(bottleneck=5, placement="houlsby")
    with pytest.raises(ZooError, match="do not fit"):
        load(backbone.encoder(), method, smaller, "x", tmp_path)


def views(encoder: Any, name: str) -> list[tuple[Any, Any]]:
    """Every adapter module of ``name``, and what stage two sees of it."""
    config = encoder.adapters_config.get(name)
    layers = [layer for _, _, layer in bottleneck_layers(encoder) if name in layer.adapters]
    return [(layer.adapters[name], as_source(layer.adapters[name], config)) for layer in layers]


def test_both_are_plain_sources_of_stage_two(
    backbone: Any, jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    z = torch.randn(2, 5, 48)
    placements = []
    for name, settings in (
        ("propetl", ProPETLSettings(bottleneck=6, activation="tanh")),
        ("compacter++", CompacterSettings(bottleneck=8, placement="pfeiffer")),
        ("pfeiffer", PfeifferSettings(bottleneck=7)),
    ):
        method = METHODS.get(name)
        encoder = backbone.encoder()
        tuned = attach(encoder, method, settings, "mine")
        jiggle(tuned.groups[0].parameters.values(), 0.5)
        folder = tmp_path / name
        folder.mkdir()
        tuned.save(folder, "tiny")
        source = backbone.encoder()
        load(source, method, settings, "mine", folder, active=True)
        with torch.no_grad():
            expected = source(**tokens).last_hidden_state
        torch.testing.assert_close(expected, encoder(**tokens).last_hidden_state.detach())
        if method.as_source:
            method.as_source(source, settings, "mine")
            with torch.no_grad():  # dense maps are the same function
                found = source(**tokens).last_hidden_state
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for adapter, view in views(source, "mine"):
            assert isinstance(view, PlainSource)
            weight, bias = view.up()
            out = functional.linear(view.features(z), weight, bias)
            torch.testing.assert_close(out, adapter.adapter_up(adapter.adapter_down(z)))
        assert method.placement is not None
        placements.append(method.placement(settings, 48))
    assert placements[0] == placements[1] == placements[2]


def test_golden_compacter() -> None:
    """``adapters``' layer, and our dense form of it, against the reference."""
    from adapters.methods.modeling import Adapter

    g = load_file(GOLDEN / "case03b_compacterpp_layers.safetensors")
    config = CompacterPlusPlusConfig(reduction_factor=48 / 8.5)
    for layer in ("layer0", "layer1"):
        adapter = Adapter("mine", 48, 8, config).double()
        maps = []
        for part, module in (("down", adapter.adapter_down[0]), ("up", adapter.adapter_up)):
            with torch.no_grad():
                module.W_left.copy_(g[f"{layer}.{part}.s"])
                module.W_right.copy_(g[f"{layer}.{part}.t"])
                module.b.copy_(g[f"{layer}.{part}.bias"])
                maps.append(dense(module, g["phm.A"]))
        norm = nn.LayerNorm(48).double()
        with torch.no_grad():
            norm.weight.copy_(g[f"{layer}.ln.weight"])
            norm.bias.copy_(g[f"{layer}.ln.bias"])
            both = g[f"{layer}.h"] + g[f"{layer}.x"]
            out = norm(maps[1](adapter.non_linearity(maps[0](norm(both)))) + both)
        close(out, g[f"{layer}.out"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ProPETLSettings(keep=0.0), "keep=0.0"),
        (lambda: ProPETLSettings(activation="rellu"), "Did you mean 'relu'"),
        (lambda: ProPETLSettings(bottleneck=-1), "bottleneck=-1"),
        (lambda: CompacterSettings(placement="parallel"), "Unknown placement"),
        (lambda: CompacterSettings(phm_dim=0), "phm_dim=0"),
        (
            lambda: count_method("compacter", "roberta-base", values={"bottleneck": 26}),
            "26 and 768",
        ),
        (lambda: count_method("compacter", "roberta-base", values={"phm_dim": 5}), "multiples of"),
    ],
)
def test_wrong_settings(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        make()
