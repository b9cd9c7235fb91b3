"""Accuracy over width: the narrowest adapter that costs no more than is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown
from mtl.export.narrow import HOW, feature_moments, narrow, unit_order, widths

if TYPE_CHECKING:
    from mtl.backbone import Network
    from mtl.export.data import EntryData
    from mtl.export.folding import Folded

NAME = "folded"
"""Name of the folded adapter inside an encoder."""


@dataclass(frozen=True)
class Narrowing:
    """How to narrow.

    Attributes:
        width: the narrowest to try.
        tolerance: how much of dev's headline metric it may cost.
        how: ``refit`` or ``drop`` (:mod:`mtl.export.narrow`).
        rows: training rows whose text the units are measured on, labels unseen.
    """

    width: int
    tolerance: float = 0.01
    how: str = "refit"
    rows: int = 512

    def __post_init__(self) -> None:
        if self.width < 1 or self.rows < 1:
            raise RequestError(
                f"--width {self.width} and --text-rows {self.rows} must be at least 1."
            )
        if not self.tolerance >= 0:
            raise RequestError(f"--tolerance {self.tolerance} must not be negative.")
        if self.how not in HOW:
            raise unknown("--shrink", self.how, HOW)


def narrowest(
    folded: Folded,
    data: EntryData,
    narrowing: Narrowing,
    build: Callable[[Folded], Network],
) -> tuple[Folded, dict[str, Any]]:
    """Try widths from the folded adapter's own down to ``narrowing.width``, each scored on dev.

    Args:
        build: a network with the given adapter, called :data:`NAME`.

    Returns:
        The narrowest whose headline metric on dev is within the tolerance of the full width's, and
        the curve for the record.

    Raises:
        RequestError: a width that is no less than the adapter's.
    """
    if narrowing.width >= folded.width:
        raise RequestError(
            f"--width {narrowing.width} does not narrow it: the folded adapter has "
            f"{folded.width} units."
        )
    whole = build(folded).to(data.device.torch_device)
    text = data.batches("train", narrowing.rows)
    moments = feature_moments(whole, NAME, text)
    orders = {
        key: unit_order(maps, moments[key], narrowing.how) for key, maps in folded.sites.items()
    }
    metric = data.task_data.spec.headline
    rows: list[dict[str, Any]] = []
    tried: list[Folded] = []
    for width in widths(folded.width, narrowing.width):
        full = width == folded.width
        tried.append(folded if full else narrow(folded, moments, orders, width, narrowing.how))
        score = float(data.score(whole if full else build(tried[-1]), "dev").metrics[metric])
        loss = score - (rows[0]["score"] if rows else score)
        rows.append({"width": width, "score": score, "loss": loss, "taken": False})
    fitting = [k for k, row in enumerate(rows) if -row["loss"] <= narrowing.tolerance]
    taken = fitting[-1]
    rows[taken]["taken"] = True
    return tried[taken], {
        "metric": metric,
        "how": narrowing.how,
        "tolerance": narrowing.tolerance,
        "rows_of_text": min(narrowing.rows, data.task_data.sizes["train"]),
        "tokens": min(found.tokens for found in moments.values()),
        "rows": rows,
    }
