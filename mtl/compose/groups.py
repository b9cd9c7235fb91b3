"""Gates by group: K numbers for every group of rows, on top of one of the ScaLearn family.

A column of the data (``gate=user``) says of which group a row is. With omega (K,D) or (K,1) of a
site as it enters the sum, and G groups with gates g (G,K) that all sites share, a row of group i is
answered with ::

    omega_i = g_i ⊙ omega          mixture = Σ_k g_ik · omega_k ⊙ u_k

omega is the *pooled* composition, with gates of 1: it answers rows whose group training did not
see, or that have none. The gates start at 1, and the loss has ::

    Σ_i Σ_k (g_ik - 1)² / (2 · gate_std² · N)

with N the number of training rows: the penalty of a normal prior N(1, gate_std²) beside a mean over
rows, so that a group is drawn from the pool by the weight of its own rows alone, and one with few
rows stays there. For one group the composition is one of plain omega, and folds as that does.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtl.data.task_data import grouping_of
from mtl.errors import RequestError
from mtl.files import canonical_json
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.compose.scalearn import ScaLearnSettings
    from mtl.compose.stage_two import Target
    from mtl.runs import Workspace
    from mtl.zoo import Entry

MOST = 4096
"""Groups at most: each one's name stands in the manifest, and it has K numbers."""
RATE = 10.0
"""Learning rate of the gates, as a multiple of the run's, where none is asked for: at 1 they hardly
move in a run of some hundred steps (docs/results.md#gates-by-groups-of-rows)."""
TASK = "task"
"""What is no column: one gate for all rows of the task is another composition."""


def check_gate(gate: str, std: float, rate: float, groups: str, grouping: str) -> None:
    """Refuse settings of a gate that say nothing. Raises RequestError."""
    if gate == TASK:
        raise RequestError(
            f"gate={TASK} would be one gate per source for all rows, and that is the composition "
            "'gated': take --method gated, without a gate. gate=COLUMN names a column of the data "
            f"whose values are groups of rows (one that is called {TASK!r} needs another name)."
        )
    if not std > 0:
        raise RequestError(f"gate_std={std} must be above 0.")
    if not rate >= 0:
        raise RequestError(f"gate_rate={rate} must be above 0, or 0 for the usual {RATE:g}.")
    if not gate and (groups or grouping):
        raise RequestError("groups and grouping are what a run with gate=COLUMN records.")


def prepare(
    settings: ScaLearnSettings,
    target: Target,
    sources: Sequence[Entry],
    backbone: Backbone,
    workspace: Workspace,
) -> ScaLearnSettings:
    """The settings with the groups of the training rows, where there is a gate.

    Raises:
        RequestError: no two groups, too many, or settings recorded by a run on other groups.
    """
    if not settings.gate:
        return settings
    spec, column = target.data.spec, settings.gate
    counts = Counter(target.data.splits["train"].groups)
    counts.pop("", None)
    if len(counts) < 2:
        raise RequestError(
            f"Task {spec.id!r}: the training rows have {counted(len(counts), 'value')} in the "
            f"column {column!r}, and a gate by groups needs two. Leave the gate out."
        )
    if len(counts) > MOST:
        raise RequestError(
            f"Task {spec.id!r}: the training rows have {len(counts):,} values in the column "
            f"{column!r}, and a gate takes {MOST:,} groups at most. Name a coarser column."
        )
    found = {
        "groups": canonical_json(dict(sorted(counts.items()))),
        "grouping": grouping_of(target.data),
    }
    for name, value in found.items():
        given = getattr(settings, name)
        if given and given != value:
            raise RequestError(
                f"{name} is what a run records of its groups, and the rows of {spec.id!r} are in "
                f"other groups by {column!r}. Leave {name} out."
            )
    rate = settings.gate_rate or RATE  # recorded, so that another usual one is another run
    return replace(settings, groups=found["groups"], grouping=found["grouping"], gate_rate=rate)


def names_of(groups: str) -> dict[str, int]:
    """Group → its training rows, in the order of the gates.

    Raises:
        RequestError: it is nothing that :func:`prepare` wrote.
    """
    try:
        found: Any = json.loads(groups)
        if not (found and all(type(rows) is int and rows > 0 for rows in found.values())):
            raise ValueError("no rows")
    except (ValueError, AttributeError, RecursionError) as error:
        raise RequestError(f"groups={groups[:80]!r} are no groups of rows: {error}.") from error
    return dict(sorted(found.items()))
