"""The folded form of a composition under bf16 autocast: as near to fp32 as the loop is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from export_bench import composed, hidden, looped, sources
from torch import Tensor

BF16 = 2.0**-8
"""Half the distance of neighbours near 1 is less than that."""


@pytest.mark.parametrize("variant", ["scalearn", "scalearn-uniform++"])
@pytest.mark.parametrize("held", [False, True])
def test_folded_is_looped_within_bf16(
    held: bool, variant: str, backbone: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    encoder = backbone.encoder()
    kinds: Any = [("pfeiffer", {"bottleneck": r}) for r in (5, 1, 7)]
    loaded, found = composed(encoder, sources(encoder, kinds, jiggle), variant)
    encoder.float()
    exact = looped(encoder, loaded.names, tokens)
    assert all(parameter.dtype == torch.float32 for parameter in found.parameters.values())
    with torch.autocast("cpu", torch.bfloat16):
        loop = looped(encoder, loaded.names, tokens)
        if held:
            with found.evaluating():
                folded = hidden(encoder, tokens)
        else:
            folded = hidden(encoder, tokens)

    def error(states: list[Tensor]) -> float:
        pairs = zip(states, exact, strict=True)
        return max(float((a.float() - b).norm() / b.norm()) for a, b in pairs)

    assert 0 < error(folded) <= 1.5 * error(loop) + BF16
    assert error(folded) <= 4 * BF16
    for site in encoder.modules():
        if hasattr(site, "effective"):
            assert site.effective().dtype == torch.float32
            with torch.autocast("cpu", torch.bfloat16):
                weight, bias = site.bank.fold(site.effective())
            assert weight.dtype == bias.dtype == torch.float32
