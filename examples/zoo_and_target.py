"""A zoo and a target: source adapters, a composition of them, one file that others can load.

python examples/zoo_and_target.py                 # the demo suite, on a CPU in a few minutes
python examples/zoo_and_target.py --target glue/rte --sources glue/mnli glue/mrpc \
    --model roberta-base
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import mtl


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="demo/entail", help="[%(default)s]")
    sources = ["demo/nli", "demo/paraphrase", "demo/entail"]
    parser.add_argument("--sources", nargs="+", default=sources, help="[%(default)s]")
    parser.add_argument("--method", default="scalearn", help="[%(default)s]")
    parser.add_argument("--model", help="Hub name or folder [the suite's]")
    parser.add_argument("--steps", type=int, default=0, help="of every run [the recipe's epochs]")
    parser.add_argument("--export", default="exported", help="a new folder [%(default)s]")
    options = parser.parse_args(argv)
    common: dict[str, Any] = {"model": options.model}
    common |= {"max_steps": options.steps} if options.steps else {}

    # 1. The sources. What the zoo has already is found there and not trained again.
    entries = [mtl.train_adapter(task, **common) for task in options.sources]
    print(f"{mtl.open_zoo().root}:", *(entry.ref for entry in entries), sep="\n  ")

    # 2. What does the target need of which? Only the scales and a head are learnt.
    composed = mtl.compose_adapters(
        options.target, sources=entries, method=options.method, **common
    )
    for entry in [*(e for e in entries if e.manifest.task["id"] == options.target), composed]:
        metric, test = entry.manifest.task["headline"], entry.manifest.headline()
        print(f"{entry.ref}: {metric} {test['value']:.4f}")

    # 3. One adapter, for machines without mtl: `model.load_adapter(FOLDER)` of adapters.
    record = mtl.load(composed).export(options.export)
    proof = record["proof"]
    print(
        f"{options.export}: one adapter of width {record['width']}; the logits of {proof['other']} "
        f"differ from the entry's by at most {proof['max_logit_difference']:.1e}"
    )


if __name__ == "__main__":
    main()
