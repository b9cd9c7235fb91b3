"""``mtl.zoo verify``: evaluate stored entries again."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mtl.cli.options import add_task_files
from mtl.errors import MtlError, RequestError
from mtl.files import finite
from mtl.words import printable_lines

if TYPE_CHECKING:
    from mtl.zoo import Zoo


def add_verify(add: Callable[[str, str], Any]) -> None:
    """Add the subcommand to the parser of ``mtl.zoo``."""
    verify = add("verify", "evaluate entries again; compare with stored predictions and metrics")
    verify.add_argument("ref", nargs="+", help="reference, its last parts, or start of its digest")
    verify.add_argument("--model", help="the base [MTL_MODEL, what the entry names]")
    add_task_files(verify)
    verify.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    verify.add_argument(
        "--tolerance",
        type=float,
        help="largest difference of a score [0.001; in bf16 a 32nd of the largest score]; another "
        "device adds",
    )
    verify.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="to evaluate in [the entry's own]; in another one nothing is recorded",
    )
    verify.add_argument(
        "--no-record", action="store_true", help="leave the entry's 'verified' record as it is"
    )


def verify(zoo: Zoo, options: Namespace) -> int:
    """Verify every entry named; 1 if one of them is not what it says."""
    entries = [zoo.get(ref) for ref in options.ref]
    if options.tolerance is not None and not 0 <= options.tolerance < float("inf"):
        raise RequestError(f"--tolerance {options.tolerance} must be a number from 0 up.")

    from mtl.backbone import load_backbone
    from mtl.cli.common import note_unknown, quieten
    from mtl.runs import open_workspace
    from mtl.runs.loading import base_of
    from mtl.runs.verify import verify_entry
    from mtl.zoo.caveats import caveats

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    quieten()
    workspace = open_workspace(zoo=zoo.root, data_root=options.data_root, tasks=options.task)
    note_unknown(entries)
    found: list[dict[str, Any]] = []
    for entry in entries:
        try:
            with zoo.reading(entry):
                result = verify_entry(
                    entry,
                    workspace,
                    load_backbone(base_of(entry, options.model)),
                    tolerance=options.tolerance,
                    record=not options.no_record,
                    precision=options.precision or "",
                )
            found.append({**result.to_dict(), "caveats": caveats(entry)})
        except MtlError as error:
            if len(entries) == 1:
                raise
            # The others are looked at all the same; the message is in the answer.
            print(printable_lines(f"error: {error}"), file=sys.stderr)
            found.append({"ref": entry.ref, "good": False, "problems": [str(error)]})
    if options.json:
        print(json.dumps(finite({"zoo": str(zoo.root), "verified": found})))
    else:
        _print(found)
    return 0 if all(row["good"] for row in found) else 1


def _print(rows: list[dict[str, Any]]) -> None:
    from tabulate import tabulate

    from mtl.words import printable
    from mtl.zoo.caveats import MARK, footnotes

    table = [
        [
            row["ref"],
            row["n"],
            f"{row['max_logit_difference']:.3g}",
            f"{row['equal_predictions']:.2%}",
            ", ".join(
                f"{name} {_number(pair['stored'])} → {_number(pair['again'])}"
                + (MARK if f"test {name}" in row["caveats"] else "")
                for name, pair in row["metrics"]["test"].items()
            ),
            "yes" if row["good"] else "no",
        ]
        for row in rows
        if "n" in row
    ]
    if table:
        headers = ["entry", "n", "max |Δ score|", "equal", "stored → again", "agrees"]
        doubts = footnotes(
            (f"{name} of {row['ref']}", why)
            for row in rows
            for name, why in row.get("caveats", {}).items()
        )
        print(tabulate(table, headers=headers, disable_numparse=True) + doubts)
    for row in rows:
        for problem in row["problems"] if "n" in row else ():
            print(printable(f"{row['ref']}: {problem}."))
    good = sum(row["good"] for row in rows)
    if len(rows) == 1:
        print("The entry is what it says." if good else "The entry is not what it says.")
    else:
        print(f"{good} of {len(rows)} entries are what they say.")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
