"""What OpenMP's waiting threads cost where runs share the cores, before and after.

    python benchmarks/threads.py                         # 4 layers × 128, as the demo's encoder
    python benchmarks/threads.py --layers 6 --hidden 384 --batch 16 --tokens 64 --steps 6

``spinning`` is what OpenMP does by itself: a thread per core, which spins between two products
(GNU's libgomp: 300,000 turns). ``mtl`` is what a run of ``mtl`` does: waiting threads sleep, and a
tiny model has one thread (:mod:`mtl.threads`). ``--threads N`` compares numbers of threads that
sleep. Every figure is of processes of their own, one alone or two side by side, which start to
measure at the same moment; modes take turns, and the round with the fewest processor seconds
counts. On a machine with other work the clock says little, processor seconds per step say more.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

from mtl.threads import COUNTS, WAITING, usable_cores

SPINNING = {"OMP_NUM_THREADS": str(usable_cores()), "GOMP_SPINCOUNT": "300000"}
SHAPE = {"layers": 4, "hidden": 128, "batch": 32, "tokens": 24, "steps": 40}


def child(options: argparse.Namespace) -> None:
    """Steps of a frozen encoder whose vectors train (LayerNorms, biases): seconds of each."""
    import torch
    from transformers import BertConfig, BertModel

    from mtl.engine import open_device

    open_device("fp32", hidden_size=options.hidden)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1000,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 32),
        intermediate_size=4 * options.hidden,
        max_position_embeddings=options.tokens,
    )
    encoder = BertModel(config, add_pooling_layer=False)
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.ndim == 1)
    ids = torch.randint(5, 1000, (options.batch, options.tokens))

    def step() -> None:
        encoder(input_ids=ids).last_hidden_state[:, 0].square().mean().backward()

    step()
    print("ready", flush=True)
    sys.stdin.readline()
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(options.steps):
        step()
    found = {
        "seconds": (time.perf_counter() - clock) / options.steps,
        "processor": (time.process_time() - cpu) / options.steps,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(found), flush=True)


def measure(options: argparse.Namespace, environment: dict[str, str], n: int) -> dict[str, Any]:
    """``n`` children at once: means over them, in seconds per step."""
    clean = {k: v for k, v in os.environ.items() if k not in (*WAITING, *COUNTS)}
    shape = [part for name in SHAPE for part in (f"--{name}", str(getattr(options, name)))]
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", *shape],
            env={**clean, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(n)
    ]
    for worker in workers:
        if worker.stdout.readline() != "ready\n":  # type: ignore[union-attr]
            raise SystemExit("a measured process ended before it was ready")
    for worker in workers:
        worker.stdin.write("go\n")  # type: ignore[union-attr]
        worker.stdin.flush()  # type: ignore[union-attr]
    found = [json.loads(worker.communicate()[0]) for worker in workers]
    return {key: sum(item[key] for item in found) / n for key in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, value in {**SHAPE, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, nargs="+", help="compare these numbers of threads")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    modes: dict[str, dict[str, str]] = {"spinning": SPINNING, "mtl": {}}
    if options.threads:
        modes = {f"{n} threads": {"OMP_NUM_THREADS": str(n)} for n in options.threads}
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):
        for mode, environment in modes.items():
            for n, how in ((1, "alone"), (2, "two at once")):
                row = measure(options, environment, n)
                name = f"{mode}, {how}"
                if name not in best or row["processor"] < best[name]["processor"]:
                    best[name] = row
    if options.json:
        print(json.dumps({"rows": best, "load": os.getloadavg(), "cores": usable_cores()}))
        return
    from tabulate import tabulate

    table = [
        [name, f"{row['threads']:.0f}", 1000 * row["processor"], 1000 * row["seconds"]]
        for name, row in best.items()
    ]
    heads = ["per process", "threads", "processor ms per step", "ms per step"]
    print(tabulate(table, headers=heads, floatfmt=".0f"))
    print(f"{usable_cores()} cores, load average {os.getloadavg()[0]:.0f}")


if __name__ == "__main__":
    main()
