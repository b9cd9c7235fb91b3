"""Low-rank sources folded into one LoRA of stock ``adapters`` and of ``peft``, in fp64."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from export_bench import entry_of, factors, hidden, largest, low_rank, stock_encoder
from torch import Tensor

from mtl.backbone.linear import LINEARS
from mtl.errors import RequestError
from mtl.export.low_rank import (
    STOCK,
    FoldedLowRank,
    fold_low_rank,
    load_peft,
    write_peft_lora,
    write_stock_lora,
)
from mtl.runs import Loaded

LIMIT = 1e-12
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "scalearn": ("scalearn", {}),
    "uniform": ("scalearn-uniform", {}),
    "++": ("scalearn++", {}),
    "uniform++": ("scalearn-uniform++", {}),
    "average": ("average", {}),
    "softmax": ("scalearn", {"normalise": "softmax"}),
}


@torch.no_grad()
def peft_hidden(backbone: Any, folder: Path, tokens: dict[str, Tensor]) -> list[Tensor]:
    model = load_peft(backbone, folder, torch.float64)
    return list(model(**tokens, output_hidden_states=True).hidden_states)


def stock_hidden(backbone: Any, folder: Path, tokens: dict[str, Tensor]) -> list[Tensor]:
    torch.set_default_dtype(torch.float64)
    try:
        stock = stock_encoder(backbone)
        info: dict[str, Any] = {}
        name = stock.load_adapter(
            str(folder), use_safetensors=True, set_active=True, loading_info=info
        )
        assert name
        assert not any(info.values()), info
        return hidden(stock.eval(), tokens)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("modules", [("q", "v"), STOCK], ids="-".join)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_one_lora_is_the_composition(
    variant: Any, modules: Any, backbone: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    name, values = variant
    loaded, _ = low_rank(backbone, [4, 1, 7], modules, name, **values)
    ours = hidden(loaded.network.encoder, tokens)
    folded = fold_low_rank(loaded)
    assert folded.width == 12
    write_stock_lora(tmp_path / "stock", folded, backbone, "mini_same", torch.float64)
    write_peft_lora(tmp_path / "peft", folded, backbone, torch.float64)
    assert largest(ours, stock_hidden(backbone, tmp_path / "stock", tokens)) <= LIMIT
    assert largest(ours, peft_hidden(backbone, tmp_path / "peft", tokens)) <= LIMIT
    plain = hidden(stock_encoder(backbone), tokens)
    assert largest(ours, plain) > 1e-3


@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_other_encoders_and_ranks_that_differ_by_module(
    kind: str, tiny: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    from mtl.backbone import load_backbone

    backbone = load_backbone(tiny(kind))
    ranks = [{"q": 3, "attention": 2, "output": 0}, {"q": 2, "attention": 5}]
    loaded, _ = low_rank(backbone, ranks, ("q", "attention", "output"), "scalearn")
    ours = hidden(loaded.network.encoder, tokens)
    folded = fold_low_rank(loaded)
    assert {found.down.shape[0] for found in folded.sites.values()} == {5, 7, 0}
    write_peft_lora(tmp_path / "peft", folded, backbone, torch.float64)
    assert largest(ours, peft_hidden(backbone, tmp_path / "peft", tokens)) <= LIMIT
    with pytest.raises(RequestError, match=r"no site at attention.*--to peft.*modules=q\."):
        write_stock_lora(tmp_path / "stock", folded, backbone, "x")


def test_a_module_that_nothing_changes_needs_no_site_in_stock(
    backbone: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    """AdaLoRA and SoRA may close all ranks of the projection where stock has no LoRA."""
    ranks: list[Any] = [{"q": 3, "attention": 0}, {"q": 1, "attention": 0}]
    loaded, _ = low_rank(backbone, ranks, ("q", "attention"), "scalearn")
    write_stock_lora(tmp_path / "s", fold_low_rank(loaded), backbone, "x", torch.float64)
    ours = hidden(loaded.network.encoder, tokens)
    assert largest(ours, stock_hidden(backbone, tmp_path / "s", tokens)) <= LIMIT


def test_stock_pads_smaller_ranks(backbone: Any, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    loaded, _ = low_rank(backbone, [{"q": 3, "v": 0}, {"q": 1, "v": 2}], ("q", "v"), "scalearn")
    write_stock_lora(tmp_path / "s", fold_low_rank(loaded), backbone, "x", torch.float64)
    ours = hidden(loaded.network.encoder, tokens)
    assert largest(ours, stock_hidden(backbone, tmp_path / "s", tokens)) <= LIMIT


def test_sources_that_are_left_out(
    backbone: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    loaded, found = low_rank(backbone, [4, 2, 3], LINEARS, "scalearn")
    folded = fold_low_rank(loaded, drop=[1])
    assert folded.width == 7
    with torch.no_grad():
        for omega in found.parameters.values():
            omega[1] = 0
    write_peft_lora(tmp_path / "peft", folded, backbone, torch.float64)
    ours = hidden(loaded.network.encoder, tokens)
    assert largest(ours, peft_hidden(backbone, tmp_path / "peft", tokens)) <= LIMIT
    with pytest.raises(RequestError, match="Nothing is left"):
        fold_low_rank(loaded, drop=[0, 1, 2])


def test_a_single_adapter(backbone: Any, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    from mtl.methods.modules.low_rank import install

    encoder = backbone.encoder().double()
    own = factors(encoder, 3, 0, LINEARS)
    install(encoder, "single", own)
    entry = entry_of("sora")
    network: Any = SimpleNamespace(encoder=encoder)
    loaded = Loaded(entry, [entry], ["single"], network, None, None, factors=lambda: own)  # type: ignore[arg-type]
    assert loaded.low_rank
    write_peft_lora(tmp_path / "peft", fold_low_rank(loaded), backbone, torch.float64)
    ours = hidden(encoder.eval(), tokens)
    assert largest(ours, peft_hidden(backbone, tmp_path / "peft", tokens)) <= LIMIT


def test_nothing_to_export(backbone: Any, tmp_path: Path) -> None:
    empty = factors(backbone.encoder(), 0, 0, ("q",))
    with pytest.raises(RequestError, match="rank 0"):
        write_peft_lora(tmp_path / "p", FoldedLowRank(empty), backbone)


def test_the_base_is_left_alone(backbone: Any, tmp_path: Path) -> None:
    before = copy.deepcopy(backbone.pristine.state_dict())
    loaded, _ = low_rank(backbone, [2, 2], ("q",), "scalearn")
    write_peft_lora(tmp_path / "peft", fold_low_rank(loaded), backbone)
    load_peft(backbone, tmp_path / "peft")
    after = backbone.pristine.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
