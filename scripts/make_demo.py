"""Write the rows of the demo suite, which ship with the package: ``python scripts/make_demo.py``.

The rows are a pure function of the code in ``demo_world``; a test compares the files with it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
from demo_world.suite import SPLITS, TASKS, generate

FOLDER = Path(__file__).parents[1] / "mtl" / "data" / "demo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where to [the package's]")
    folder = parser.parse_args().folder
    for task in TASKS:
        for split in SPLITS:
            path = folder / task / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pa.Table.from_pylist(generate(task, split))
            parquet.write_table(table, path, compression="zstd", compression_level=19)
            print(f"{path.relative_to(folder)}: {table.num_rows:,} rows, {path.stat().st_size:,} B")


if __name__ == "__main__":
    main()
