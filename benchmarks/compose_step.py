"""Cost of a training step of stage two, as ratios to the bare frozen encoder.

    python benchmarks/compose_step.py            # 12 layers × 768, K = 8, R = 48, B 16 × T 64
    python benchmarks/compose_step.py --json     # one line

For an encoder of any size; ``python -m mtl.bench compose`` does the same for a model by name. The
variants are in :mod:`mtl.bench.compose_step`.
"""

from __future__ import annotations

import argparse
import json

import torch

from mtl.bench import Shape, measure_compose
from mtl.cli.bench import render


def main() -> None:
    from transformers import RobertaConfig

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, value in (
        ("layers", 12),
        ("hidden", 768),
        ("sources", 8),
        ("bottleneck", 48),
        ("batch", 16),
        ("tokens", 64),
        ("rounds", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    config = RobertaConfig(
        vocab_size=1000,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        intermediate_size=4 * options.hidden,
        max_position_embeddings=options.tokens + 2,
        type_vocab_size=1,
    )
    shape = Shape(
        options.sources,
        options.bottleneck,
        options.batch,
        options.tokens,
        options.rounds,
        options.bf16,
        options.compile,
    )
    result = measure_compose(config, shape, torch.device(options.device))
    print(json.dumps(result) if options.json else render(result, "random encoder"))


if __name__ == "__main__":
    main()
