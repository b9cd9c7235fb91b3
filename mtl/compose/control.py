"""The transfer certificate: a composition with twins in place of the other tasks' sources.

``--control HOW`` replaces every source but the target's own by a twin that has its sizes and knows
nothing of its task, under the same settings, budget and seeds. What a composition has over its own
adapter may come from further parameters alone; what it has over its control comes from what the
sources know. At every site, for each of D, c, U, b (of a low-rank source down and up):

============  ====================================================================================
``permuted``  the entries in a random order
``gaussian``  normal numbers with the mean and the standard deviation of the entries
``rotated``   the input turned by a random rotation Q, the output by P: ``U act(D z + c) + b``
              becomes ``P (U act(D Qᵀz + c) + b)``; singular values and what units do together stay
============  ====================================================================================

All of them keep the Frobenius norm of each tensor. Twins are drawn by (HOW, draw, digest of the
source, site, tensor): the draw is the run's seed, or N of ``permuted:N``. A search for the best
(``--sources best``) and the runs after it use one draw (:data:`OF_A_SEARCH`), since the luckiest of
the twins must be what is run; it may end at the own adapter alone. Nothing of a twin is stored; the
entry says HOW in ``run_settings``, and lies in a folder ``<method>-control``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, ZooError, did_you_mean
from mtl.zoo.names import show

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo

CONTROLS = ("permuted", "gaussian", "rotated")
OF_A_SEARCH = 100
"""The draw of the twins among which is searched, unless another one is asked for."""


def read_control(text: str) -> tuple[str, int | None]:
    """``permuted:3`` as (``permuted``, 3); without a number, None: the run's seed.

    Raises:
        RequestError: no such control.
    """
    how, colon, number = text.partition(":")
    if how not in CONTROLS:
        raise RequestError(
            f"--control {text!r} must be {', '.join(CONTROLS)} (with :N for the Nth draw of the "
            f"twins in place of that of the run's seed).{did_you_mean(how, CONTROLS)}"
        )
    if colon and not (number.isascii() and number.isdigit() and len(number) < 10):
        raise RequestError(f"--control {text!r}: the draw behind the colon must be a number.")
    return how, int(number) if colon else None


def control_for(asked: str | None, *, search: bool) -> str:
    """The control of a run; of a search with one draw for all trials and runs."""
    if asked is None or not search:
        return asked or ""
    how, draw = read_control(asked)
    return f"{how}:{OF_A_SEARCH if draw is None else draw}"


def check_control(control: str, tasks: Sequence[str], target: str) -> None:
    """Refuse a control without another task's source. Raises RequestError."""
    if control and all(task == target for task in tasks):
        raise RequestError(
            f"--control {control} replaces sources of other tasks by twins; {target}'s own adapter "
            "is the only source here."
        )


def load_sources(
    encoder: Any,
    names: Sequence[str],
    sources: Sequence[Entry],
    zoo: Zoo,
    *,
    control: str,
    target: str,
    seed: int,
) -> None:
    """Load ``sources`` into ``encoder`` under ``names``; with a control, twins of other tasks'.

    Args:
        target: id of the target's task.
        seed: of the run, which draws the twins where ``control`` does not say.

    Raises:
        RequestError, ZooError: as :func:`mtl.runs.load_adapter_entry`; an unknown control, or a
            source that has no twin.
    """
    from mtl.backbone.injection import set_aside
    from mtl.runs.loading import load_adapter_entry

    with set_aside(encoder) as take:
        for name, entry in zip(names, sources, strict=True):
            load_adapter_entry(encoder, entry, zoo, name)
            take(name)
    if not control:
        return
    from mtl.compose.modules.twins import replace_by_twin

    how, draw = read_control(control)
    for name, entry in zip(names, sources, strict=True):
        if entry.manifest.task["id"] != target:
            if entry.manifest.weights == "delta":
                raise RequestError(
                    f"{entry.ref} has no twin: {entry.manifest.method} changes weights of the base "
                    "itself, which a twin would leave as they are."
                )
            key = f"{how} {seed if draw is None else draw} {entry.digest}"
            try:
                replace_by_twin(encoder, name, how, key)
            except RequestError as error:
                raise RequestError(f"{entry.ref} has no twin: {error}") from error


def control_of(entry: Entry) -> str:
    """The control of a stored composition, checked; empty where it is none.

    Raises:
        ZooError: none of ours.
    """
    control = entry.manifest.control
    try:
        if control:
            read_control(control)
    except RequestError as error:
        raise ZooError(f"{entry.ref}: control={show(control)} is none of ours.") from error
    return control
