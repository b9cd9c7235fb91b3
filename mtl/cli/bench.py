"""``mtl.bench``: what stage two costs for your model, number of sources and batch."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from mtl.cli.options import Parser


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    compose = commands.add_parser("compose", help="a training step and inference of compositions")
    compose.add_argument("--model", help="its shape is measured, weights are random [MTL_MODEL]")
    for name, value, text in (
        ("sources", 8, "K"),
        ("bottleneck", 48, "R of every source"),
        ("batch", 16, "B"),
        ("tokens", 64, "T"),
        ("rounds", 7, "interleaved rounds; the fastest counts"),
    ):
        compose.add_argument(f"--{name}", type=int, default=value, help=f"{text} [{value}]")
    compose.add_argument("--device", help="cpu or cuda [cuda where there is one]")
    compose.add_argument(
        "--bf16", action="store_true", help="bf16 autocast (a GPU is measured with and without)"
    )
    compose.add_argument(
        "--compile", action="store_true", help="torch.compile (a GPU is measured with and without)"
    )
    compose.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))
    return _compose(options)


def _compose(options: Namespace) -> int:
    import os

    import torch

    from mtl.backbone.backbones import check_supported
    from mtl.backbone.shapes import shape_config
    from mtl.bench import Shape, measure_compose
    from mtl.bench.measuring import compile_problem
    from mtl.cli.common import quieten
    from mtl.errors import RequestError

    quieten()
    model = options.model or os.environ.get("MTL_MODEL") or "roberta-base"
    name = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name not in {"cpu", "cuda"} or (name == "cuda" and not torch.cuda.is_available()):
        raise RequestError(f"--device {name}: there is no such device here; use cpu.")
    config = shape_config(model)
    check_supported(config, model)
    modes = [(options.bf16, options.compile)]
    if name == "cuda" and modes == [(False, False)]:
        problem = compile_problem(torch.device(name))
        if problem:
            print(f"torch.compile is left out: {problem}", file=sys.stderr)
        choices = (False,) if problem else (False, True)
        modes = [(bf16, compiled) for bf16 in (False, True) for compiled in choices]
    results = []
    for bf16, compiled in modes:
        shape = Shape(
            options.sources,
            options.bottleneck,
            options.batch,
            options.tokens,
            options.rounds,
            bf16,
            compiled,
        )
        results.append(measure_compose(config, shape, torch.device(name)))
        if not options.json:
            print(render(results[-1], model) + "\n")
    if options.json:
        print(json.dumps({"command": "bench", "model": model, "results": results}))
    return 0


def render(result: dict[str, Any], model: str) -> str:
    """The tables of one result."""
    from tabulate import tabulate

    shape, on_cpu = result["shape"], result["device"] == "cpu"
    calls = "ATen calls" if on_cpu else "kernel launches"
    head = (
        f"{model} ({shape['layers']} layers × {shape['hidden']}), K {shape['sources']}, R "
        f"{shape['bottleneck']}, B {shape['batch']} × T {shape['tokens']}, "
        f"{'bf16' if shape['bf16'] else 'fp32'}{', torch.compile' if shape['compiled'] else ''}; "
        f"{result['device']}, {result['threads']} threads, torch {result['torch']}"
    )
    training = [
        [
            name,
            result["ratios"].get(name, 1.0),
            row["seconds"],
            row["peak_mb"],
            row["saved_mb"],
            _count(row["launches"]),
            f"{row['trainable']:,}",
        ]
        for name, row in result["training"].items()
    ]
    inference = [
        [
            name,
            result["inference_ratios"].get(name, 1.0),
            row["seconds"],
            row["peak_mb"],
            _count(row["launches"]),
        ]
        for name, row in result["inference"].items()
    ]
    columns = ["x bare", "seconds", "peak MB"]
    return "\n".join(
        [
            head,
            "",
            tabulate(
                training,
                headers=["training step", *columns, "saved MB", calls, "trained"],
                disable_numparse=[6],
            ),
            "",
            tabulate(inference, headers=["inference", *columns, calls]),
            "",
            f"inference, composition / stock adapter of width "
            f"{shape['sources'] * shape['bottleneck']}: {result['composition_to_stock_adapter']}",
        ]
    )


def _count(launches: int | None) -> str:
    return "–" if launches is None else f"{launches}"
