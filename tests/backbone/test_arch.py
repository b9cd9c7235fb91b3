"""The table of model types: what it says is how the models are built, for every type."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from bases_bench import pristine, ready
from torch import nn

from mtl.backbone.arch import Place, archs, find_arch, supported
from mtl.backbone.injection import bottleneck_layers, prepare
from mtl.backbone.linear import LINEARS, Part, add_delta, linear_paths, linear_sites, whole_paths
from mtl.backbone.network import pooled
from mtl.errors import RequestError
from mtl.methods import METHODS, attach
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import install

TYPES = list(archs())
INTERFACES = [kind for kind, arch in archs().items() if arch.entry == "interface"]


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, (4, 11), generator=generator)
    ids[1, 7:] = ids[2, 4:] = 1
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}


@torch.no_grad()
def states(encoder: Any) -> torch.Tensor:
    return encoder(**batch()).last_hidden_state


def jiggled(encoder: Any, method: str, **settings: Any) -> Any:
    """The encoder with an adapter of ``method`` that does something."""
    torch.manual_seed(1)
    chosen = METHODS.get(method)
    tuned = attach(encoder, chosen, chosen.settings(**{**chosen.defaults, **settings}), "mine")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for group in tuned.groups:
            for parameter in group.parameters.values():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return encoder


@pytest.mark.parametrize("kind", TYPES)
def test_prepared_without_an_adapter_is_pristine_bit_for_bit(kind: str) -> None:
    model = pristine(kind)
    names = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = ready(kind)
    generator = torch.Generator().manual_seed(0)
    for rows, length in ((1, 1), (2, 7), (5, 11), (3, 31), (2, 60)):
        # Sums of matrices that lie in memory otherwise differ at some lengths and not at others.
        ids = torch.randint(5, 60, (rows, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, length // 2 + 1 :] = 0
        with torch.no_grad():
            both = [e(input_ids=ids, attention_mask=mask) for e in (prepared, model)]
        assert torch.equal(both[0].last_hidden_state, both[1].last_hidden_state), (rows, length)
    again = prepared.state_dict()
    assert all(torch.equal(again[name], value) for name, value in names.items())
    added = {name for name, _ in prepared.named_parameters()} - names.keys()
    assert not added  # no bias, above all


@pytest.mark.parametrize("kind", TYPES)
def test_preparing_changes_nothing_of_the_identity(kind: str, backbone: Any) -> None:
    from mtl.backbone.identity import deciding

    model = pristine(kind)
    before = deciding(model.config, backbone.tokenizer)
    with torch.no_grad():
        ready(kind)(**batch())
        model(**batch())
    assert deciding(model.config, backbone.tokenizer) == before


@pytest.mark.parametrize("kind", TYPES)
def test_the_linears_are_where_the_table_says(kind: str) -> None:
    encoder = ready(kind)
    config, layers = encoder.config, sum(1 for _ in encoder.iter_layers())
    names = list(archs()[kind].linears)
    sites = linear_sites(encoder, names)
    assert list(sites) == [f"{layer}.{name}" for layer in range(layers) for name in names]
    assert names == list(LINEARS)
    width = config.hidden_size
    size = getattr(config, "head_dim", None) or width // config.num_attention_heads
    own = size * config.num_attention_heads
    grouped = size * (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    assert grouped < own or not archs()[kind].tiny.get("num_key_value_heads")
    expected = {"q": (width, own), "k": (width, grouped), "v": (width, grouped)}
    for name, shape in (expected | {"attention": (own, width)}).items():
        linear = sites[f"0.{name}"]
        assert (linear.in_features, linear.out_features) == shape
    assert sites["0.intermediate"].in_features == sites["0.output"].out_features == width
    paths = linear_paths(encoder, names)
    bare = linear_paths(Layers(pristine(kind), encoder), names)
    assert paths == bare  # the names are those of the model itself, as peft finds them


class Layers:
    """A pristine model that says its layers as the prepared one does."""

    def __init__(self, model: Any, prepared: Any) -> None:
        self.model, self.config = model, model.config
        first = next(iter(prepared.iter_layers()))[1]
        name = next(name for name, module in prepared.named_modules() if module is first)
        self.path = name.rpartition(".")[0]

    def iter_layers(self) -> Any:
        return enumerate(self.model.get_submodule(self.path))

    def named_modules(self) -> Any:
        return self.model.named_modules()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("module", LINEARS)
def test_a_delta_at_a_site_is_one_in_the_weight(kind: str, module: str) -> None:
    """By hand: the weight of the pristine model, the rows of the part, plus up·down."""
    encoder, by_hand = ready(kind), copy.deepcopy(pristine(kind))
    generator = torch.Generator().manual_seed(2)
    sites, paths = linear_sites(encoder, [module]), linear_paths(encoder, [module])
    factors = {}
    for site, linear in sites.items():
        down = 0.5 * torch.randn(3, linear.in_features, generator=generator)
        up = 0.5 * torch.randn(linear.out_features, 3, generator=generator)
        factors[site] = Factors(down, up)
        start = linear.start if isinstance(linear, Part) else 0
        module_of = by_hand.get_submodule(paths[site])
        weight = module_of.weight.t() if hasattr(module_of, "nf") else module_of.weight
        with torch.no_grad():
            weight[start : start + linear.out_features] += up @ down
    install(encoder, "mine", factors)
    torch.testing.assert_close(states(encoder), states(by_hand), atol=2e-5, rtol=1e-4)
    assert (states(encoder) - states(pristine(kind))).abs().max() > 1e-4


@pytest.mark.parametrize("kind", TYPES)
def test_lora_of_the_library_is_at_our_modules(kind: str) -> None:
    """What adapters computes is the sum of the factors that we read out of it, as hooks."""
    from mtl.backbone.linear import lora_views

    for modules in ("q,v", "k", "intermediate,output"):
        names = modules.split(",")
        encoder, other = jiggled(ready(kind), "lora", modules=modules), ready(kind)
        factors = {}
        for site, linear in linear_sites(encoder, names).items():
            down, up, scale = lora_views(linear, "mine")
            factors[site] = Factors(down.detach().clone(), scale * up.detach())
        install(other, "mine", factors)
        torch.testing.assert_close(states(encoder), states(other), atol=1e-5, rtol=1e-4)
        assert (states(encoder) - states(pristine(kind))).abs().max() > 1e-4


# ------------------------------------------------------------------ interfaces


def plain_maps(adapter: Any) -> Any:
    return lambda z: adapter.adapter_up(adapter.adapter_down(z)) * adapter.scaling


def by_hand(kind: str, method: str) -> torch.Tensor:
    """The adapters of ``method`` on the pristine model, with hooks written here.

    ``h`` is the output of attention or FFN, ``x`` the input of its block, ``n`` what the FFN
    reads; post-LN types normalise h + x behind it.
    """
    encoder = jiggled(ready(kind), method)
    model = copy.deepcopy(pristine(kind))
    arch = archs()[kind]
    layers = [layer for _, layer in Layers(model, encoder).iter_layers()]
    kept: dict[tuple[int, str], torch.Tensor] = {}
    inside = "pre_feedforward" if kind.startswith("gemma") else "post_attention"
    decoder = {"mh_adapter": "input_layernorm", "output_adapter": f"{inside}_layernorm"}
    blocks = {
        "modernbert": {"mh_adapter": "attn", "output_adapter": "mlp"},
        "mpnet": {"mh_adapter": "attention", "output_adapter": "intermediate"},
        "xlm-roberta-xl": {"mh_adapter": "attention", "output_adapter": "LayerNorm"},
        "bart": {"mh_adapter": "self_attn.q_proj", "output_adapter": "fc1"},
        "mbart": {"mh_adapter": "self_attn_layer_norm", "output_adapter": "final_layer_norm"},
    }.get(kind, decoder)
    for index, location, site in bottleneck_layers(encoder):
        if "mine" not in site.adapters:
            continue
        maps, layer = plain_maps(site.adapters["mine"]), layers[index]
        place = arch.linears["attention" if location == "mh_adapter" else "output"]
        norm = arch.norms.get("attention" if location == "mh_adapter" else "output")
        behind = layer.get_submodule(norm) if norm else None

        def keep(module: Any, args: Any, key: Any = (index, location)) -> None:
            kept[key] = args[0]

        def change(
            module: Any,
            args: Any,
            h: torch.Tensor,
            key: Any = (index, location),
            maps: Any = maps,
            norm: Any = behind,
        ) -> torch.Tensor:
            x = kept[key]
            if method == "parallel":
                return maps(x) + h
            if method == "houlsby":
                return maps(h) + h
            return maps(norm(h + x) if norm is not None else h + x) + h

        layer.get_submodule(blocks[location]).register_forward_pre_hook(keep)
        layer.get_submodule(place).register_forward_hook(change)
    return states(model)


@pytest.mark.parametrize("method", ["pfeiffer", "houlsby", "parallel"])
@pytest.mark.parametrize("kind", INTERFACES)
def test_plugged_bottlenecks_read_the_norm_of_their_own_layer(kind: str, method: str) -> None:
    found = states(jiggled(ready(kind), method))
    torch.testing.assert_close(found, by_hand(kind, method), atol=1e-5, rtol=1e-5)
    assert (found - states(pristine(kind))).abs().max() > 0.01


def test_stock_adapters_would_take_the_last_layers_norm() -> None:
    """Why such an export is refused: this fails when adapters mends it."""
    ours, stock = ready("mpnet"), copy.deepcopy(pristine("mpnet"))
    prepare(stock)
    stock.eval()
    assert (states(jiggled(ours, "pfeiffer")) - states(jiggled(stock, "pfeiffer"))).abs().max() > 0


def test_stock_adapters_would_draw_random_biases() -> None:
    """Why they are taken away: this fails when adapters mends it."""
    import adapters

    model = copy.deepcopy(pristine("modernbert"))
    adapters.init(model)
    assert model.layers[0].attn.Wqkv.bias is not None
    assert not torch.equal(states(model), states(pristine("modernbert")))


def test_a_copy_of_a_prepared_encoder_is_one_of_its_own() -> None:
    """Its hooks ask its own LayerNorms, not those of the encoder that it was copied from."""
    encoder = jiggled(ready("mpnet"), "pfeiffer")
    other = copy.deepcopy(encoder)
    before = states(encoder)
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.mul_(3)
    assert torch.equal(states(other), before)
    assert not torch.equal(states(encoder), before)


PREFIXED = [kind for kind, arch in archs().items() if "prefix" not in arch.refuses]


def with_prefixes(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """What a text's tokens become alone, and in a padded batch."""
    encoder = jiggled(ready(kind), "prefix")
    ids = batch()["input_ids"][:1]
    more = torch.cat([ids, torch.ones_like(ids[:, :3])], 1)
    with torch.no_grad():
        alone = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        padded = encoder(input_ids=more, attention_mask=(more != 1).long()).last_hidden_state
    return alone, padded[:, : ids.shape[1]]


