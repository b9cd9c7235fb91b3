"""Cost of a training step of every joint method, as ratios to Adapter-m.

    python benchmarks/joint_step.py              # 12 layers × 768, 8 tasks, B 16 × T 64
    python benchmarks/joint_step.py --json       # one line

All methods run in one process, in interleaved rounds, on copies of one randomly initialised encoder
with its dropout on; a step is forward, loss, backward, AdamW, on a batch of one task, the tasks in
turn. Further rows show what is saved:

- ``hyperformer++ looped``: the layers' adapters generated one layer after the other, from a code
  that is computed again for each, as the reference does;
- ``propetl-m looped``: masks by a full sort, of task and layer at every layer, as the reference.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import time
from typing import Any

import torch
from measuring import Step, interleaved, measured_row, random_batch
from method_step import make_encoder
from torch import Tensor, nn

from mtl.backbone import build_head
from mtl.backbone.injection import freeze, init
from mtl.engine import Attached
from mtl.joint import JOINT
from mtl.joint.modules.hyperformer import HyperNet
from mtl.joint.modules.propetl_m import MaskedPrototype, combine_masks
from mtl.joint.modules.written import Adapter
from mtl.joint.training import attach_all
from mtl.methods import RunFacts
from mtl.tasks import load_task

LOOPED = ("hyperformer++ looped", "propetl-m looped")


def build(name: str, pristine: Any, options: argparse.Namespace) -> tuple[Attached, int]:
    """The method on a copy of the encoder with T heads, and how many parameters it trains."""
    method = JOINT.get(name.partition(" ")[0])
    encoder = init(copy.deepcopy(pristine))
    freeze(encoder)
    torch.manual_seed(1)
    tasks = [f"task/{number}" for number in range(options.tasks)]
    settings = method.settings(**method.defaults)
    shared = method.attach(encoder, tasks, settings, "measured", RunFacts(head="two_layer"))
    heads = {task: build_head("two_layer", encoder.config, 2, pooler=False) for task in tasks}
    attached = attach_all(encoder, shared, heads, dict.fromkeys(tasks, load_task("demo/entail")))
    attached.network.to(options.device).train()
    if name in LOOPED:
        loop(encoder)
    return attached, sum(p.numel() for p in shared.tuned.parameters.values())


def loop(encoder: nn.Module) -> None:
    """Make the adapters layer by layer, as the reference implementations do."""
    for module in encoder.modules():
        if isinstance(module, HyperNet):
            module.forward = loop_hyper(module)  # type: ignore[method-assign]
        if isinstance(module, MaskedPrototype):
            module.forward = loop_masks(module)  # type: ignore[method-assign]


def loop_hyper(net: HyperNet) -> Any:
    def forward(task: str) -> list[Adapter]:
        found = []
        for layer in range(net.layers):
            code = net.codes(task)[layer]
            rows = net.weight[0].split(net.lengths)
            biases = net.bias[0].split(net.lengths)
            parts = [row @ code + bias for row, bias in zip(rows, biases, strict=True)]
            down, up = parts[0].view(net.size, net.width), parts[2].view(net.width, net.size)
            found.append(Adapter(down, parts[1], up, *parts[3:]))
        return found

    return forward


def loop_masks(masked: MaskedPrototype) -> Any:
    def mask(scores: Tensor) -> Tensor:
        size = scores.abs()
        order = size.detach().flatten().sort().indices
        hard = torch.ones_like(size).flatten()
        hard[order[: int(0.7 * len(order))]] = 0
        return hard.view_as(size) + (size - size.detach())

    def forward(task: str) -> list[Adapter]:
        own, place = masked.prototype, int(task.rpartition("/")[2])
        layers = masked.down.count
        found = []
        for layer in range(layers):
            weights = []
            for linear, masks in ((own.down, masked.down), (own.up, masked.up)):
                assert masks.layers is not None
                both = combine_masks(mask(masks.tasks[place]), mask(masks.layers[layer]), "or")
                weights.append(linear.weight * both)
            found.append(Adapter(weights[0], own.down.bias, weights[1], own.up.bias))
        return found

    return forward


def make_step(attached: Attached, batch: dict[str, Any], tasks: int) -> Step:
    parameters = [p for group in attached.groups() for p in group.parameters.values()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    number = [0]

    def step() -> None:
        own = {**batch, "task": f"task/{number[0] % tasks}"}
        torch.stack(list(attached.loss(own).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        number[0] += 1

    return step


def measure(options: argparse.Namespace) -> dict[str, Any]:
    pristine = make_encoder(options)
    device = torch.device(options.device)
    batch = random_batch(options)
    names = ["adapter-m", *(name for name in options.methods if name != "adapter-m")]
    steps: dict[str, Step] = {}
    trainable = {}
    for name in names:
        attached, trainable[name] = build(name, pristine, options)
        steps[name] = make_step(attached, batch, options.tasks)
    clock = time.process_time if options.cpu_time else time.perf_counter
    seconds = interleaved(steps, options.rounds, device, clock)
    rows = {}
    for name in names:
        rows[name] = measured_row(
            steps[name], seconds[name], seconds["adapter-m"], trainable[name], device
        )
    return {
        "ratios": {name: row["ratio"] for name, row in rows.items()},
        "methods": rows,
        "shape": {k: getattr(options, k) for k in ("layers", "hidden", "tasks", "batch", "tokens")},
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "clock": "processor" if options.cpu_time else "wall",
    }


def main() -> None:
    every = [*JOINT.names(), *LOOPED]
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, value in (
        ("layers", 12),
        ("hidden", 768),
        ("tasks", 8),
        ("batch", 16),
        ("tokens", 64),
        ("rounds", 5),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--methods", nargs="+", choices=every, default=every, metavar="METHOD")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--cpu-time", action="store_true", help="seconds of the processor, for a busy machine"
    )
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
    print(
        f"{result['clock']} time, {result['device']}, {result['threads']} threads, torch "
        f"{result['torch']}"
    )


if __name__ == "__main__":
    main()
