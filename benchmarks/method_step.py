"""Cost of a training step of every stage-one method, as ratios to one Pfeiffer adapter.

    python benchmarks/method_step.py             # 12 layers × 768, B 16 × T 64, all methods
    python benchmarks/method_step.py --methods pfeiffer adakron tensorized-tt --json

All methods run in one process, in interleaved rounds, on copies of one randomly initialised encoder
with its dropout on; a step is forward, loss with the method's own terms, backward, AdamW, and what
the method does after it. Then pieces beside the form that they replace (``parts``; the ratio is
that form's time to ours, in one run, in interleaved rounds):

- ``tensorized-*``: forward and backward of one adapter's two maps as thin products, and with both
  dense matrices built in every forward, as the reference does;
- ``sora proximal step``: one pass over the gates of all sites, and three boolean masks site by
  site, as the reference does;
- ``low-rank K=8``: forward and backward of eight composed sources at one linear module, and in a
  loop over the sources.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
from typing import Any

import torch
import torch.nn.functional as functional
from measuring import Step, interleaved, measured_row, random_batch
from torch import Tensor, nn

from mtl.backbone import Network, build_head
from mtl.backbone.injection import freeze, init
from mtl.compose.low_rank import LinearBank
from mtl.engine import Attached
from mtl.methods import METHODS, RunFacts, attach
from mtl.methods.low_rank import Factors
from mtl.methods.modules.sora import proximal
from mtl.methods.modules.thin import FORMATS, TensorMap, factor_pair
from mtl.tasks import load_task


def make_encoder(options: argparse.Namespace) -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        intermediate_size=4 * options.hidden,
        max_position_embeddings=options.tokens,
    )
    return BertModel(config, add_pooling_layer=False)


def build(name: str, pristine: Any, options: argparse.Namespace) -> tuple[Attached, Any]:
    """The method on a copy of the encoder, with a head, as a run would train it."""
    method = METHODS.get(name)
    settings = method.settings(**method.defaults)
    encoder = init(copy.deepcopy(pristine))
    freeze(encoder)
    torch.manual_seed(1)
    tuned = attach(encoder, method, settings, "measured", RunFacts(options.steps, "two_layer"))
    network = Network(encoder, build_head("two_layer", encoder.config, 2, pooler=False))
    spec = load_task("demo/entail")
    head = {f"head.{key}": value for key, value in network.head.trained().items()}
    network.to(options.device).train()
    return tuned.attachment(network, {spec.id: spec}, head), tuned


def make_step(attached: Attached, batch: dict[str, Any]) -> Step:
    parameters: list[nn.Parameter] = [
        parameter for group in attached.groups() for parameter in group.parameters.values()
    ]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    number = [0]

    def step() -> None:
        loss = torch.stack(list(attached.loss(batch).values())).sum()
        loss.backward()
        optimiser.step()
        attached.after_step(number[0])
        optimiser.zero_grad(set_to_none=True)
        number[0] += 1

    return step


def measure(options: argparse.Namespace) -> dict[str, Any]:
    pristine = make_encoder(options)
    device = torch.device(options.device)
    batch = {**random_batch(options), "task": "demo/entail"}
    names = options.methods or METHODS.names()
    names = ["pfeiffer", *(name for name in names if name != "pfeiffer")]
    rows: dict[str, dict[str, Any]] = {}
    # A few at a time beside Pfeiffer: all of them at once would not fit into memory.
    for start in range(1, max(len(names), 2), options.together):
        chosen = ["pfeiffer", *names[start : start + options.together]]
        steps: dict[str, Step] = {}
        trainable = {}
        for name in chosen:
            attached, tuned = build(name, pristine, options)
            steps[name] = make_step(attached, batch)
            trainable[name] = sum(p.numel() for p in tuned.parameters.values())
        seconds = interleaved(steps, options.rounds, device)
        for name in chosen:
            if name in rows:
                continue
            rows[name] = measured_row(
                steps[name], seconds[name], seconds["pfeiffer"], trainable[name], device
            )
    return {
        "ratios": {name: row["ratio"] for name, row in rows.items()},
        "methods": rows,
        "parts": parts(options),
        "shape": {k: getattr(options, k) for k in ("layers", "hidden", "batch", "tokens")},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
    }


def parts(options: argparse.Namespace) -> dict[str, Any]:
    """Single pieces beside the form they replace: seconds of both, and their ratio."""
    device = torch.device(options.device)
    torch.manual_seed(2)
    pairs: dict[str, tuple[Step, Step]] = {}
    for name in FORMATS:
        pairs[f"tensorized-{name}"] = _tensorized(name, options, device)
    pairs["sora proximal step"] = _proximal(options, device)
    pairs["low-rank K=8"] = _composed(options, device)
    steps = {(name, side): pair[side] for name, pair in pairs.items() for side in (0, 1)}
    # Small pieces: more rounds than whole steps get.
    seconds = interleaved(steps, 10 * options.rounds, device)
    return {
        name: {
            "ratio": round(seconds[name, 1] / seconds[name, 0], 2),
            "ours_ms": round(1000 * seconds[name, 0], 4),
            "replaced_ms": round(1000 * seconds[name, 1], 4),
        }
        for name in pairs
    }


def _differentiated(forward: Any, inputs: list[Tensor]) -> Step:
    """Forward and backward of ``forward()`` with respect to ``inputs``."""

    def step() -> None:
        out = forward()
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    return step


def _tensorized(
    format: str, options: argparse.Namespace, device: torch.device
) -> tuple[Step, Step]:
    """Thin and dense: ``relu(x · W_down) · W_up``, bottleneck 64, rank 2."""
    modes = factor_pair(options.hidden)
    if modes is None:
        raise SystemExit(f"--hidden {options.hidden} is a prime: tensorized needs a product")
    down = TensorMap(format, modes, (64,), 2).to(device)
    up = TensorMap(format, (64,), modes, 2).to(device)
    x = torch.randn(options.batch, options.tokens, options.hidden, device=device)
    x.requires_grad_(True)

    def dense() -> Tensor:
        first, second = (torch.matmul(*part.thin()) for part in (down, up))
        return (x @ first).relu() @ second

    inputs = [x, *down.parameters(), *up.parameters()]
    return _differentiated(lambda: up(down(x).relu()), inputs), _differentiated(dense, inputs)


def _proximal(options: argparse.Namespace, device: torch.device) -> tuple[Step, Step]:
    """All gates at once, and site by site: six linear modules per layer, rank 8."""
    gates = torch.randn(6 * options.layers, 8, device=device)
    sites = [row.clone() for row in gates]
    xi = 3e-4

    def vectorised() -> None:
        gates.copy_(proximal(gates, xi, "reference"))

    def looped() -> None:
        for gate in sites:
            gate[gate > xi] -= xi
            gate[gate < -xi] += xi
            gate[gate.abs() < xi] = 0.0

    return vectorised, looped


def _composed(options: argparse.Namespace, device: torch.device) -> tuple[Step, Step]:
    """Eight rank-8 sources at one linear module under ScaLearn, and one after the other."""
    size = options.hidden
    sources = [
        Factors(torch.randn(8, size, device=device), torch.randn(size, 8, device=device))
        for _ in range(8)
    ]
    bank = LinearBank(sources).to(device)
    omega = torch.randn(8, size, device=device, requires_grad=True)
    x = torch.randn(options.batch, options.tokens, size, device=device, requires_grad=True)

    def looped() -> Tensor:
        total = torch.zeros_like(x)
        for source, row in zip(sources, omega, strict=True):
            total = total + row * functional.linear(functional.linear(x, source.down), source.up)
        return total

    inputs = [x, omega]
    return (
        _differentiated(lambda: bank.mix(x, *bank.fold(omega)), inputs),
        _differentiated(looped, inputs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, value in (
        ("layers", 12),
        ("hidden", 768),
        ("batch", 16),
        ("tokens", 64),
        ("rounds", 5),
        ("steps", 1000),
        ("together", 4),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", choices=METHODS.names(), metavar="METHOD")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    logging.getLogger("adapters").setLevel(logging.ERROR)
    result = measure(options)
    if options.json:
        print(json.dumps(result))
        return
    from tabulate import tabulate

    rows = [[name, *row.values()] for name, row in result["methods"].items()]
    print(tabulate(rows, headers=["method", *next(iter(result["methods"].values()))]))
    for name, row in result["parts"].items():
        print(f"{name}: {row}")
    print(f"{result['device']}, {result['threads']} threads, torch {result['torch']}")


if __name__ == "__main__":
    main()
