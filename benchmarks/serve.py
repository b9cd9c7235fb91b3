"""What a server of many targets costs beside one of one target, and beside serving one by one.

    python benchmarks/serve.py --model MINILM --folder DIR [--targets 1 10 50] [--clients 1 8 32]
        [--requests 64] [--rounds 3] [--parts memory batch http onnx] [--soak 600] [--pause 0.2]
        [--json]

DIR gets a zoo, once: eight sources, and as many compositions of all eight as targets (runs of one
step: what they answer does not matter here, what they cost does). Then, on loopback:

- requests of one row each, from as many clients as ``--clients`` says, to one target alone, to all
  of the first N drawn at random, and to those of a server that answers every request in a pass of
  its own. The modes take turns; the best round of each counts.
- the same without HTTP: a batch of 32 rows, interleaved, the fastest of each counts.
- the memory of a process that has answered with N targets.
- one target out of PyTorch: the same batches of 1, 8 and 32 rows through our network, and through
  ``export --to onnx --int8`` by onnxruntime on as many threads, interleaved, the fastest of each.
- ``--soak S``: seconds under eight clients, some of which send nonsense or leave, each with a pause
  before a request; memory of the server when it has answered once, in the middle and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SOURCES = 8
PARTS = ["memory", "batch", "http", "onnx"]
WORDS = """the a old small house river dog cat teacher friend sees finds brings likes and or with
under green red apple door stone every some quiet happy sad street music paper water light"""
JSON = {"Content-Type": "application/json"}


def text(rng: random.Random) -> str:
    """A row of 10 to 30 words."""
    return " ".join(rng.choices(WORDS.split(), k=rng.randint(10, 30)))


def make_zoo(folder: Path, model: str, targets: int) -> list[str]:
    """References of ``targets`` compositions of eight sources, made where they are not there."""
    from mtl.cli.main import dispatch
    from mtl.zoo import open_zoo

    rng = random.Random(0)
    tasks = folder / "tasks" / "many"
    tasks.mkdir(parents=True, exist_ok=True)
    for number in range(SOURCES):
        for split in ("train", "dev", "test"):
            rows = [{"text": text(rng), "label": k % 2} for k in range(8)]
            path = tasks / f"t{number}_{split}.jsonl"
            if not path.is_file():
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tasks / f"t{number}.yaml").write_text(
            f"id: many/t{number}\ndata: {{files: {{train: t{number}_train.jsonl, "
            f"dev: t{number}_dev.jsonl, test: t{number}_test.jsonl}}}}\nkind: classification\n"
            "inputs: ['{text}']\nlabels: ['no', 'yes']\nmetrics: [accuracy]\nmax_length: 64\n"
        )
    names = [f"many/t{number}" for number in range(SOURCES)]
    (tasks / "suite.yaml").write_text(
        f"name: many\ntasks: [{', '.join(names)}]\nmodel: {model}\n"
        "recipe: scalearn\nprotocol: official\ntarget: many/t0\n"
    )
    os.environ |= {"MTL_TASKS": str(tasks), "MTL_CACHE": str(folder / "cache"), "MTL_QUIET": "1"}
    places = ["--zoo", str(folder / "zoo"), "--runs", str(folder / "runs"), "--model", model]
    short = ["--max-steps", "1", "--recipe", "none", "--lr", "1e-3"]
    seeds = [str(seed) for seed in range(targets)]
    for words in (
        ["train", "--suite", "many", "--method", "pfeiffer", "--seeds", "0"],
        ["compose", "--suite", "many", "--target", "t0", "--sources", *names, "--seeds", *seeds],
    ):
        with redirect_stdout(sys.stderr):
            code = dispatch(words[0], [*words[1:], *short, *places])
        if code:
            raise SystemExit(f"mtl {' '.join(words)} failed")
    found = open_zoo(folder / "zoo").entries(kind="composition")
    return [entry.ref for entry in found][:targets]


def serve(folder: Path, model: str, refs: Sequence[str], one_by_one: bool) -> None:
    """Serve ``refs`` and print the port; in a process of its own."""
    from mtl.runs.workspace import open_workspace
    from mtl.serve import Bounds, Service
    from mtl.serve.app import build_app
    from mtl.serve.running import listen, run

    bounds = Bounds(timeout=600)  # other work may hold the machine up
    workspace = open_workspace(zoo=folder / "zoo")
    service = Service(workspace, bounds, model)
    service.serve([workspace.zoo.get(ref) for ref in refs])
    if one_by_one:
        answer = service.batcher._answer
        service.batcher._answer = lambda asked: [answer([item])[0] for item in asked]
    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    run(build_app(service), bounds, sock, lambda: print(port, flush=True))


def start(options: argparse.Namespace, refs: Sequence[str], *more: str) -> tuple[Any, int]:
    """A server in a process of its own, and its port."""
    words = ["--model", options.model, "--folder", str(options.folder), *more]
    child = subprocess.Popen(
        [sys.executable, __file__, *words, "--refs", *refs], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    return child, int(child.stdout.readline())


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def ask(self, ref: str, row: str) -> float:
        """Seconds until the answer was there."""
        begun = time.perf_counter()
        body = json.dumps({"entry": ref, "inputs": [row]})
        self.connection.request("POST", "/v1/predict", body, JSON)
        reply = self.connection.getresponse()
        said = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {said[:200]!r}")
        return time.perf_counter() - begun


def load(port: int, refs: Sequence[str], clients: int, requests: int, seed: int) -> dict[str, Any]:
    """``requests`` rows for targets drawn from ``refs``, by so many clients at once."""
    rng = random.Random(seed)
    work = [(rng.choice(refs), text(rng)) for _ in range(requests)]
    local, seconds = threading.local(), []

    def one(item: tuple[str, str]) -> float:
        if not hasattr(local, "client"):
            local.client = Client(port)
        return local.client.ask(*item)

    with ThreadPoolExecutor(clients) as pool:
        begun = time.perf_counter()
        seconds = list(pool.map(one, work))
        taken = time.perf_counter() - begun
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"per_second": requests / taken, "p50_ms": float(p50), "p95_ms": float(p95)}


def over_http(options: argparse.Namespace, refs: Sequence[str]) -> list[dict[str, Any]]:
    """Every mode at every number of clients, in turns."""
    mixed, port = start(options, refs, "--serve")
    alone, other = start(options, refs, "--serve", "--one-by-one")
    most = max(options.targets)
    modes: dict[str, tuple[int, Sequence[str]]] = {"1 target": (port, refs[:1])}
    modes |= {f"{n} targets, mixed": (port, refs[:n]) for n in options.targets if n > 1}
    modes[f"{most} targets, one by one"] = (other, refs)
    rows = []
    try:
        for clients in options.clients:
            best: dict[str, dict[str, Any]] = {}
            for turn in range(-1, options.rounds):
                for mode, (where, chosen) in modes.items():
                    count = options.requests if clients > 1 else max(options.requests // 4, 8)
                    found = load(where, chosen, clients, count, seed=turn)
                    if turn >= 0 and (  # the first turn warms up
                        mode not in best or found["per_second"] > best[mode]["per_second"]
                    ):
                        best[mode] = found
            first = best["1 target"]["per_second"]
            for mode, found in best.items():
                ratio = found["per_second"] / first
                rows.append({"clients": clients, "mode": mode, **found, "ratio": ratio})
    finally:
        for child in (mixed, alone):
            child.terminate()
            child.wait(60)
    return rows


def in_process(options: argparse.Namespace, refs: Sequence[str]) -> dict[str, float]:
    """Seconds of a batch of 32 rows: of one target, of all, and of all one by one."""
    import mtl

    models = mtl.load_many(refs, zoo=options.folder / "zoo", model=options.model)
    rng = random.Random(1)
    rows = [text(rng) for _ in range(32)]
    drawn = [rng.choice(refs) for _ in rows]
    one = [models.read(refs[0], [row]) for row in rows]
    many = [models.read(ref, [row]) for ref, row in zip(drawn, rows, strict=True)]

    def each() -> None:
        for item in many:
            models.answer([item])

    steps: dict[str, Callable[[], Any]] = {
        "one target": lambda: models.answer(one),
        "mixed": lambda: models.answer(many),
        "one by one": each,
    }
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(options.rounds * 3 + 1):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            if turn:
                best[name] = min(best[name], time.process_time() - begun)
    return best


def memory(options: argparse.Namespace, refs: Sequence[str]) -> None:
    """Print the resident bytes of this process after answers with ``refs``."""
    import mtl

    models = mtl.load_many(refs, zoo=options.folder / "zoo", model=options.model)
    rng = random.Random(2)
    for _ in range(3):
        models.predict({rng.choice(refs): [text(rng) for _ in range(8)]})
    print(json.dumps([psutil.Process().memory_info().rss, models.bytes]))


def memories(options: argparse.Namespace, refs: Sequence[str]) -> dict[str, dict[str, float]]:
    """MB of a process with N targets, for every N."""
    found = {}
    for count in options.targets:
        words = ["--model", options.model, "--folder", str(options.folder), "--memory"]
        said = subprocess.run(
            [sys.executable, __file__, *words, "--refs", *refs[:count]],
            capture_output=True,
            text=True,
            check=True,
        )
        rss, own = json.loads(said.stdout)
        found[str(count)] = {"rss_mb": rss / 2**20, "entries_mb": own / 2**20}
    return found


def out_of_torch(options: argparse.Namespace, ref: str) -> list[dict[str, Any]]:
    """Milliseconds of the processor of a batch: here, as ONNX, as ONNX in int8."""
    import torch

    import mtl
    from mtl.engine.feed import to_device
    from mtl.export.onnx import FILE, SMALL, OnnxNetwork

    model = mtl.load(ref, zoo=options.folder / "zoo", model=options.model)
    folder = options.folder / "onnx"
    if not folder.is_dir():
        model.export(folder, to="onnx", int8=True)
    rng, found = random.Random(3), []
    networks = {"onnx": OnnxNetwork(folder / FILE), "onnx int8": OnnxNetwork(folder / SMALL)}
    reader = mtl.load_many([ref], zoo=options.folder / "zoo", model=options.model)
    with torch.no_grad(), model.loaded.attached.evaluating():
        networks = {"pytorch": model.loaded.network, **networks}
        for rows in (1, 8, 32):
            encoded = reader.read(ref, [text(rng) for _ in range(rows)]).encoded
            batch = to_device(encoded.collate(np.arange(rows)), torch.device("cpu"))
            best = dict.fromkeys(networks, float("inf"))
            for _ in range(options.rounds * 10):
                for name, network in networks.items():
                    begun = time.process_time()
                    network(batch)
                    best[name] = min(best[name], time.process_time() - begun)
            told = {name: seconds * 1000 for name, seconds in best.items()}
            found.append({"rows": rows, "tokens": batch["input_ids"].shape[1], **told})
    return found


def soak(options: argparse.Namespace, refs: Sequence[str]) -> dict[str, Any]:
    """Answers, and MB of the server at the start, in the middle and at the end."""
    child, port = start(options, refs, "--serve")
    watched, counts = psutil.Process(child.pid), {"answered": 0, "nonsense": 0, "left": 0}
    Client(port).ask(refs[0], "one row")
    megabytes = {"start_mb": watched.memory_info().rss / 2**20}
    begun, lock = time.monotonic(), threading.Lock()
    places = {"after_tenth_mb": 0.1, "middle_mb": 0.5}

    def sample() -> None:
        past = (time.monotonic() - begun) / options.soak
        for name, place in places.items():
            if past > place and name not in megabytes:
                megabytes[name] = watched.memory_info().rss / 2**20

    def client(number: int) -> None:
        rng, made = random.Random(number), Client(port)
        while time.monotonic() - begun < options.soak:
            time.sleep(options.pause)
            kind = rng.choices(("answered", "nonsense", "left"), (18, 1, 1))[0]
            if kind == "answered":
                made.ask(rng.choice(refs), text(rng))
            elif kind == "nonsense":
                made.connection.request("POST", "/v1/predict", "[" * rng.randint(1, 9999), JSON)
                made.connection.getresponse().read()
            else:
                body = json.dumps({"entry": rng.choice(refs), "inputs": [text(rng)]})
                made.connection.request("POST", "/v1/predict", body, JSON)
                made.connection.close()
            with lock:
                counts[kind] += 1
                sample()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    megabytes["end_mb"] = watched.memory_info().rss / 2**20
    child.terminate()
    child.wait(60)
    return {"seconds": options.soak, **counts, **megabytes, "exit": child.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of the base")
    parser.add_argument("--folder", type=Path, required=True, help="where the zoo is made")
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=64, help="per mode and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure")
    parser.add_argument("--soak", type=float, default=0.0, metavar="S")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds before a soaking request")
    parser.add_argument("--json", action="store_true")
    for name in ("--serve", "--one-by-one", "--memory"):
        parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--refs", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.folder, options.model, options.refs, options.one_by_one)
        return
    if options.memory:
        memory(options, options.refs)
        return
    refs = make_zoo(options.folder, options.model, max(options.targets))
    parts: dict[str, Callable[[], Any]] = {
        "memory": lambda: memories(options, refs),
        "batch": lambda: in_process(options, refs),
        "http": lambda: over_http(options, refs),
        "onnx": lambda: out_of_torch(options, refs[0]),
    }
    told = {name: parts[name]() for name in options.parts}
    if options.soak:
        told["soak"] = soak(options, refs)
    if options.json:
        print(json.dumps(told))
        return
    from tabulate import tabulate

    if "memory" in told:
        rows = [{"targets": n, **row} for n, row in told["memory"].items()]
        print(tabulate(rows, headers="keys"))
    for name in ("http", "onnx"):
        if name in told:
            print(tabulate(told[name], headers="keys", floatfmt=".2f"))
    for name in ("batch", "soak"):
        if name in told:
            print(name, told[name])


if __name__ == "__main__":
    main()
