"""(IA)³: where its scales stand."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from mtl.methods import attach, find_method
from mtl.methods.ia3 import IA3Settings

PLACES = {  # what computes, and its linear module
    "key": ("attention.self.key", "attention.self.key"),
    "value": ("attention.self.value", "attention.self.value"),
    "dense": ("intermediate", "intermediate.dense"),
}


def test_the_ffn_is_scaled_before_its_activation(encoder: Any, tokens: Any, jiggle: Any) -> None:
    """As docs/methods.md has it: ``k ⊙ l_k``, ``v ⊙ l_v`` and ``act(l_ff ⊙ (W·y + b))``."""
    encoder.eval()
    layer = encoder.encoder.layer[1]
    linears = {part: layer.get_submodule(linear) for part, (_, linear) in PLACES.items()}
    plain = {part: (m.weight.clone(), m.bias.clone()) for part, m in linears.items()}
    tuned = attach(encoder, find_method("ia3"), IA3Settings(), "own")
    jiggle(tuned.parameters.values(), 1.0)
    scales = {
        part: value.squeeze(-1)
        for part in PLACES
        for key, value in tuned.parameters.items()
        if key.startswith("encoder.layer.1.") and part in key.split(".")
    }
    seen: dict[str, tuple[Any, Any]] = {}
    for part, (place, _) in PLACES.items():
        layer.get_submodule(place).register_forward_hook(
            lambda _, inputs, output, part=part: seen.update({part: (inputs[0], output)})
        )
    encoder(**tokens)
    for part in PLACES:
        inputs, output = seen[part]
        wanted = functional.linear(inputs, *plain[part]) * scales[part]
        wanted = functional.gelu(wanted) if part == "dense" else wanted
        torch.testing.assert_close(output, wanted)
