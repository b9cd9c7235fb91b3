"""Coverage of the error bars of omega (``zoo show --measure``), by reruns over seeds.

    python benchmarks/omega_error.py --zoo ZOO --target demo/entail --method scalearn-uniform

Takes the runs of one composition over seeds that are in the zoo (five or more tell something). For
every source and site: does a seed's interval hold the mean of the other seeds? *Ratio* is the
spread over seeds over the error that one seed claims; 1 where the error is right, more where seeds
differ by more than it says.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

import mtl
from mtl.backbone import load_backbone
from mtl.compose.measured import measure_sources
from mtl.engine import open_device
from mtl.runs import open_workspace
from mtl.runs.loading import base_of
from mtl.zoo.measured import recall_measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", required=True)
    parser.add_argument("--target", required=True, help="id of a task")
    parser.add_argument("--method", default="scalearn-uniform")
    parser.add_argument("--sources", type=int, help="only runs of so many sources")
    parser.add_argument("--model")
    parser.add_argument("--data-root")
    options = parser.parse_args()
    workspace = open_workspace(zoo=options.zoo, data_root=options.data_root)
    entries = [
        entry
        for entry in mtl.open_zoo(options.zoo).entries(
            kind="composition", task=options.target, method=options.method
        )
        if options.sources in (None, len(entry.manifest.parents))
    ]
    if len(entries) < 2:
        raise SystemExit(f"{len(entries)} runs of {options.method} on {options.target}: make more.")
    if len({tuple(p["digest"] for p in entry.manifest.parents) for entry in entries}) > 1:
        raise SystemExit("The runs are of several sets of sources; say how many: --sources N.")
    backbone = load_backbone(base_of(entries[0], options.model))
    device = open_device("fp32", hidden_size=backbone.base.hidden_size)
    found = [
        recall_measured(entry) or measure_sources(entry, workspace, backbone, device)
        for entry in entries
    ]
    omega = np.array([each.omega for each in found])  # (seeds, K, S)
    error = np.array([each.stderr for each in found])
    seeds = len(omega)
    others = (omega.sum(0) - omega) / (seeds - 1)
    # The mean of the others has an error of its own, by their spread.
    inside = np.abs(omega - others) <= 1.96 * error * np.sqrt(1 + 1 / (seeds - 1))
    spread = omega.std(0, ddof=1)
    print(
        json.dumps(
            {
                "target": options.target,
                "method": options.method,
                "seeds": seeds,
                "numbers": int(omega[0].size),
                "coverage": round(float(inside.mean()), 3),
                "median_ratio": round(float(np.median(spread / error.mean(0))), 3),
                "mean_error": round(float(error.mean()), 4),
                "mean_spread": round(float(spread.mean()), 4),
            }
        )
    )


if __name__ == "__main__":
    main()
