"""Ablations of the ScaLearn paper, probing and soup: by hand, and through the encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtl.compose.composition import COMPOSITIONS
from mtl.compose.modules.soup import stir
from mtl.compose.probe import SCALES, ProbeSettings, grid
from mtl.compose.scalearn import ScaLearnSettings
from mtl.compose.sites import site_keys
from mtl.compose.soup import SoupSettings
from mtl.compose.soup_text import mean_embedding, training_texts
from mtl.errors import RequestError, ZooError
from mtl.methods import METHODS, PlainSource, attach, source_names
from mtl.methods.pfeiffer import PfeifferSettings


def add(encoder: Any, settings: list[PfeifferSettings], jiggle: Any) -> list[str]:
    names = source_names(len(settings))
    for index, (name, value) in enumerate(zip(names, settings, strict=True)):
        tuned = attach(encoder, METHODS.get("pfeiffer"), value, name)
        jiggle(tuned.parameters.values(), 0.2, seed=index)
        for parameter in tuned.parameters.values():
            parameter.requires_grad_(False)
    return names


def compose(encoder: Any, names: list[str], method: str, **values: Any) -> Any:
    composition = COMPOSITIONS.get(method)
    settings = composition.settings(**{**composition.defaults, **values})
    return composition.attach(encoder, names, settings)


@torch.no_grad()
def hidden(encoder: Any, tokens: dict[str, Tensor]) -> Tensor:
    return encoder(**tokens).last_hidden_state


THREE = [PfeifferSettings(bottleneck=4)] * 3


# ------------------------------------------------------------------ regularised omega


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
@pytest.mark.parametrize("method", ["scalearn", "scalearn++", "scalearn-uniform"])
def test_the_regulariser_is_the_formula(
    method: str, placement: str, encoder: Any, jiggle: Any
) -> None:
    settings = [PfeifferSettings(bottleneck=4, placement=placement)] * 3
    found = compose(encoder, add(encoder, settings, jiggle), method, regularise=0.1)
    jiggle(found.parameters.values(), 1.0, seed=5)
    (penalty,) = found.penalties
    parts = penalty()
    expected = 0.0
    for omega in found.parameters.values():
        for row in omega.detach().tolist():
            expected += (1 - sum(row) / len(row)) ** 2
    assert set(parts) == {"omega_reg"}
    assert parts["omega_reg"].item() == pytest.approx(0.1 / 3 * expected, rel=1e-5)
    parts["omega_reg"].backward()
    for omega in found.parameters.values():
        slope = -2 * 0.1 / 3 * (1 - omega.detach().mean(1, keepdim=True)) / omega.shape[1]
        torch.testing.assert_close(omega.grad, slope.expand_as(omega))


def test_no_regulariser_unless_asked_for(encoder: Any, jiggle: Any) -> None:
    assert not compose(encoder, add(encoder, THREE, jiggle), "scalearn").penalties


@pytest.mark.parametrize(
    "values",
    [
        {"regularise": -1.0},
        {"layer_groups": -1},
        {"layer_groups": 2, "share_layers": True},
        {"normalise": "sum"},
    ],
)
def test_settings_that_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        ScaLearnSettings(**values)


# ------------------------------------------------------------------ layer groups


def test_layer_groups(make_tiny: Any, tmp_path: Any, jiggle: Any) -> None:
    from mtl.backbone import load_backbone

    backbone = load_backbone(str(make_tiny(tmp_path / "five", "bert", num_hidden_layers=5)))
    keys = {
        0: {"omega.0", "omega.1", "omega.2", "omega.3", "omega.4"},
        1: {"omega.shared"},
        2: {"omega.0-2", "omega.3-4"},
        3: {"omega.0-1", "omega.2-3", "omega.4"},
        5: {"omega.0", "omega.1", "omega.2", "omega.3", "omega.4"},
    }
    for groups, expected in keys.items():
        encoder = backbone.encoder()
        names = add(encoder, THREE, jiggle)
        found = compose(encoder, names, "scalearn", layer_groups=groups)
        assert set(found.parameters) == expected, groups
        assert set(found.tensors()) == expected
        # each layer uses the omega whose name holds it
        for key, site in site_keys(encoder).items():
            (name,) = [n for n, p in found.parameters.items() if p is site._omega[0]]
            first, _, last = name.removeprefix("omega.").partition("-")
            assert name == "omega.shared" or int(first) <= int(key) <= int(last or first)
    encoder = backbone.encoder()
    with pytest.raises(RequestError, match="more than the encoder's 5 layers"):
        compose(encoder, add(encoder, THREE, jiggle), "scalearn", layer_groups=6)


def test_groups_of_houlsby_have_an_omega_per_place(encoder: Any, jiggle: Any) -> None:
    settings = [PfeifferSettings(bottleneck=4, placement="houlsby")] * 2
    found = compose(encoder, add(encoder, settings, jiggle), "scalearn", layer_groups=1)
    assert set(found.parameters) == {"omega.shared.mh_adapter", "omega.shared.output_adapter"}


# ------------------------------------------------------------------ probing


def test_probing_is_a_fixed_omega(backbone: Any, tokens: dict[str, Tensor], jiggle: Any) -> None:
    settings = [PfeifferSettings(bottleneck=r) for r in (4, 3)]
    encoder = backbone.encoder()
    probed = compose(encoder, add(encoder, settings, jiggle), "probe", scales="0.3,-1")
    assert probed.parameters == {}
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    other = backbone.encoder()
    found = compose(other, add(other, settings, jiggle), "scalearn-uniform++")
    with torch.no_grad():
        for omega in found.parameters.values():
            omega.copy_(torch.tensor([[0.3], [-1.0]]))
    assert torch.equal(hidden(encoder.eval(), tokens), hidden(other.eval(), tokens))
    assert torch.equal(probed.tensors()["omega.shared"], torch.tensor([[0.3], [-1.0]]))
    probed.load(probed.tensors())


def test_a_probe_at_one_is_the_adapter_and_at_zero_the_encoder(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    plain = hidden(backbone.encoder(), tokens)
    for scale in ("0", "1"):
        encoder = backbone.encoder()
        names = add(encoder, THREE[:1], jiggle)
        encoder.set_active_adapters(names[0])
        alone = hidden(encoder, tokens)
        compose(encoder, names, "probe", scales=scale)
        expected = alone if scale == "1" else plain
        torch.testing.assert_close(hidden(encoder, tokens), expected, rtol=0, atol=2e-6)
    assert (alone - plain).abs().max() > 1e-3


def test_grids() -> None:
    assert [s.scales for s in grid([0, 0.5, 1], 1)] == ["0", "0.5", "1"]
    pairs = grid(SCALES, 2)
    assert len(pairs) == 49
    assert pairs[1].numbers() == [0.0, 0.1]
    for values, sources in (([0.1], 3), ([0.1, 0.1], 1)):
        with pytest.raises(RequestError):
            grid(values, sources)
    for scales in ("a", "1,", "nan", ""):
        with pytest.raises(RequestError):
            ProbeSettings(scales)


def test_a_probe_needs_a_scale_per_source(encoder: Any, jiggle: Any) -> None:
    with pytest.raises(RequestError, match="2 for 3 sources"):
        compose(encoder, add(encoder, THREE, jiggle), "probe", scales="1,2")


# ------------------------------------------------------------------ soup


def test_a_soup_is_the_adapter_of_averaged_weights(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    from mtl.backbone.injection import adapter_parameters

    encoder = backbone.encoder()
    names = add(encoder, THREE, jiggle)
    weights = [0.5, 0.2, 0.3]
    encoder.add_adapter("mean", config=encoder.adapters_config.get(names[0]))
    parts = [adapter_parameters(encoder, name) for name in names]
    with torch.no_grad():
        for key, parameter in adapter_parameters(encoder, "mean").items():
            own = [p[key.replace(".mean.", f".{n}.")] for p, n in zip(parts, names, strict=True)]
            parameter.copy_(sum(w * value for w, value in zip(weights, own, strict=True)))
    encoder.set_active_adapters("mean")
    expected = hidden(encoder.eval(), tokens)
    found = compose(encoder, names, "soup", weights="5,2,3")
    assert found.parameters == {}
    torch.testing.assert_close(hidden(encoder, tokens), expected, rtol=0, atol=2e-6)
    stored = found.tensors()
    torch.testing.assert_close(stored["soup.weights"], torch.tensor(weights))
    found.load(stored)
    with pytest.raises(ZooError):
        found.load({"soup.weights": torch.tensor([0.2, 0.5, 0.3])})
    with pytest.raises(ZooError):
        found.load({})


def test_a_soup_of_outputs_is_another_thing(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    outputs = []
    for method, values in (("soup", {"weights": "1,1,1"}), ("average", {})):
        encoder = backbone.encoder()
        compose(encoder, add(encoder, THREE, jiggle), method, **values)
        outputs.append(hidden(encoder.eval(), tokens))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_unlike_sources_make_no_soup(encoder: Any, jiggle: Any) -> None:
    names = add(encoder, [PfeifferSettings(bottleneck=r) for r in (4, 3)], jiggle)
    with pytest.raises(RequestError, match=r"bottlenecks 3, 4.*--method average"):
        compose(encoder, names, "soup", weights="1,1")
    zero = torch.zeros(1)
    a, b = (PlainSource(zero, zero, act, zero, zero) for act in ("relu", "tanh"))
    with pytest.raises(RequestError, match="activations relu, tanh"):
        stir([a, b], [0.5, 0.5])
    assert stir([a, b], [1.0, 0.0]).activation == "relu"  # what weighs nothing does not matter


@pytest.mark.parametrize(
    "values", [{"top": 0}, {"rows": 0}, {"weights": "a"}, {"weights": "-1,2"}, {"weights": "0,0"}]
)
def test_soup_settings_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        SoupSettings(**values)


def test_similarity_is_the_mean_cosine_over_all_pairs(backbone: Any) -> None:
    model, tokenizer = backbone.pristine, backbone.tokenizer
    ours = ["the cat sees a bird", "no dog", "every old house is quiet today"]
    theirs = ["some friend", "the river and the tree"]

    @torch.no_grad()
    def vector(text: str) -> Tensor:
        state = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double()
        return torch.nn.functional.normalize(state.mean(0), dim=0)

    expected = sum(float(vector(a) @ vector(b)) for a in ours for b in theirs) / 6
    found = mean_embedding(ours, model, tokenizer) @ mean_embedding(theirs, model, tokenizer)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_texts_are_sampled_once_and_for_all() -> None:
    from types import SimpleNamespace

    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return len(self.texts[0])

    split = Rows(texts=([f"a{i}" for i in range(50)], [f"b{i}" for i in range(50)]))
    data: Any = SimpleNamespace(splits={"train": split})
    few = training_texts(data, 10)
    assert len(few) == 10
    assert few == training_texts(data, 10)
    assert all(text.split()[0][1:] == text.split()[1][1:] for text in few)
    assert training_texts(data, 100) == [f"a{i} b{i}" for i in range(50)]
