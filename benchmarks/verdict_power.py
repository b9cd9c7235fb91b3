"""How often a verdict is right: 10,000 simulated pairs of studies for each line.

    python benchmarks/verdict_power.py

A published mean of n₀ runs, n runs of ours, both of standard deviation s, no spread published. The
true difference is 0 (an exact replication), δ (the margin) or 2δ. Figures are per cents of the
draws, for a table of one cell; see docs/statistics.md.
"""

from __future__ import annotations

from tabulate import tabulate

from mtl.report.verdicts import BETTER, REPRODUCED, WORSE, power

RUNS = (3, 5, 10)
PUBLISHED = (3, 10)
SPREADS = (0.25, 0.5, 1.0, 2.0)


def main() -> None:
    lines = []
    for n0 in PUBLISHED:
        for n in RUNS:
            for spread in SPREADS:
                exact, at, twice = (power(1.0, true, spread, n, n0) for true in (0.0, 1.0, 2.0))
                shares = (
                    exact[REPRODUCED],
                    exact[BETTER] + exact[WORSE],
                    at[REPRODUCED],
                    twice[BETTER],
                )
                lines.append([n0, n, spread, *(f"{100 * share:.1f}" for share in shares)])
    head = [
        "n₀",
        "n",
        "s/δ",
        "exact: reproduced",
        "exact: better or worse",
        "off by δ: reproduced",
        "off by 2δ: better",
    ]
    print(tabulate(lines, headers=head, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    main()
