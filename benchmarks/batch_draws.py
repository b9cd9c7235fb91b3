"""Who shares a batch with whom, what padding costs, and what a pass costs.

    python benchmarks/batch_draws.py --data-root DIR --model DIR          # draws and padding
    python benchmarks/batch_draws.py --data-root DIR --model DIR --time   # and a step of each order
    python benchmarks/batch_draws.py --cost                               # what a pass costs

Three ways to put an epoch of a task into batches: *windows* (rows sorted by length inside windows
of 50 batches, what mtl did up to results schema 2), *whole* (a uniform draw, each batch in one
pass) and *pieces* (the same uniform draw, each batch cut into pieces of like length: what mtl
does). Reported are the probability that two rows which share a batch share one again in another
epoch, over what chance says; the padding, tokens computed over tokens there are, minus one; and
passes per step. ``--time`` adds processor seconds of training steps (a Pfeiffer adapter) and of an
evaluation by rows and by tokens, interleaved, the fastest of the rounds, and that evaluation's peak
memory beyond weights; ``--cost`` measures the constants of ``mtl/engine/passes.py``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tabulate import tabulate

from mtl.bench.measuring import peak_bytes
from mtl.data import Passes, cut, encode, eval_order, load_data, train_order
from mtl.tasks import load_task

Groups = list[np.ndarray]
WINDOW = 50


def windows(encoded: Any, size: int, seed: int, epoch: int) -> Groups:
    """The order of results schema 2, for comparison."""
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(encoded))
    batches: Groups = []
    for start in range(0, len(rows), size * WINDOW):
        window = rows[start : start + size * WINDOW]
        window = window[np.argsort(encoded.lengths[window], kind="stable")]
        batches += [window[at : at + size] for at in range(0, len(window), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def meets_again(order: Callable[[int], Groups], rows: int, epochs: int) -> float:
    """P(two rows share a batch | they shared one in another epoch), over what chance says."""
    place = np.empty((epochs, rows), dtype=np.int64)
    for epoch in range(epochs):
        for number, batch in enumerate(order(epoch)):
            place[epoch, batch] = number
    shared = np.array([n * (n - 1) for n in np.bincount(place[0])]).sum()
    again = []
    for one, two in itertools.combinations(range(epochs), 2):
        _, counts = np.unique(place[one] * rows + place[two], return_counts=True)
        again.append((counts * (counts - 1)).sum() / shared)
    return float(np.mean(again) / (shared / (rows * (rows - 1))))


def padding(groups: Sequence[np.ndarray], tokens: np.ndarray) -> float:
    """Tokens computed over tokens there are, minus one."""
    computed = sum(len(group) * tokens[group].max() for group in groups)
    return float(computed / tokens[np.concatenate(groups)].sum() - 1)


def draws(options: argparse.Namespace, tokenizer: Any, overhead: float) -> list[dict[str, Any]]:
    """A row per task and number of rows."""
    found = []
    for name in options.tasks:
        for limit in (300, None):
            data = load_data(
                load_task(name),
                data_root=options.data_root,
                protocol="scalearn",
                max_train_samples=limit,
            )
            encoded = encode(data, "train", tokenizer)
            rows = len(encoded)
            if limit and rows < limit:
                continue
            tokens = encoded.tokens_per_row
            whole = train_order(encoded, options.batch, 0, 0)
            pieces = [batch[p] for batch in whole for p in cut(tokens[batch], overhead)]
            sorted_ = windows(encoded, options.batch, 0, 0)
            meets = {
                key: meets_again(partial(order, encoded, options.batch, 0), rows, 6)
                for key, order in (("windows", windows), ("drawn", train_order))
            }
            found.append(
                {
                    "task": name,
                    "rows": rows,
                    "again, windows": round(meets["windows"], 1),
                    "again, drawn": round(meets["drawn"], 2),
                    "padding, windows": round(padding(sorted_, tokens), 3),
                    "padding, whole": round(padding(whole, tokens), 3),
                    "padding, pieces": round(padding(pieces, tokens), 3),
                    "passes a step": round(len(pieces) / len(whole), 2),
                }
            )
    return found


def fastest(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Processor seconds of each, the fastest of interleaved rounds."""
    found = dict.fromkeys(steps, float("inf"))
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name] = min(found[name], time.process_time() - start)
    return found


