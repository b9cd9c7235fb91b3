"""What the record of an export says of an entry's sources and gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.export.omega import NEAR_ZERO, near_zero, omega_sizes

if TYPE_CHECKING:
    from mtl.runs import Loaded


def chosen_sizes(loaded: Loaded, group: str | None) -> list[float] | None:
    """Size of omega per source, with the gates of ``group``, which the network has from now on.

    Raises:
        RequestError: there are no gates by group, or no such group.
    """
    sizes = omega_sizes(loaded.entry)
    groups = _gates(loaded)
    if groups is None:
        if group is not None:
            raise RequestError(
                f"--group {group}: {loaded.entry.ref} answers all rows alike; groups are of "
                "compositions with a gate."
            )
        return sizes
    groups.choose(group)
    each = groups.chosen.abs().flatten().tolist()
    return sizes and [size * gate for size, gate in zip(sizes, each, strict=True)]


def gates_record(loaded: Loaded, group: str | None) -> dict[str, Any] | None:
    """Whose gates were folded in, for the record; None where there are none."""
    groups = _gates(loaded)
    if groups is None:
        return None
    return {"column": groups.column, "group": group, "rows": groups.counts.get(group)}


def gates_text(loaded: Loaded, group: str | None) -> str:
    """The same, in words behind the name of the entry."""
    groups = _gates(loaded)
    if groups is None:
        return ""
    whose = "the pooled gates" if group is None else f"the gates of {groups.column} {group!r}"
    return f" with {whose}"


def _gates(loaded: Loaded) -> Any:
    return getattr(loaded.composed, "groups", None)


def source_rows(
    loaded: Loaded, sizes: Sequence[float] | None, prune: float | None = None
) -> list[dict[str, Any]]:
    """Sources as the record lists them: where from, size of omega, near zero, dropped."""
    small = near_zero(list(sizes), NEAR_ZERO) if sizes else []
    gone = near_zero(list(sizes), prune) if sizes and prune is not None else []
    return [
        {
            "ref": entry.ref,
            "digest": entry.digest,
            "task": entry.manifest.task["id"],
            "method": entry.manifest.method,
            "seed": entry.manifest.seed,
            "omega": sizes[k] if sizes else None,
            "near_zero": k in small,
            "dropped": k in gone,
        }
        for k, entry in enumerate(loaded.sources)
    ]