@pytest.mark.parametrize("kind", PREFIXED)
def test_a_text_with_prefixes_has_one_answer(kind: str) -> None:
    alone, padded = with_prefixes(kind)
    torch.testing.assert_close(padded, alone, atol=2e-5, rtol=1e-4)
    assert (alone - states(pristine(kind))[:1]).abs().max() > 1e-3


def test_stock_adapters_would_add_one_to_prefixes_of_distilbert() -> None:
    """Why the table refuses them there: this fails when adapters mends it."""
    assert {"prefix", "unipelt-ap", "unipelt-apl"} <= archs()["distilbert"].refuses.keys()
    alone, padded = with_prefixes("distilbert")
    assert (padded - alone).abs().max() > 1e-3


# ------------------------------------------------------------------ parts, pooling, refusals


def test_places_are_read() -> None:
    assert Place.parse("attn.Wqkv[1/3]") == Place("attn.Wqkv", 1, 3)
    assert Place.parse("output.dense") == Place("output.dense")


def test_methods_on_whole_modules_take_a_fused_one_whole_or_not() -> None:
    encoder = ready("modernbert")
    paths = whole_paths(encoder, ["q", "k", "v", "output"], "adalora")
    assert paths["0.qkv"] == "layers.0.attn.Wqkv"
    assert [site for site in paths if site.startswith("0.")] == ["0.qkv", "0.output"]
    with pytest.raises(RequestError, match="modules=q,k,v,output"):
        whole_paths(encoder, ["q", "v", "output"], "adalora")
    assert whole_paths(ready("bert"), ["q", "v"], "adalora").keys() == {
        "0.q", "0.v", "1.q", "1.v",
    }  # fmt: skip