def times(options: argparse.Namespace, backbone: Any, overhead: float) -> list[dict[str, Any]]:
    """Processor seconds of ``--steps`` training steps and of an evaluation, per task."""
    from mtl.backbone import Network, build_head
    from mtl.methods import METHODS, RunFacts, attach

    found = []
    for name in options.tasks:
        data = load_data(load_task(name), data_root=options.data_root, protocol="scalearn")
        train, test = (encode(data, split, backbone.tokenizer) for split in ("train", "test"))
        encoder, method = backbone.encoder(), METHODS.get("pfeiffer")
        attach(encoder, method, method.settings(**method.defaults), "a", RunFacts(1, "two_layer"))
        network = Network(encoder, build_head("two_layer", encoder.config, 2, pooler=None))

        def step(groups: Groups, network: Any = network, train: Any = train) -> None:
            network.train()
            for rows in groups:
                network(train.collate(rows)).square().mean().backward()

        def answer(passes: Passes, network: Any = network, test: Any = test) -> None:
            network.eval()
            with torch.no_grad():
                for rows in eval_order(test, passes):
                    network(test.collate(rows))

        tokens, count = train.tokens_per_row, options.steps
        whole = train_order(train, options.batch, 0, 0)[:count]
        pieces = [batch[piece] for batch in whole for piece in cut(tokens[batch], overhead)]
        trained = fastest(
            {
                "windows": partial(step, windows(train, options.batch, 0, 0)[:count]),
                "whole": partial(step, whole),
                "pieces": partial(step, pieces),
            },
            options.rounds,
        )
        ways = {
            "32 rows": Passes(rows=32),
            "256 rows": Passes(rows=256),
            "2,048 tokens": Passes(tokens=2048),
        }
        answered = fastest({key: partial(answer, way) for key, way in ways.items()}, options.rounds)
        # the first batch holds the longest rows: no other takes as much
        first = {key: test.collate(eval_order(test, way)[0]) for key, way in ways.items()}

        def peak(batch: Any, network: Any = network) -> float:
            with torch.no_grad():
                return peak_bytes(lambda: network(batch), torch.device("cpu")) / 2**20

        unit, base = trained["whole"], answered["32 rows"]
        found.append(
            {"task": name, "whole, ms a step": round(unit / len(whole) * 1e3)}
            | {f"{key} / whole": round(trained[key] / unit, 2) for key in ("windows", "pieces")}
            | {
                f"test, {key} / 32 rows": round(answered[key] / base, 2)
                for key in list(answered)[1:]
            }
            | {f"test, {key}, peak MB": round(peak(batch)) for key, batch in first.items()}
        )
    return found


def cost(rounds: int) -> list[dict[str, Any]]:
    """Least-squares ``time = overhead + tokens · per token`` of passes of random BERT encoders."""
    import adapters
    from transformers import BertConfig, BertModel

    found = []
    for hidden, layers in ((128, 4), (384, 6), (768, 2)):
        config = BertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=hidden // 32,
            intermediate_size=4 * hidden,
            vocab_size=1000,
        )
        model = BertModel(config)
        adapters.init(model)
        model.add_adapter("a", config=adapters.SeqBnConfig(reduction_factor=16))
        model.train_adapter("a")
        model.train()

        def step(rows: int, tokens: int, model: Any = model) -> None:
            ids = torch.randint(0, 1000, (rows, tokens))
            states = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            states.square().mean().backward()

        shapes = [(1, 16), (2, 16), (4, 16), (4, 32), (8, 32), (16, 32), (32, 32), (16, 64)]
        measured = fastest({str(shape): partial(step, *shape) for shape in shapes}, rounds)
        sizes = np.array([a * b for a, b in shapes], dtype=float)
        # relative errors: the small passes say what a pass costs
        weight = 1 / np.array(list(measured.values()))
        design = np.stack([np.ones_like(sizes), sizes], axis=1) * weight[:, None]
        fixed, each = np.linalg.lstsq(design, np.ones_like(sizes), rcond=None)[0]
        found.append(
            {
                "hidden": hidden,
                "layers": layers,
                "a pass, ms": round(fixed * 1e3, 1),
                "a token, ms": round(each * 1e3, 3),
                "a pass, in tokens": round(fixed / each),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root")
    parser.add_argument("--model")
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "rte", "stsb", "cola", "sst2", "cb"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    if options.cost:
        found["cost"] = cost(options.rounds)
    if options.data_root and options.model:
        from mtl.backbone import load_backbone
        from mtl.engine import RunSettings
        from mtl.engine.passes import piece_overhead

        backbone = load_backbone(options.model)
        width = backbone.base.hidden_size
        overhead = piece_overhead(RunSettings(), torch.device("cpu"), width)
        found["draws"] = draws(options, backbone.tokenizer, overhead)
        if options.time:
            found["time"] = times(options, backbone, overhead)
    if not found:
        parser.error("give --data-root and --model, or --cost")
    if options.json:
        print(json.dumps(found))
        return
    for rows in found.values():
        print(tabulate(rows, headers="keys", tablefmt="github") + "\n")


if __name__ == "__main__":
    main()
