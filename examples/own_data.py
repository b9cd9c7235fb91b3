"""Your own rows in a CSV file: a task file, an adapter, answers to new rows.

python examples/own_data.py                                     # examples/reviews.csv
python examples/own_data.py mine.csv --label verdict --model roberta-base
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import mtl
from mtl.checks.drafts import draft_task, write_draft

REVIEWS = Path(__file__).parent / "reviews.csv"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", nargs="?", type=Path, default=REVIEWS, help="[%(default)s]")
    parser.add_argument("--label", help="column of the labels [what looks like them]")
    parser.add_argument("--task", default="my/reviews", help="SUITE/NAME [%(default)s]")
    parser.add_argument("--model", default="demo", help="Hub name or folder [%(default)s]")
    parser.add_argument("--epochs", type=int, default=20, help="[%(default)s]")
    options = parser.parse_args(argv)

    # 1. What is in the file? The task file says it; mend it where a guess is wrong.
    path = Path(f"{options.task}.yaml")
    if not path.exists():
        label = [options.label] if options.label else []
        draft = draft_task(options.task, {"train": options.csv}, path.parent, label=label)
        write_draft(draft, path)
        print(f"{path}:", *draft.guesses, sep="\n  ")

    # 2. An adapter, on a frozen encoder. 10 % of the rows are held out as test, 10 % as dev.
    entry = mtl.train_adapter(
        str(path), model=options.model, recipe="none", lr=3e-3, epochs=options.epochs
    )
    metric, test = entry.manifest.task["headline"], entry.manifest.headline()
    print(f"{entry.ref}: {metric} {test['value']:.3f} on {test['n']} rows held out")

    # 3. Answers. The rows are lists, dicts of columns, or a table of pandas or datasets.
    model = mtl.load(entry)
    new = ["The song was wonderful.", "The trip was not great."]
    answers = model.predict(new, scores=True)
    for text, row in zip(new, answers.rows(), strict=True):
        print(f"{text} {row['prediction']} ({max(row['scores'].values()):.2f})")


if __name__ == "__main__":
    main()