def test_a_part_leaves_the_other_outputs_alone() -> None:
    linear = nn.Linear(4, 6)
    x = torch.randn(2, 4)
    before = linear(x)
    handle = add_delta(Part(linear, 1, 3), lambda z: z[:, :2])
    after = linear(x)
    assert torch.equal(after[:, :2], before[:, :2])
    assert torch.equal(after[:, 4:], before[:, 4:])
    assert torch.equal(after[:, 2:4], before[:, 2:4] + x[:, :2])
    handle.remove()
    assert torch.equal(linear(x), before)


def test_poolings_read_real_tokens() -> None:
    vectors = torch.arange(24.0).reshape(2, 4, 3)
    right, left = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]), torch.tensor([[0, 0, 1, 1]] * 2)
    assert torch.equal(pooled(vectors, right, "first"), vectors[:, 0])
    assert torch.equal(pooled(vectors, right, "last"), vectors[[0, 1], [1, 3]])
    assert torch.equal(pooled(vectors, left, "last"), vectors[:, 3])
    torch.testing.assert_close(pooled(vectors, left, "mean"), vectors[:, 2:].mean(1))


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("xmod", "loses those weights"),
        ("deberta", "deberta-v3"),
        ("phi3", "random bias"),
        ("gptj", "bert"),
    ],
)
def test_other_types_are_refused_with_the_reason(kind: str, part: str) -> None:
    assert find_arch(kind) is None
    with pytest.raises(RequestError, match=part):
        supported(kind, "'some'")


