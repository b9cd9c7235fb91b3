"""``mtl.bench`` end to end."""

from __future__ import annotations

from collections.abc import Callable

from cli_bench import mtl, refused

LINE = ["--sources", "2", "--bottleneck", "3", "--batch", "2", "--tokens", "8", "--rounds", "1"]


def test_compose(tiny: Callable[[str], str]) -> None:
    said = mtl(
        "bench", "compose", "--model", tiny("deberta-v2"), "--device", "cpu", *LINE, "--json"
    )
    assert said.code == 0, said
    (result,) = said.json["results"]
    assert result["shape"]["type"] == "deberta-v2"
    assert result["composition_to_stock_adapter"] > 0
    said = mtl("bench", "compose", "--model", tiny("roberta"), "--device", "cpu", *LINE)
    assert said.code == 0, said
    for part in ("scalearn_folded", "stock_fuse", "ATen calls", "stock adapter of width 6", "fp32"):
        assert part in said.out


def test_what_is_refused(tiny: Callable[[str], str]) -> None:
    refused(mtl("bench", "compose", "--model", "no-such-model"), "no-such-model")
    refused(mtl("bench", "compose", "--model", tiny("bert"), "--device", "tpu"), "tpu")
    refused(mtl("bench", "compose", "--model", tiny("bert"), "--batch", "0"), "--batch 0")
