"""Cost of a training step of stage two, as ratios to the bare frozen encoder.

    python benchmarks/compose_step.py            # 12 layers × 768, K = 8, R = 48, B 16 × T 64
    python benchmarks/compose_step.py --json     # one line

All variants run in one process, in interleaved rounds, on copies of one randomly initialised
encoder with its dropout on:

=================  ==========================================================================
bare               forward, and backward through activations down to the first FFN's output:
                   what any method that trains something in every layer must pay
single             one Pfeiffer adapter training
scalearn_folded    ScaLearn over K sources as ``mtl`` trains it
scalearn_looped    the same function, one source after the other
stock_fuse         AdapterFusion as ``adapters`` trains it
fusion             the same function as ``mtl`` trains it
=================  ==========================================================================

Per variant: seconds (fastest round), peak memory of a step beyond weights and optimiser, tensors
saved for the backward pass (unique storages, weights excluded), ATen calls per step (a stand-in for
kernel launches).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from collections.abc import Callable
from typing import Any

import torch
from measuring import CountCalls, Step, interleaved, peak_bytes, saved_bytes
from torch import Tensor, nn


def make_encoder(options: argparse.Namespace) -> Any:
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=1000,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        intermediate_size=4 * options.hidden,
        max_position_embeddings=options.tokens + 2,
        type_vocab_size=1,
    )
    encoder = RobertaModel(config, add_pooling_layer=False)
    encoder.requires_grad_(False)
    return encoder.train()


def with_sources(pristine: Any, options: argparse.Namespace, count: int) -> tuple[Any, list[str]]:
    """A copy with ``count`` Pfeiffer adapters of bottleneck R whose outputs are not negligible."""
    from mtl.backbone.injection import init
    from mtl.methods import METHODS, attach, source_names
    from mtl.methods.pfeiffer import PfeifferSettings

    encoder = init(copy.deepcopy(pristine))
    names = source_names(count)
    settings = PfeifferSettings(bottleneck=options.bottleneck)
    for name in names:
        attach(encoder, METHODS.get("pfeiffer"), settings, name)
    return encoder.train(), names


def loop_forward(site: Any, sources: list[Any]) -> Callable[[Tensor], Tensor]:
    """ScaLearn as a loop over sources, on the same omega: the oracle of the tests."""

    def forward(z: Tensor) -> Tensor:
        omega = site.effective()
        total = torch.zeros_like(z)
        for index, source in enumerate(sources):
            weight, bias = source.up()
            total = total + omega[index] * nn.functional.linear(source.features(z), weight, bias)
        return total

    return forward


def build(options: argparse.Namespace) -> dict[str, tuple[Any, list[nn.Parameter]]]:
    """name → (encoder, its trainable parameters)."""
    from mtl.backbone.injection import bottleneck_layers
    from mtl.compose import COMPOSITIONS
    from mtl.compose.sites import site_keys
    from mtl.methods import as_source

    pristine = make_encoder(options)
    variants: dict[str, Any] = {}

    bare = copy.deepcopy(pristine)
    bare.encoder.layer[0].output.dense.bias.requires_grad_(True)
    variants["bare"] = bare

    variants["single"], _ = with_sources(pristine, options, 1)

    for name in ("scalearn_folded", "scalearn_looped", "fusion"):
        encoder, names = with_sources(pristine, options, options.sources)
        encoder.requires_grad_(False)
        method = COMPOSITIONS.get("fusion" if name == "fusion" else "scalearn")
        method.attach(encoder, names, method.settings(**method.defaults))
        if name == "scalearn_looped":
            layers = [m for _, key, m in bottleneck_layers(encoder) if key == "output_adapter"]
            for site, layer in zip(site_keys(encoder).values(), layers, strict=True):
                views = [
                    as_source(layer.adapters[n], encoder.adapters_config.get(n)) for n in names
                ]
                site.forward = loop_forward(site, views)
        variants[name] = encoder

    import adapters
    from adapters.composition import Fuse

    stock = copy.deepcopy(pristine)
    adapters.init(stock)
    names = [f"source{index:04d}" for index in range(options.sources)]
    for name in names:
        factor = options.hidden / (options.bottleneck + 0.5)
        stock.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=factor))
    stock.add_adapter_fusion(Fuse(*names))
    stock.train_adapter_fusion(Fuse(*names))
    variants["stock_fuse"] = stock.train()

    device = torch.device(options.device)
    found = {}
    for name, encoder in variants.items():
        encoder.to(device)
        found[name] = (encoder, [p for p in encoder.parameters() if p.requires_grad])
    return found


def make_step(
    encoder: Any, parameters: list[nn.Parameter], batch: dict[str, Tensor], autocast: bool
) -> Step:
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    regulariser = getattr(encoder, "get_fusion_regularization_loss", lambda: None)
    device = batch["input_ids"].device.type

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            loss = encoder(**batch).last_hidden_state[:, 0].float().square().mean()
        extra = regulariser()
        if isinstance(extra, Tensor) and extra.requires_grad:
            loss = loss + extra
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def measure(options: argparse.Namespace) -> dict[str, Any]:
    variants = build(options)
    device = torch.device(options.device)
    torch.manual_seed(1)
    batch = {
        "input_ids": torch.randint(5, 1000, (options.batch, options.tokens), device=device),
        "attention_mask": torch.ones(
            options.batch, options.tokens, dtype=torch.long, device=device
        ),
    }
    steps = {
        name: make_step(encoder, parameters, batch, options.bf16)
        for name, (encoder, parameters) in variants.items()
    }
    times = interleaved(steps, options.rounds, device)
    rows = {}
    for name, (encoder, parameters) in variants.items():
        with CountCalls() as counter:
            steps[name]()
        rows[name] = {
            "seconds": round(times[name], 5),
            "peak_mb": round(peak_bytes(steps[name], device) / 2**20, 1),
            "saved_mb": round(saved_bytes(encoder, batch) / 2**20, 1),
            "aten_calls": counter.calls,
            "trainable": sum(parameter.numel() for parameter in parameters),
        }
    base = rows["bare"]["seconds"]
    return {
        "ratios": {
            name: round(row["seconds"] / base, 3) for name, row in rows.items() if name != "bare"
        },
        "saved_ratio_scalearn_folded_to_looped": round(
            rows["scalearn_folded"]["saved_mb"] / rows["scalearn_looped"]["saved_mb"], 3
        ),
        "calls_ratio_scalearn_to_single": round(
            rows["scalearn_folded"]["aten_calls"] / rows["single"]["aten_calls"], 3
        ),
        "variants": rows,
        "shape": {
            key: getattr(options, key)
            for key in ("layers", "hidden", "sources", "bottleneck", "batch", "tokens", "bf16")
        },
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
    }


def main() -> None:
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
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    logging.getLogger("adapters").setLevel(logging.ERROR)
    result = measure(options)
    if options.json:
        print(json.dumps(result))
        return
    from tabulate import tabulate

    ratios = {"bare": 1.0, **result["ratios"]}
    print(
        tabulate(
            [[name, ratios[name], *row.values()] for name, row in result["variants"].items()],
            headers=["variant", "x bare", *next(iter(result["variants"].values()))],
        )
    )
    print(
        f"\nsaved for backward, ScaLearn folded / looped: "
        f"{result['saved_ratio_scalearn_folded_to_looped']}; ATen calls, ScaLearn / single: "
        f"{result['calls_ratio_scalearn_to_single']}; {result['device']}, "
        f"{result['threads']} threads, torch {result['torch']}"
    )


if __name__ == "__main__":
    main()
