"""ReCoRD at its size: a million candidate rows read, prepared, split, encoded, and batched.

    python benchmarks/record_rows.py --model DIR             # 1,000,000 rows
    python benchmarks/record_rows.py --model DIR --rows 50000 --json

Makes a fixture with ReCoRD's columns and proportions (a passage of about 1,200 characters serves
1.5 queries, a query has about 11.7 entities) from words of the model's vocabulary, in a process of
its own, and then does with it what a run does: ``load_data``, ``encode`` of the training split into
a cache, the same again from the cache, and some batches. Reports seconds and rows per second of
each (of wall time; beside it the processor's seconds, which other work on the machine does not
stretch), and the largest memory that the process ever held.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mtl.backbone.backbones import load_tokenizer
from mtl.data import encode, load_data
from mtl.tasks import load_task

T = TypeVar("T")
ENTITIES = 11.7
QUERIES_PER_PASSAGE = 1.5
WORDS = 210
QUERY_WORDS = 28
SHARD = 20_000  # queries that are made and written together


def make(folder: Path, rows: int, model: str) -> None:
    """Write ``train`` with about ``rows`` candidate rows, and a small ``validation``."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder.mkdir(parents=True)
    words = np.array(sorted(w for w in load_tokenizer(model).get_vocab() if w.isalpha()))
    rng = np.random.default_rng(0)
    # Frequencies as of words in a text: the k-th is drawn in proportion to 1 / k.
    share = 1 / np.arange(1, len(words) + 1)
    share = np.cumsum(rng.permutation(share / share.sum()))

    def text(length: int) -> str:
        return " ".join(words[np.minimum(share.searchsorted(rng.random(length)), len(words) - 1)])

    pool = [text(1 + place % 3).title() for place in range(20_000)]

    def shard(number: int, size: int) -> pa.Table:
        found = []
        for index in range(size):
            if not found or index % 3 != 1:  # two passages for three queries
                passage = text(max(40, int(rng.normal(WORDS, 40)))) + "\n@highlight\n" + text(12)
            low = max(2, int(rng.poisson(ENTITIES)))
            entities = [pool[place] for place in rng.integers(len(pool), size=low)]
            before, after = text(QUERY_WORDS // 2), text(QUERY_WORDS // 2)
            spans = {"text": entities, "start": [0] * low, "end": [1] * low}
            found.append(
                {
                    "passage": passage,
                    "query": f"{before} @placeholder {after}",
                    "entities": entities,
                    "entity_spans": spans,
                    "answers": [entities[int(rng.integers(low))]],
                    "idx": {"passage": number * size + index, "query": number * size + index},
                }
            )
        return pa.Table.from_pylist(found)

    queries = max(1, round(rows / ENTITIES))
    for split, total in (("validation", 20), ("train", queries)):
        shards = -(-total // SHARD)
        for number in range(shards):
            table = shard(number, min(SHARD, total - number * SHARD))
            name = f"{split}-{number:05d}-of-{shards:05d}.parquet"
            parquet.write_table(table, folder / name)


def timed(step: Callable[[], T]) -> tuple[float, float, T]:
    """Wall seconds, processor seconds and result of ``step``."""
    start, busy = time.perf_counter(), time.process_time()
    result = step()
    return time.perf_counter() - start, time.process_time() - busy, result


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """The steps of a run on the fixture in ``root``."""
    tokenizer = load_tokenizer(options.model)
    spec = load_task("superglue/record")
    loading, load_cpu, data = timed(lambda: load_data(spec, data_root=root))
    after_load = peak_bytes()
    rows = data.sizes["train"]
    cache = root / "cache"
    encoding, encode_cpu, encoded = timed(lambda: encode(data, "train", tokenizer, cache=cache))
    after_encode = peak_bytes()
    again, _, _ = timed(lambda: encode(data, "train", tokenizer, cache=cache))
    batches = np.random.default_rng(0).permutation(rows)[: 32 * 200].reshape(-1, 32)
    batching, _, _ = timed(lambda: [encoded.collate(batch) for batch in batches])
    shared = encoded.shared
    assert shared is not None  # the task cuts the first text only
    return {
        "rows": rows,
        "passages": len(shared.start) - 1,
        "mean_length": round(float(encoded.lengths.mean()), 1),
        "truncated": round(encoded.truncated / rows, 3),
        "load_seconds": round(loading, 1),
        "encode_seconds": round(encoding, 1),
        "load_cpu_seconds": round(load_cpu, 1),
        "encode_cpu_seconds": round(encode_cpu, 1),
        "cached_seconds": round(again, 1),
        "load_rows_per_second": round(rows / loading),
        "encode_rows_per_second": round(rows / encoding),
        "batch_rows_per_second": round(batches.size / batching),
        "peak_gib_load": round(after_load / 2**30, 2),
        "peak_gib_encode": round(after_encode / 2**30, 2),
        "peak_gib": round(peak_bytes() / 2**30, 2),
        "cache_mib": round(sum(f.stat().st_size for f in cache.rglob("*.*")) / 2**20),
    }


def peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", required=True, help="whose tokenizer: Hub name, folder, 'demo'")
    parser.add_argument("--rows", type=int, default=1_000_000, help="candidate rows [1,000,000]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        home = root / "aps" / "super_glue" / "record"
        # In a process of its own, so that its memory is not counted.
        maker = multiprocessing.get_context("spawn").Process(
            target=make, args=(home, options.rows, options.model)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            raise SystemExit(f"making the fixture failed with code {maker.exitcode}")
        result = measure(options, root)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24} {value:>12,}")


if __name__ == "__main__":
    main()
