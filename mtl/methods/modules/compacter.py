"""The torch side of :mod:`mtl.methods.compacter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from adapters.methods.modeling import PHMLayer, kronecker_product
from torch import Tensor, nn

from mtl.backbone.injection import bottleneck_layers

if TYPE_CHECKING:
    from mtl.methods.compacter import CompacterSettings


def dense(layer: PHMLayer, rule: Tensor) -> nn.Linear:
    """The PHM layer as a plain linear one; ``rule`` holds the A_i (n,n,n)."""
    matrix = kronecker_product(rule, torch.bmm(layer.W_left, layer.W_right)).sum(0)  # (in, out)
    inputs, outputs = matrix.shape
    linear = nn.Linear(inputs, outputs, device=matrix.device, dtype=matrix.dtype)
    linear.weight.copy_(matrix.t())
    linear.bias.copy_(layer.b)
    return linear.requires_grad_(False)


@torch.no_grad()
def as_plain(encoder: Any, settings: CompacterSettings, name: str) -> None:
    """Make a loaded adapter's maps dense: the same function, readable as a source.

    PHM layers find the A_i through the forward context of the *active* adapter, which a source is
    not.
    """
    rule = encoder.shared_parameters[name]["phm_rule"]
    for _, _, layer in bottleneck_layers(encoder):
        if name in layer.adapters:
            adapter = layer.adapters[name]
            down, activation = adapter.adapter_down
            adapter.adapter_down = nn.Sequential(dense(down, rule), activation)
            adapter.adapter_up = dense(adapter.adapter_up, rule)
