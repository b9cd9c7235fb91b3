"""``mtl.graph attribute``: what each source of a trained composition contributes."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from mtl.cli.graph_options import add_scene, check_limit
from mtl.cli.options import Parser, add_task_files, names


def attribute(argv: Sequence[str]) -> int:
    """``mtl.graph attribute``."""
    parser = Parser(
        prog="mtl.graph attribute",
        description="What each source of a trained composition contributes: leave one out and "
        "Shapley values, by zeroing its block; nothing is retrained.",
    )
    parser.add_argument("entry", help="reference of a composition, its last parts, or its digest")
    add_task_files(parser)
    parser.add_argument("--split", default="dev", help="what it is evaluated on [dev]")
    parser.add_argument(
        "--per-layer",
        action="store_true",
        help="the same layer by layer, too: all other layers keep all sources",
    )
    parser.add_argument(
        "--layers", nargs="+", default=[], metavar="LAYER", help="--per-layer for these only"
    )
    parser.add_argument("--no-shapley", action="store_true", help="leave one out only")
    parser.add_argument(
        "--orders", type=int, default=32, help="random orders where there are more than 8 sources"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random orders")
    parser.add_argument(
        "--dry-run", action="store_true", help="say how many passes it takes, and stop"
    )
    add_scene(parser)
    options = parser.parse_args(list(argv))

    from tqdm import tqdm

    from mtl.backbone import load_backbone
    from mtl.cli import common
    from mtl.cli.graph_text import attribution_text
    from mtl.compose import attribution as shares
    from mtl.compose.shapley import EXACT
    from mtl.compose.sites import site_keys
    from mtl.compose.stored import find_parents
    from mtl.engine import EvalSet, open_device
    from mtl.errors import RequestError, unknown
    from mtl.graph import graph_folder, write_evidence
    from mtl.runs import load, open_workspace
    from mtl.runs.loading import answer_passes, base_of, data_of_entry

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    common.quieten()
    check_limit("--orders", options.orders, 2)
    workspace = open_workspace(
        zoo=options.zoo,
        runs=options.runs,
        data_root=options.data_root,
        command=["python", "-m", "mtl.graph", "attribute", *argv],
        model=options.model,
        tasks=options.task,
    )
    entry = workspace.zoo.get(options.entry)
    find_parents(entry, workspace.zoo)  # before a model is loaded
    if entry.manifest.control:
        raise RequestError(
            f"{entry.ref} is a control ({entry.manifest.control}): twins stand for its sources, so "
            "what they contribute says nothing of any task."
        )
    data = data_of_entry(entry, workspace)
    if options.split not in data.splits:
        raise unknown("split", options.split, list(data.splits))
    backbone = load_backbone(base_of(entry, options.model))
    built = load(entry, workspace.zoo, backbone)
    encoded = backbone.encode(data, options.split, workspace.cache)
    sites = site_keys(built.network.encoder)
    asked = names(options.layers) or (["all"] if options.per_layer else [])
    layers = shares.chosen_layers(sites, asked) if asked else []
    sources = len(built.sources)
    passes = shares.passes_needed(
        sources, shapley=not options.no_shapley, layers=len(layers), orders=options.orders
    )
    cost = {
        "sources": sources,
        "layers": layers,
        "rows": len(encoded),
        "passes": passes,
        "exact": options.no_shapley or sources <= EXACT,
    }
    if not options.json:
        print(cost_text(cost, options), file=sys.stderr)
    if options.dry_run:
        print(json.dumps({"ref": entry.ref, "dry_run": cost}) if options.json else entry.ref)
        return 0
    with tqdm(
        total=passes,
        desc=f"attribute {entry.manifest.task['id']}",
        unit="pass",
        leave=False,
        disable=True if os.environ.get("MTL_QUIET") == "1" else None,
        file=sys.stderr,
    ) as bar:
        found = shares.attribute(
            built,
            EvalSet(data.spec, encoded),
            open_device("fp32", hidden_size=backbone.base.hidden_size),
            passes=answer_passes(entry),
            shapley=not options.no_shapley,
            layers=layers,
            orders=options.orders,
            seed=options.seed,
            progress=bar.update,
        )
    run, items = shares.as_evidence(found, entry, workspace.command)
    write_evidence(graph_folder(workspace.zoo.root, options.graph), run, items)
    if options.json:
        print(json.dumps({"ref": entry.ref, **shares.to_dict(found, entry)}))
    else:
        print(attribution_text(found, entry))
    return 0


def cost_text(cost: dict[str, Any], options: Namespace) -> str:
    """How long it will take, in passes over the split, before the first one runs."""
    sites = cost["layers"]
    layers = f", and each of {len(sites)} layers by itself" if len(sites) > 1 else ""
    layers = f", and layer {sites[0]} by itself" if len(sites) == 1 else layers
    how = "leave one out"
    if not options.no_shapley:
        how = "Shapley values, exact" if cost["exact"] else "Shapley values, sampled"
        how += "" if cost["exact"] else f" in {options.orders} orders and back"
    bound = "" if cost["exact"] else "at most "
    return (
        f"{cost['sources']} sources{layers} ({how}): {bound}{cost['passes']:,} passes over "
        f"{cost['rows']:,} rows of {options.split}"
    )
