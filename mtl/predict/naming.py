"""Names of loaded entries: a reference, or the last parts of one."""

from __future__ import annotations

from collections.abc import Sequence

from mtl.errors import RequestError, did_you_mean


def find_ref(name: str, refs: Sequence[str]) -> str:
    """The one of ``refs`` that is called ``name``, or ends so, the run's hash left out or not.

    Raises:
        RequestError: none or several; says which there are.
    """
    end = f"/{name.strip('/')}"
    matches = [
        ref
        for ref in refs
        if any(f"/{known}".endswith(end) for known in (ref, ref.rpartition("-")[0]))
    ]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RequestError(
            f"{name[:100]!r} is ambiguous; say which one: {', '.join(matches[:20])}."
        )
    short = [short_ref(ref) for ref in refs]
    listed = ", ".join(short[:20]) + (", …" if len(short) > 20 else "")
    raise RequestError(
        f"There is no entry {name[:100]!r} among the {len(short)} loaded."
        f"{did_you_mean(name[:100], [*short, *refs])} Loaded: {listed or 'none'}."
    )


def short_ref(ref: str) -> str:
    """``…/demo/entail/scalearn/seed0-ab12cd34`` → ``entail/scalearn/seed0``."""
    return "/".join(ref.rpartition("-")[0].split("/")[-3:])
