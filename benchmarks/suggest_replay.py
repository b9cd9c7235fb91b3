"""``mtl.study suggest`` in replay on a finished study: does it decide more than file order?

    python benchmarks/suggest_replay.py STUDY --zoo ZOO --runs RUNS

Both start with nothing and pay for a run (by default its seconds of training) what it had cost. By
suggestion one run after the other is chosen, with the sources that it lacks, and its value is seen
before the next choice; the file's order takes the runs as they stand. After a share of the whole
cost it is said how many comparisons are decided, and how many of these as all runs decide them.
"""

from __future__ import annotations

import argparse
from statistics import fmean

from mtl.study import Places, StudyPlan, plan_study, read_study
from mtl.study.journal import Journal
from mtl.study.suggest import DECIDED, State, choose, pairs_of, values_of_run

Known = dict[str, list[tuple[tuple[str, str], float]]]
"""Key of a run → (task, variant) → its value on dev."""
Costs = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--zoo")
    parser.add_argument("--runs")
    parser.add_argument("--by", choices=("seconds", "steps"), default="seconds")
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75, 1.0])
    options = parser.parse_args()
    study = read_study(options.study)
    plan = plan_study(study, Places(zoo=options.zoo, runs=options.runs))
    journal = Journal(plan.desk.workspace.runs, study.name)
    plan = plan_study(study, plan.desk.places, journal.resolved())
    keys = [key for key, node in plan.nodes.items() if node.entry is not None]
    print(f"{len(keys)} of {len(plan.nodes)} runs are there")
    costs = {key: cost_of(plan, key, options.by) for key in keys}
    whole = sum(costs.values())
    values = {key: values_of_run(plan.nodes[key], plan) for key in keys}
    truth = seen(plan, set(keys), values)
    for share in options.shares:
        for name, order in (("suggest", suggested), ("file order", in_order)):
            done = order(plan, values, costs, share * whole)
            decided, right, count = judged(seen(plan, done, values), truth)
            spent = sum(costs[key] for key in done) / whole
            print(
                f"{share:.0%} of the {options.by}: {name}: {len(done)} runs ({spent:.0%}), "
                f"{decided} of {count} comparisons decided, {right} as all runs have them"
            )


def cost_of(plan: StudyPlan, key: str, by: str) -> float:
    node = plan.nodes[key]
    assert node.entry is not None
    (entry,) = plan.desk.workspace.zoo.read([node.entry])
    return max(float(entry.manifest.training[by]), 1e-3)


def seen(plan: StudyPlan, done: set[str], known: Known) -> State:
    """What is known when these runs are there."""
    values: dict[str, dict[str, list[float]]] = {}
    for key, node in plan.nodes.items():
        for task, variant in pairs_of(node, plan):
            values.setdefault(task, {}).setdefault(variant, [])
        for (task, variant), value in known[key] if key in done else ():
            values[task][variant].append(value)
    return State(values)


def in_order(plan: StudyPlan, known: Known, costs: Costs, budget: float) -> set[str]:
    done: set[str] = set()
    for key in known:
        if costs[key] > budget:
            break
        budget -= costs[key]
        done.add(key)
    return done


def suggested(plan: StudyPlan, known: Known, costs: Costs, budget: float) -> set[str]:
    done: set[str] = set()
    needs = {key: plan.nodes[key].needs for key in known}
    while True:
        left = {key: pairs_of(plan.nodes[key], plan) for key in known if key not in done}
        picks = choose(seen(plan, done, known), left, needs, costs, budget, most=1)
        if not picks:
            return done
        done |= {*picks[0].needs, picks[0].key}
        budget -= picks[0].seconds


def judged(state: State, truth: State) -> tuple[int, int, int]:
    """Comparisons decided, those of them with the sign of all runs, and all of them."""
    decided = right = count = 0
    for task, variants in state.values.items():
        for one in variants:
            for other in variants:
                if one >= other:
                    continue
                count += 1
                if state.undecided(task, one, other) >= DECIDED:
                    continue
                decided += 1
                ends = [fmean(truth.values[task][v]) for v in (one, other)]
                right += (state.mean(task, one) > state.mean(task, other)) == (ends[0] > ends[1])
    return decided, right, count


if __name__ == "__main__":
    main()
