"""Folded = looped = exported, in fp64, over methods, placements, widths and variants."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from export_bench import (
    composed,
    entry_of,
    hidden,
    largest,
    looped,
    low_rank,
    sources,
    stock_encoder,
)
from torch import Tensor

from mtl.backbone import build_head, save_head
from mtl.errors import RequestError
from mtl.export.folding import fold
from mtl.export.low_rank import STOCK, fold_low_rank, write_stock_lora
from mtl.export.stock import install, write_adapter
from mtl.hub import write_stock_copies
from mtl.runs import Loaded

LIMIT = 1e-12
PLACEMENTS = ["pfeiffer", "houlsby", "parallel"]
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "scalearn": ("scalearn", {}),
    "uniform": ("scalearn-uniform", {}),
    "++": ("scalearn++", {}),
    "uniform++": ("scalearn-uniform++", {}),
    "average": ("average", {}),
    "gated": ("gated", {}),
    "mean": ("scalearn", {"normalise": "mean"}),
    "softmax": ("scalearn", {"normalise": "softmax"}),
    "layer groups": ("scalearn", {"layer_groups": 2}),
    "shared group": ("scalearn", {"layer_groups": 1}),
    "init and regulariser": ("scalearn", {"init_scale": 1.0, "dropout": 0.0, "regularise": 0.1}),
    "probe": ("probe", {"scales": "0.5,-1,2"}),
}
SETS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "pfeiffer": [("pfeiffer", {})] * 3,
    "mixed widths": [("pfeiffer", {"bottleneck": r}) for r in (5, 1, 7)],
    "gelu": [("pfeiffer", {"activation": "gelu"}), ("adamix", {"bottleneck": 6})],
    "tensorized": [(f"tensorized-{f}", {"bottleneck": 6}) for f in ("cp", "tucker", "tt", "tr")],
    "no bottleneck": [("tensorized-cp", {"bottleneck_form": False}), ("pfeiffer", {})],
    "propetl": [("propetl", {"bottleneck": 4}), ("pfeiffer", {"bottleneck": 3})],
}
"""Sources that exist in every placement."""


def placed(kinds: list[tuple[str, dict[str, Any]]], placement: str) -> Any:
    return [(method, {**values, "placement": placement}) for method, values in kinds]


def both_ways(
    backbone: Any, tokens: dict[str, Tensor], kinds: Any, variant: str, jiggle: Any, **values: Any
) -> tuple[float, int]:
    """Largest difference of composed, looped and stock; and the width."""
    encoder = backbone.encoder()
    entries = sources(encoder, kinds, jiggle)
    loaded, _ = composed(encoder, entries, variant, **values)
    ours = hidden(encoder, tokens)
    folded = fold(loaded)
    stock = stock_encoder(backbone)
    plain = hidden(stock, tokens)
    install(stock, folded, "exported")
    theirs = hidden(stock, tokens)
    assert largest(plain, theirs) > 1e-3  # the adapter does something
    return max(
        largest(ours, looped(encoder, loaded.names, tokens)), largest(ours, theirs)
    ), folded.width


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kinds", SETS.values(), ids=SETS)
def test_every_method_in_every_placement(
    kinds: Any, placement: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    found, _ = both_ways(backbone, tokens, placed(kinds, placement), "scalearn", jiggle)
    assert found <= LIMIT


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
def test_compacter_becomes_dense(
    placement: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    kinds = [("compacter", {"bottleneck": 8}), ("pfeiffer", {"activation": "gelu"})]
    found, width = both_ways(backbone, tokens, placed(kinds, placement), "scalearn", jiggle)
    assert found <= LIMIT
    assert width == 8 + 3


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_every_variant(
    placement: str, variant: Any, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    name, values = variant
    kinds = placed(SETS["mixed widths"], placement)
    found, width = both_ways(backbone, tokens, kinds, name, jiggle, **values)
    assert found <= LIMIT
    assert width == 13


def test_the_papers_own_place_folds_too(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    """Before the block's dropout: in evaluation, that is houlsby's order in the FFN alone."""
    kinds = placed(SETS["gelu"][1:] * 2, "paper")
    found, _ = both_ways(backbone, tokens, kinds, "scalearn", jiggle)
    assert found <= LIMIT


def test_reduction_factors_that_round_wrong(backbone: Any, jiggle: Any) -> None:
    """Every width from 1 to beyond D, of which D / S would lose a unit for many."""
    from adapters import BnConfig

    from mtl.export.stock import stock_config

    encoder = backbone.encoder()
    loaded, _ = composed(encoder, sources(encoder, [("pfeiffer", {"bottleneck": 1})] * 2, jiggle))
    small = fold(loaded)
    trapped = []
    for width in range(2, 150):
        wide = type(small)(
            {key: maps.padded(width) for key, maps in small.sites.items()},
            small.activation,
            small.placement,
        )
        config = stock_config(wide, 48)
        assert isinstance(config, BnConfig)
        assert int(48 // config["reduction_factor"]) == width
        trapped += [width] if int(48 // (48 / width)) != width else []
    assert len(trapped) > 20


@pytest.mark.parametrize("width", [13, 37, 52])
def test_widths_in_the_trap_compute_the_same(
    width: int, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    assert int(48 // (48 / width)) == width - 1
    kinds = [("pfeiffer", {"bottleneck": r}) for r in (width // 2, width - width // 2)]
    found, built = both_ways(backbone, tokens, kinds, "scalearn", jiggle)
    assert built == width
    assert found <= LIMIT


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_soup_is_the_adapter_of_averaged_weights(
    placement: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    """Weights, biases included, averaged by hand and put into stock."""
    encoder = backbone.encoder()
    entries = sources(encoder, placed(SETS["pfeiffer"], placement), jiggle)
    loaded, _ = composed(encoder, entries, "soup", weights="0.5,0.3,0.2")
    folded = fold(loaded)
    assert folded.width == 3
    stock = stock_encoder(backbone)
    install(stock, folded, "exported")
    assert largest(hidden(encoder, tokens), hidden(stock, tokens)) <= LIMIT
    state = encoder.state_dict()
    for name, value in stock.state_dict().items():
        if ".exported." in name:
            parts = [state[name.replace(".exported.", f".{source}.")] for source in loaded.names]
            mean = sum(weight * part for weight, part in zip((0.5, 0.3, 0.2), parts, strict=True))
            if placement == "parallel" and "adapter_up" in name:
                mean = 4 * mean  # its scaling is in the maps
            assert (value - mean).abs().max() <= LIMIT, name


@pytest.mark.parametrize("scaling", ["learned", "channel", 0.5])
def test_a_scaling_goes_into_the_maps(
    scaling: Any, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    from adapters import SeqBnConfig

    from mtl.backbone.injection import adapter_parameters
    from mtl.methods import source_names

    encoder = backbone.encoder()
    for index, name in enumerate(source_names(2)):
        encoder.add_adapter(name, config=SeqBnConfig(reduction_factor=8, scaling=scaling))
        encoder.double()
        jiggle(adapter_parameters(encoder, name).values(), 0.2, seed=index)
    loaded, _ = composed(encoder, [entry_of("pfeiffer")] * 2)
    ours = hidden(encoder, tokens)
    stock = stock_encoder(backbone)
    install(stock, fold(loaded), "exported")
    assert largest(ours, hidden(stock, tokens)) <= LIMIT


def test_a_single_adapter_is_a_sum_of_one(
    backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder = backbone.encoder()
    (entry,) = sources(encoder, [("propetl", {"bottleneck": 5})], jiggle)
    encoder.set_active_adapters("source0000")
    from types import SimpleNamespace

    loaded = Loaded(entry, [entry], ["source0000"], SimpleNamespace(encoder=encoder), None, None)  # type: ignore[arg-type]
    ours = hidden(encoder.eval(), tokens)
    stock = stock_encoder(backbone)
    install(stock, fold(loaded), "exported")
    assert largest(ours, hidden(stock, tokens)) <= LIMIT


def test_sources_that_are_left_out(backbone: Any, tokens: dict[str, Tensor], jiggle: Any) -> None:
    encoder = backbone.encoder()
    kinds = [("pfeiffer", {"bottleneck": 4}), ("adakron", {}), ("pfeiffer", {"bottleneck": 3})]
    loaded, found = composed(encoder, sources(encoder, [kinds[0], kinds[2], kinds[0]], jiggle))
    folded = fold(loaded, drop=[1])
    assert folded.width == 8
    with torch.no_grad():
        for omega in found.parameters.values():
            omega[1] = 0
    stock = stock_encoder(backbone)
    install(stock, folded, "exported")
    assert largest(hidden(encoder, tokens), hidden(stock, tokens)) <= LIMIT
    with pytest.raises(RequestError, match="Nothing is left"):
        fold(loaded, drop=[0, 1, 2])


@pytest.mark.parametrize(
    ("kinds", "variant", "said"),
    [
        ([("pfeiffer", {})] * 2, "fusion", "anew for every token.*--distill"),
        ([("adakron", {"bottleneck": 8})] * 2, "scalearn", "adakron.*--distill"),
        ([("madakron-full", {"bottleneck": 8})] * 2, "scalearn", "madakron-full.*--distill"),
        (
            [("pfeiffer", {}), ("pfeiffer", {"activation": "tanh"})],
            "scalearn",
            "relu: mini/task0; tanh: mini/task1.*--distill",
        ),
    ],
)
def test_what_does_not_fold_is_refused_with_an_alternative(
    kinds: Any, variant: str, said: str, encoder: Any, jiggle: Any
) -> None:
    loaded, _ = composed(encoder, sources(encoder, kinds, jiggle), variant)
    with pytest.raises(RequestError, match=said):
        fold(loaded)


def test_changed_base_weights_are_refused(encoder: Any, jiggle: Any) -> None:
    entries = sources(encoder, [("pfeiffer", {})], jiggle)
    loaded, _ = composed(encoder, entries)
    entries[0].manifest.weights = "delta"
    with pytest.raises(RequestError, match="weights of the base"):
        fold(loaded)


ALONE = """
import json, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mtl":
            raise ImportError("mtl is not there")
