"""From CSV files to answers, mistakes, checks and a file for a colleague, command by command.

python examples/own_data/road.py FOLDER              # makes its files there; minutes on a CPU
python examples/own_data/road.py FOLDER --epochs 20  # learns more
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from make_files import make

LINES = """
# a task file for each data file: what it guesses, it says; what it guesses wrong, you mend
mtl.tasks new my/intents --from data/intents.csv
mtl.tasks new my/ratings --from data/ratings.csv
mtl.tasks new my/topics --from data/topics.csv
mtl.tasks new my/moods --from data/moods.csv
mtl.tasks new my/visits --from data/visits.csv --group-by user
mtl.tasks check my/intents.yaml my/ratings.yaml my/topics.yaml my/moods.yaml my/visits.yaml
# an adapter for each; of the file that is sorted by class, also one of eight rows only
mtl.train --task my/intents.yaml my/ratings.yaml my/topics.yaml my/moods.yaml my/visits.yaml {how}
mtl.train --task my/moods.yaml --shots 8 --seeds 8 {how}
# a composition for one of them, over the adapters of the others
mtl.tasks suite new my --tasks my/intents.yaml my/ratings.yaml my/topics.yaml my/moods.yaml
mtl.compose --target my/moods.yaml --suite my/suite.yaml --sources all {how}
# is it any good, and what does it get wrong?
mtl.report --suite my
mtl.report --errors my/moods/scalearn/seed0 --html errors.html
mtl.report --errors my/intents/pfeiffer/seed0 --split dev --top 5
# answers for new texts
mtl.predict my/intents/pfeiffer/seed0 --input data/new.csv --output intents_of_new.csv --scores
mtl.predict my/ratings/pfeiffer/seed0 --input data/new.csv --output ratings_of_new.csv
mtl.predict my/topics/pfeiffer/seed0 --input data/new.csv --output topics_of_new.csv
mtl.predict my/moods/scalearn/seed0 --input data/new.csv --output moods_of_new.csv --explain
# is it what it says? one adapter that others can load; a copy, and one file, for a colleague
mtl.zoo verify my/moods/scalearn/seed0
mtl.export my/moods/scalearn/seed0 exported --to adapters
mtl.zoo copy my/moods/scalearn/seed0 copied
mtl.zoo pack my/moods/scalearn/seed0 moods.mtlzoo
mtl.zoo unpack moods.mtlzoo --zoo theirs
"""


def in_a_process(module: str, argv: Sequence[str]) -> None:
    """Run ``python -m MODULE ARGV``. Raises CalledProcessError where it fails."""
    subprocess.run([sys.executable, "-m", module, *argv], check=True)


def main(
    argv: Sequence[str] | None = None, run: Callable[[str, Sequence[str]], None] = in_a_process
) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="an empty one [here]")
    parser.add_argument("--model", default="demo", help="Hub name or folder [%(default)s]")
    parser.add_argument("--epochs", type=int, default=5, help="of every run [%(default)s]")
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    os.chdir(options.folder)
    make(Path("data"))
    how = f"--model {shlex.quote(options.model)} --recipe none --lr 3e-3 --epochs {options.epochs}"
    for line in LINES.strip().splitlines():
        told = line if line.startswith("#") else f"$ python -m {line.format(how=how)}"
        print(f"\n{told}", flush=True)
        if not line.startswith("#"):
            module, *words = shlex.split(line.format(how=how))
            run(module, words)


if __name__ == "__main__":
    main()
