"""What the benchmarks share; it lives in :mod:`mtl.bench.measuring`."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from mtl.bench.measuring import CountCalls, Step, interleaved, peak_bytes, saved_bytes

__all__ = [
    "CountCalls",
    "Step",
    "interleaved",
    "measured_row",
    "peak_bytes",
    "random_batch",
    "saved_bytes",
]


def random_batch(options: argparse.Namespace) -> dict[str, Any]:
    """B × T random tokens with two-class labels, on the device of ``options``."""
    device = torch.device(options.device)
    shape = (options.batch, options.tokens)
    return {
        "input_ids": torch.randint(5, 1000, shape, device=device),
        "attention_mask": torch.ones(shape, dtype=torch.long, device=device),
        "labels": torch.randint(0, 2, shape[:1], device=device),
        "row": torch.arange(options.batch, device=device),
    }


def measured_row(
    step: Step, seconds: float, unit: float, trainable: int, device: torch.device
) -> dict[str, Any]:
    """What is reported of one method: its time in units of ``unit``, memory, calls."""
    with CountCalls() as counter:
        step()
    return {
        "ratio": round(seconds / unit, 3),
        "seconds": round(seconds, 5),
        "peak_mb": round(peak_bytes(step, device) / 2**20, 1),
        "aten_calls": counter.calls,
        "trainable": trainable,
    }