sys.meta_path.insert(0, Wall())
import torch
torch.set_default_dtype(torch.float64)
import adapters
from safetensors.torch import load_file
found = {}
tokens = load_file(sys.argv[1])
for base, folder in json.loads(sys.argv[2]):
    for safe in (True, False):
        model = adapters.AutoAdapterModel.from_pretrained(base, dtype=torch.float64)
        info = {}
        name = model.load_adapter(folder, set_active=True, use_safetensors=safe, loading_info=info)
        assert not any(info.values()), info
        assert model.active_head == name, (model.active_head, name)
        with torch.no_grad():
            found.setdefault(folder, []).append(model.eval()(**tokens).logits.tolist())
assert not [name for name in sys.modules if name.split(".")[0] == "mtl"]
print("FOUND", json.dumps(found))
"""


@dataclass(frozen=True)
class LowRank:
    """Low-rank sources of these ranks, at these linear modules."""

    ranks: list[Any]
    modules: tuple[str, ...]


def _trap(width: int) -> Any:
    return [("pfeiffer", {"bottleneck": r}) for r in (width // 2, width - width // 2)]


ALONE_CASES: list[tuple[str, Any, str, dict[str, Any]]] = [
    *(
        ("roberta", placed(kinds, placement), "scalearn", {})
        for kinds in SETS.values()
        for placement in PLACEMENTS
    ),
    *(
        ("roberta", placed([("compacter", {"bottleneck": 8})] * 2, placement), "scalearn", {})
        for placement in ("pfeiffer", "houlsby")
    ),
    *(
        ("roberta", placed(SETS["mixed widths"], placement), *variant)
        for placement, variant in zip(PLACEMENTS * 4, VARIANTS.values(), strict=False)
    ),
    *(("roberta", _trap(width), "scalearn", {}) for width in (13, 37, 52)),
    ("roberta", SETS["pfeiffer"], "soup", {"weights": "0.5,0.3,0.2"}),
    ("roberta", LowRank([4, 1, 7], ("q", "v")), *VARIANTS["scalearn"]),
    ("roberta", LowRank([{"q": 3, "v": 0}, {"q": 1, "v": 2}], ("q", "v")), *VARIANTS["uniform"]),
    ("deberta-v2", LowRank([2, 3], ("intermediate", "output")), *VARIANTS["++"]),
    ("bert", LowRank([2, 3, 1], STOCK), *VARIANTS["softmax"]),
    ("bert", placed(SETS["mixed widths"], "houlsby"), *VARIANTS["uniform++"]),
    ("deberta-v2", placed(SETS["propetl"], "parallel"), *VARIANTS["softmax"]),
    ("xlm-roberta", placed(SETS["gelu"], "pfeiffer"), *VARIANTS["average"]),
]
"""Encoder, sources, composition, its settings: methods × placements, variants, widths, encoders."""


def test_stock_adapters_loads_it_in_a_process_without_mtl(
    tiny: Callable[[str], str], tokens: dict[str, Tensor], jiggle: Any, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    from mtl.backbone import Network, load_backbone

    expected, jobs = {}, []
    backbones = {kind: load_backbone(tiny(kind)) for kind, *_ in ALONE_CASES}
    for number, (kind, kinds, variant, values) in enumerate(ALONE_CASES):
        backbone = backbones[kind]
        if isinstance(kinds, LowRank):
            loaded, _ = low_rank(backbone, kinds.ranks, kinds.modules, variant, **values)
            encoder: Any = loaded.network.encoder
        else:
            encoder = backbone.encoder()
            loaded, _ = composed(encoder, sources(encoder, kinds, jiggle), variant, **values)
        head = build_head("two_layer", encoder.config, 3, pooler=True).double().eval()
        jiggle(head.parameters())
        folder = tmp_path / f"{number}"
        name = "mini_same"
        if loaded.low_rank:
            write_stock_lora(folder, fold_low_rank(loaded), backbone, name, torch.float64)
        else:
            write_adapter(folder, fold(loaded), backbone, name, torch.float64)
        save_head(
            head, folder, name, encoder.config, kind="classification", labels=(), model_id="x"
        )
        write_stock_copies(folder, folder)
        with torch.no_grad():
            expected[str(folder)] = Network(encoder, head)(tokens)
            plain = Network(backbone.encoder().double(), head)(tokens)
        assert (expected[str(folder)] - plain).abs().max() > 1e-4
        jobs.append((tiny(kind), str(folder)))
    save_file(tokens, tmp_path / "tokens.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "tokens.safetensors"), json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    assert set(found) == set(expected)
    for folder, logits in found.items():
        for way in logits:
            assert (torch.tensor(way, dtype=torch.float64) - expected[folder]).abs().max() <= LIMIT