@pytest.mark.parametrize("kind", TYPES)
def test_what_the_table_refuses_exists(kind: str) -> None:
    from mtl.compose import COMPOSITIONS
    from mtl.joint import JOINT

    known = {*METHODS, *COMPOSITIONS, *JOINT}
    assert set(archs()[kind].refuses) <= known
    never = {"pfeiffer", "lora", "adakron", "sora", "adalora"}
    assert not never & archs()[kind].refuses.keys()


@pytest.mark.parametrize("kind", TYPES)
def test_placement_paper_has_the_dropout_behind_the_adapter(kind: str) -> None:
    """Where the type has one behind its FFN that an adapter would otherwise come after."""
    encoder = jiggled(ready(kind), "adakron", placement="paper")
    sites = [site for _, location, site in bottleneck_layers(encoder) if "mine" in site.adapters]
    assert len(sites) == sum(1 for _ in encoder.iter_layers())
    late = [site.late_dropout for site in sites]
    if kind in INTERFACES or kind in {"albert", "llama", "mistral"}:
        # Hooks act on the linear itself, before any dropout; these FFNs have none.
        assert late == [None] * len(sites)
    else:
        assert [module.p for module in late] == [0.1] * len(sites)
        assert all(isinstance(site.dropout_of.dropout, nn.Identity) for site in sites)
    before = states(encoder)
    assert (before - states(pristine(kind))).abs().max() > 1e-3
    assert torch.equal(states(encoder), before)
    torch.manual_seed(0)
    assert torch.isfinite(states(encoder.train())).all()
