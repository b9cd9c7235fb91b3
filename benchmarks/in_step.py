"""What a training step spends its time on, and what ``torch.compile`` makes of it.

    python benchmarks/in_step.py --model FOLDER              # shares of a step; what draws cost
    python benchmarks/in_step.py --model FOLDER --compile    # compiled beside as it is

Steps of one Pfeiffer adapter and of ScaLearn over six sources (forward, backward, AdamW; dropout
on, half of the rows padded in their last quarter) on random weights of the model's shape, in one
thread. Shares are of the profiler's own times, each call at its fastest. Compiled and plain steps
take turns; told are the median of the pairs' ratios with quartiles, the processor seconds that
compiling took (g++ included; with an empty TORCHINDUCTOR_CACHE_DIR), and after how many steps that
is paid. With ``--lengths`` the lengths of the batches change as those of real ones do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from mtl.backbone import load_backbone
from mtl.bench.compose_step import Shape, composed, random_encoder, with_sources

GROUPS = {
    "products": ("aten::addmm", "aten::mm", "aten::bmm"),
    "dropout's draws": ("aten::bernoulli_",),
    "mask checks": ("aten::all", "aten::isneginf", "aten::where"),
    "copies": ("aten::copy_", "aten::contiguous", "aten::clone"),
    "gelu": ("aten::gelu", "aten::gelu_backward"),
    "normalisation": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "AdamW": ("Optimizer.step#AdamW.step",),
}


def encoders(config: Any, shape: Shape) -> dict[str, Any]:
    """The two models that train."""
    pristine = random_encoder(config)
    return {
        "pfeiffer": with_sources(pristine, shape, 1)[0].train(),
        "scalearn": composed(pristine, shape, "scalearn")[0].train(),
    }


def batch_of(config: Any, rows: int, tokens: int) -> dict[str, torch.Tensor]:
    """B × T random tokens; every second row ends at three quarters."""
    torch.manual_seed(1)
    ids = torch.randint(5, min(1000, config.vocab_size), (rows, tokens))
    mask = torch.ones_like(ids)
    mask[1::2, tokens * 3 // 4 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


def step_of(model: Any, encoder: Any) -> Callable[[dict[str, torch.Tensor]], None]:
    """A training step of ``encoder``, whose forward pass is that of ``model``."""
    learned = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=1e-4)

    def step(batch: dict[str, torch.Tensor]) -> None:
        model(**batch).last_hidden_state[:, 0].square().mean().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def shares(step: Callable[[Any], None], batch: Any, steps: int) -> dict[str, Any]:
    """Share of every group of calls, each call at its fastest of ``steps`` steps."""
    for _ in range(2):
        step(batch)
    own: dict[str, float] = {}
    for _ in range(steps):
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step(batch)
        for event in found.key_averages():
            own[event.key] = min(own.get(event.key, float("inf")), event.self_cpu_time_total)
    total = sum(own.values())
    row = {name: sum(own.get(key, 0.0) for key in keys) / total for name, keys in GROUPS.items()}
    row["the rest"] = 1 - sum(row.values())
    return {name: f"{value:.1%}" for name, value in row.items()}


def draws(repeat: int) -> list[dict[str, Any]]:
    """Nanoseconds per element of the ways to draw a dropout mask."""
    size = 32 * 32 * 384
    floats, ints = torch.empty(size), torch.empty(size // 8, dtype=torch.int64)
    ways: dict[str, Callable[[], object]] = {
        "bernoulli_, fp32 (as dropout)": lambda: floats.bernoulli_(0.9),
        "bernoulli_, bool: the same draws": lambda: torch.empty(size, dtype=torch.bool).bernoulli_(
            0.9
        ),
        "rand: other draws": lambda: torch.rand(size),
        "eight bits each: other draws, p in 256ths": lambda: ints.random_(),
    }
    return [
        {"way": name, "ns": round(min(cost(call) for _ in range(repeat)) / size * 1e9, 2)}
        for name, call in ways.items()
    ]


def cost(call: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def cost_with_children(call: Callable[[], object]) -> float:
    """Those of the compiler it calls, too; the system counts them in hundredths."""
    before = sum(os.times()[:4])
    call()
    return sum(os.times()[:4]) - before


def compiled(encoder: Any, batches: list[Any], pairs: int, dynamic: bool | None) -> dict[str, Any]:
    """Compiled beside plain steps of one model."""
    torch._dynamo.reset()
    plain = step_of(encoder, encoder)
    fast = step_of(torch.compile(encoder, dynamic=dynamic), encoder)
    first = cost_with_children(lambda: [fast(batch) for batch in (*batches, *batches)])
    turns = list(itertools.islice(itertools.cycle(batches), pairs * len(batches)))
    plain(batches[0])
    rounds = [(cost(lambda b=b: plain(b)), cost(lambda b=b: fast(b))) for b in turns]
    low, middle, high = np.quantile([b / a for a, b in rounds], (0.25, 0.5, 0.75))
    usual, now = (statistics.median(column) for column in zip(*rounds, strict=True))
    spent = first - 2 * len(batches) * now
    saved = usual - now
    return {
        "plain, ms": round(usual * 1e3, 1),
        "compiled / plain": round(float(middle), 3),
        "quartiles": [round(float(low), 3), round(float(high), 3)],
        "compiling, s": round(spent, 1),
        "paid after steps": round(spent / saved) if saved > 0 else "never",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="whose shape; its weights are not used")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--lengths", nargs="+", type=int, help="of batches, in place of --tokens")
    parser.add_argument("--methods", nargs="+", default=["pfeiffer", "scalearn"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_backbone(options.model).config
    shape = Shape(sources=6, bottleneck=24, batch=options.batch, tokens=options.tokens)
    lengths = options.lengths or [options.tokens]
    batches = [batch_of(config, options.batch, tokens) for tokens in lengths]
    models = {k: v for k, v in encoders(config, shape).items() if k in options.methods}
    found: dict[str, Any] = {"shape": asdict(shape), "lengths": lengths}
    if options.compile:
        dynamic = True if options.lengths else None
        rows = [
            {"step": name, **compiled(model, batches, options.pairs, dynamic)}
            for name, model in models.items()
        ]
    else:
        rows = [
            {"step": name, **shares(step_of(model, model), batches[0], options.steps)}
            for name, model in models.items()
        ]
        found["draws"] = draws(5)
    found["rows"] = rows
    if options.json:
        print(json.dumps(found))
        return
    for name in ("rows", "draws"):
        if name in found:
            print(tabulate(found[name], headers="keys") + "\n")


if __name__ == "__main__":
    main()
