"""``mtl.export``: a composition, or a single adapter, as one adapter that stock libraries load."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.cli.options import Parser, add_task_files
from mtl.errors import RequestError
from mtl.words import printable_lines

if TYPE_CHECKING:
    from mtl.export import ExportOptions


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.export", description=__doc__)
    parser.add_argument("entry", help="reference, its last parts, or the start of its digest")
    parser.add_argument("folder", metavar="DIR", help="folder to write: absent or empty")
    parser.add_argument(
        "--to",
        choices=("adapters", "peft", "onnx", "transformers"),
        required=True,
        help="who is to load it: an adapter beside the base (adapters, peft), or the whole model",
    )
    parser.add_argument("--model", help="the entry's base: Hub name, folder, 'demo' [MTL_MODEL]")
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    add_task_files(parser)
    parser.add_argument(
        "--group",
        metavar="VALUE",
        help="of a composition with a gate: the group of rows it is exported for [the pooled gate]",
    )
    parser.add_argument(
        "--prune",
        nargs="?",
        type=float,
        const=0.01,
        metavar="SHARE",
        help="drop sources whose omega is at most SHARE of the largest [0.01]; measured on dev "
        "and test",
    )
    parser.add_argument(
        "--width",
        type=int,
        metavar="W",
        help="narrow it: try widths down to W, print dev's headline metric over width, and take "
        "the narrowest within --tolerance; with --distill the width of the new adapter",
    )
    parser.add_argument("--tolerance", type=float, help="what narrowing may cost on dev [0.01]")
    parser.add_argument(
        "--distill",
        action="store_true",
        help="train one adapter that comes close, for what does not fold; measured on dev and test",
    )
    parser.add_argument("--epochs", type=int, help="of --distill [10]")
    parser.add_argument("--lr", type=float, help="of --distill [1e-3]")
    parser.add_argument(
        "--shrink",
        choices=("refit", "drop"),
        help="drop whole units by measured effect, or refit the ones that stay [refit]",
    )
    parser.add_argument(
        "--text-rows",
        type=int,
        help="training rows whose text is used, labels unseen [512; --distill 10000]",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="of --to onnx: a second file with weights in int8; measured on dev and test",
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="score the exported files on dev and test"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(list(argv))

    from mtl.backbone import load_backbone
    from mtl.cli.common import note_unknown, quieten
    from mtl.export import export_entry
    from mtl.runs import open_workspace
    from mtl.runs.loading import base_of

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    quieten()
    chosen = _chosen(options)
    workspace = open_workspace(
        zoo=options.zoo,
        data_root=options.data_root,
        command=["python", "-m", "mtl.export", *argv],
        model=options.model,
        tasks=options.task,
    )
    entry = workspace.zoo.get(options.entry)
    note_unknown([entry])
    backbone = load_backbone(base_of(entry, options.model))
    record = export_entry(
        entry, Path(options.folder), workspace=workspace, backbone=backbone, options=chosen
    )
    if options.json:
        print(json.dumps({"command": "export", "folder": options.folder, **record}))
    else:
        _show(options.folder, record)
    return 0


def _chosen(options: Namespace) -> ExportOptions:
    from mtl.export import Distilling, ExportOptions, Narrowing

    given = {key: value for key, value in vars(options).items() if value is not None}

    def only(needs: str, *names: str) -> None:
        wrong = [f"--{name}" for name in names if name.replace("-", "_") in given]
        if wrong:
            raise RequestError(f"{', '.join(wrong)} says nothing without {needs}.")

    def some(**names: str) -> dict[str, Any]:
        return {field: given[name] for field, name in names.items() if name in given}

    narrowing = distilling = None
    if options.distill:
        only("narrowing (--width and no --distill)", "tolerance", "shrink")
        distilling = Distilling(**some(width="width", epochs="epochs", lr="lr", rows="text_rows"))
    else:
        only("--distill", "epochs", "lr")
        if options.width is None:
            only("--width or --distill", "tolerance", "shrink", "text-rows")
        else:
            narrowing = Narrowing(
                **some(width="width", tolerance="tolerance", how="shrink", rows="text_rows")
            )
    return ExportOptions(
        options.to,
        options.prune,
        narrowing,
        distilling,
        options.evaluate,
        options.group,
        options.int8,
    )


def _show(folder: str, record: dict[str, Any]) -> None:
    from tabulate import tabulate

    from mtl.export.proof import says_little

    rows = [
        [
            source["task"],
            source["method"],
            source["seed"],
            "–" if source["omega"] is None else f"{source['omega']:.4f}",
            "dropped" if source["dropped"] else "≈ 0" if source["near_zero"] else "",
            source["ref"],
        ]
        for source in record["sources"]
    ]
    headers = ["source", "method", "seed", "rms omega", "", "entry"]
    print(printable_lines(tabulate(rows, headers=headers)))
    if record.get("curve"):
        curve = record["curve"]
        table = [
            [row["width"], row["score"], f"{row['loss']:+.4f}", "taken" if row["taken"] else ""]
            for row in curve["rows"]
        ]
        print(
            "\n" + tabulate(table, headers=["width", f"dev {curve['metric']}", "change", ""]) + "\n"
        )
    if record.get("distilled"):
        found = record["distilled"]
        errors = ", ".join(f"{error:.4f}" for error in found["dev_logit_error"])
        print(
            f"\ndistilled in {found['steps']} steps on {found['rows_of_text']} texts; error of the "
            f"dev logits, relative to their variance, by epoch: {errors} (kept: epoch "
            f"{found['kept_epoch']})"
        )
    for kind, splits in record["changes"].items():
        for split, row in splits.items():
            same = row["equal_predictions"]
            equal = "" if same is None else f"{same:.2%} of {row['n']} predictions equal, "
            print(
                f"{kind}, {split}: {row['metric']} {row['before']:.4f} → {row['after']:.4f}, "
                f"{equal}largest logit difference {row['max_logit_difference']:.3g}"
            )
    for split, metrics in record["scores"].items():
        shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        print(f"exported, {split}: {shown}")
    if record["gates"] and record["gates"]["group"] is None:
        print(
            f"folded with the pooled gates: the entry answers each group by "
            f"{record['gates']['column']!r} with its own. --group VALUE exports that of one"
        )
    small = [s["task"] for s in record["sources"] if s["near_zero"] and not s["dropped"]]
    if small:
        print(f"omega of {', '.join(small)} cannot be told from 0; --prune drops such sources")
    proof = record["proof"]
    width = f"width {record['width']}, " if record["width"] else ""
    what = f"one adapter called {record['name']!r}"
    if record.get("files"):
        sizes = (f"{name} ({size / 1e6:.1f} MB)" for name, size in record["files"].items())
        what = f"one model, {', '.join(sizes)}"
    print(
        f"\n{folder}: {what}, {width}with its head. Largest logit "
        f"difference between {proof['reference']} and {proof['other']} on {proof['rows']} random "
        f"texts: {proof['max_logit_difference']:.3g} (allowed {proof['limit']:.3g}; without the "
        f"adapter {proof['adapter_effect']:.3g})"
    )
    if says_little(proof):
        print("note: the adapter has learned next to nothing, so that this compares the heads")
