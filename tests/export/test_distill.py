"""Distilling: the least-squares start by hand, exact where it can be, closer after training."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from export_bench import composed, hidden, sources, stock_encoder
from torch import Tensor

from mtl.backbone import Network, build_head
from mtl.engine import Attached
from mtl.errors import RequestError
from mtl.export.distill import Distilling, least_squares_start, matching_loss
from mtl.export.stock import install
from mtl.runs import Loaded


def loaded_with(encoder: Any, entries: Any, variant: str) -> Loaded:
    loaded, found = composed(encoder, entries, variant)
    head = build_head("two_layer", encoder.config, 2, pooler=True).double()
    network = Network(encoder, head).eval()
    attached = Attached(network, {}, [], caches=(found.evaluating,))
    return Loaded(loaded.entry, entries, loaded.names, network, attached, found)


def text(backbone: Any, tokens: dict[str, Tensor]) -> Any:
    """Data whose training text is ``tokens`` (4 rows) and shuffled copies of it."""
    generator = torch.Generator().manual_seed(2)

    def batches(split: str, rows: int, *, seed: int = 0) -> Any:
        for _ in range(6):
            ids = tokens["input_ids"].clone()
            words = ids > 3
            drawn = torch.randint(4, 40, ids.shape, generator=generator)
            yield {**tokens, "input_ids": torch.where(words, drawn, ids)}

    return SimpleNamespace(batches=batches, backbone=backbone)


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_where_it_folds_the_start_is_exact(
    placement: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    """A sum of plain sources is linear in their features: least squares finds it."""
    encoder = backbone.encoder()
    kinds = [("pfeiffer", {"bottleneck": r, "placement": placement}) for r in (3, 2)]
    loaded = loaded_with(encoder, sources(encoder, kinds, jiggle), "scalearn")
    start = least_squares_start(loaded, text(backbone, tokens), Distilling())
    stock = stock_encoder(backbone)
    install(stock, start, "student")
    assert start.width == 5
    mask = tokens["attention_mask"].bool()
    for ours, theirs in zip(hidden(encoder, tokens), hidden(stock, tokens), strict=True):
        assert (ours[mask] - theirs[mask]).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("kinds", "variant"),
    [
        ([("pfeiffer", {"bottleneck": 4})] * 2, "fusion"),
        ([("adakron", {"bottleneck": 8}), ("pfeiffer", {"bottleneck": 4})], "scalearn"),
        (
            [
                ("pfeiffer", {"bottleneck": 4}),
                ("pfeiffer", {"bottleneck": 4, "activation": "tanh"}),
            ],
            "scalearn",
        ),
    ],
)
def test_the_start_is_nearer_than_the_plain_encoder(
    kinds: Any, variant: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder = backbone.encoder()
    entries = sources(encoder, kinds, jiggle)
    if variant == "fusion":
        loaded = loaded_with(encoder, entries, variant)
        with torch.no_grad():  # a random query and value would be no fusion that anyone trained
            for name, parameter in loaded.composed.parameters.items():  # type: ignore[union-attr]
                if "value" in name:
                    parameter.copy_(torch.eye(48))
                elif "weight" in name:
                    parameter.mul_(0.02)
    else:
        loaded = loaded_with(encoder, entries, variant)
    torch.manual_seed(0)
    start = least_squares_start(loaded, text(backbone, tokens), Distilling())
    stock = stock_encoder(backbone)
    mask = tokens["attention_mask"].bool()
    target = hidden(encoder, tokens)[-1][mask]
    plain = (hidden(stock, tokens)[-1][mask] - target).square().mean()
    install(stock, start, "student")
    ours = (hidden(stock, tokens)[-1][mask] - target).square().mean()
    assert ours < 0.5 * plain


def test_a_width_of_its_own(backbone: Any, tokens: dict[str, Tensor], jiggle: Any) -> None:
    encoder = backbone.encoder()
    kinds = [("pfeiffer", {"bottleneck": 4})] * 2
    loaded = loaded_with(encoder, sources(encoder, kinds, jiggle), "scalearn")
    for width, built in ((0, 8), (3, 3), (11, 11)):
        torch.manual_seed(0)
        start = least_squares_start(loaded, text(backbone, tokens), Distilling(width=width))
        assert start.width == built


def test_the_loss_by_hand() -> None:
    torch.manual_seed(0)
    ours, theirs = [[torch.randn(2, 3, 4) for _ in range(2)] for _ in "ab"]
    logits, wanted = torch.randn(2, 5), torch.randn(2, 5)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    expected = 0.0
    for a, b in zip(ours, theirs, strict=True):
        difference = sum(
            float(((a[i, j] - b[i, j]) ** 2).sum()) for i, j in ((0, 0), (0, 1), (1, 0))
        )
        size = sum(float((b[i, j] ** 2).sum()) for i, j in ((0, 0), (0, 1), (1, 0)))
        expected += difference / size / 2
    expected += float(((logits - wanted) ** 2).mean() / wanted.var(unbiased=False))
    assert float(matching_loss(ours, theirs, logits, wanted, mask)) == pytest.approx(
        expected, rel=1e-5
    )
    assert float(matching_loss(ours, ours, wanted, wanted, mask)) == 0.0


@pytest.mark.parametrize(
    "values", [{"width": -1}, {"epochs": -1}, {"lr": 0.0}, {"lr": float("nan")}, {"rows": 0}]
)
def test_settings_are_checked(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Distilling(**values)
