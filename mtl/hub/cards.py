"""Cards of what is pushed: an entry's own, with how to load it, and the one of a whole zoo."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from mtl.backbone.head_designs import STOCK_REFUSAL, is_stock
from mtl.errors import RequestError
from mtl.hub.client import RepoName
from mtl.hub.index import ROOT, Listed
from mtl.hub.stock import reader
from mtl.words import counted, printable
from mtl.zoo import Entry
from mtl.zoo.card import LICENSE, base_code, card, fenced, interval, number, table, text
from mtl.zoo.card_code import (
    IMPORTS,
    TOKENIZER,
    answering_code,
    loading_code,
    needs_interface,
    plugged_code,
    what_heads_read,
    without_heads,
)

_MAX_ROWS = 500


def check_license(name: str | None) -> None:
    """Refuse what is no identifier of a licence, as the Hub spells them.

    Raises:
        RequestError: names what it should look like.
    """
    if name is not None and not LICENSE.fullmatch(name):
        raise RequestError(
            f"{printable(name)!r} is no licence as the Hub spells them: apache-2.0, mit, "
            "cc-by-4.0, other, …"
        )


def entry_card(entry: Entry, repo: RepoName, place: Listed, license: str | None) -> str:
    """The card of ``entry`` at ``place`` of ``repo``."""
    library = reader(entry.folder, entry.manifest)
    use = _use(entry, repo, place, library)
    return card(entry.manifest, license, use=use, library=library)


def _use(entry: Entry, repo: RepoName, place: Listed, library: str) -> str:
    source = f"{repo.id}@{repo.revision}" if repo.revision else repo.id
    pull = fenced(f"python -m mtl.zoo pull {source} {entry.ref}", "sh")
    base = base_code(entry.manifest)
    note = f"{base.note}\n\n" if base.note else ""
    revision = f', revision="{repo.revision}"' if repo.revision else ""
    folder = (
        f'"{repo.id}"'
        if place.path == ROOT
        else f'snapshot_download("{repo.id}"{revision}) + "/{place.path}"'
    )
    answering = answering_code(entry.manifest, base.arguments)
    download = "" if place.path == ROOT else "from huggingface_hub import snapshot_download\n"
    plugged = library == "adapters" and without_heads(entry.manifest.base)
    if plugged and not needs_interface(entry.manifest.base):
        code = plugged_code(entry.manifest.base, base.lines, base.arguments, "FOLDER")
        token = what_heads_read(entry.manifest.base)
        return (
            f"{note}Stock `adapters` reads the adapter, from a `FOLDER` with its files; it has no "
            f"heads for this type, and the one here reads {token}:\n\n"
            f"{fenced(code, 'python')}\n\n{_by_mtl(source, entry, pull)}"
        )
    if library == "adapters" and not plugged:
        version = f', version="{repo.revision}"' if repo.revision and place.path == ROOT else ""
        code = (
            f"{base.lines}{IMPORTS if answering else ''}from adapters import AutoAdapterModel\n"
            f"{download}{TOKENIZER if answering else ''}\n"
            f"model = AutoAdapterModel.from_pretrained({base.arguments})\n"
            f"name = model.load_adapter({folder}{version}, set_active=True)\n{answering}"
        )
        return (
            f"{note}Stock `adapters` reads it, prediction head included:\n\n"
            f"{fenced(code, 'python')}" + f"\n\n{_by_mtl(source, entry, pull)}"
        )
    if library == "peft":
        at = revision if place.path == ROOT else ""
        auto, loaded = loading_code(entry.manifest.base, base.arguments)
        code = (
            f"{base.lines}from peft import PeftModel\nfrom transformers import {auto}\n"
            f"{download}\n"
            f"encoder = {loaded}\n"
            f"model = PeftModel.from_pretrained(encoder, {folder}{at})\n"
        )
        return (
            f"{note}`peft` reads the adapter (the prediction head is in the format of "
            f"`adapters`):\n\n"
            f"{fenced(code, 'python')}\n\nInto a zoo of `mtl`, with its head, checked against its "
            f"hashes:\n\n{pull}"
        )
    what = "composition" if entry.manifest.kind == "composition" else "method"
    why = f"this {what} ({text(entry.manifest.method)}) is not one that stock `adapters` or `peft` "
    why += "knows"
    if plugged:
        why = f"stock `adapters` does not know the type {text(entry.manifest.base['type'])}"
    if not is_stock(entry.manifest.head):
        why = STOCK_REFUSAL
    return (
        f"{note}The package `mtl` reads it; {why}, and they stop with an error. "
        f"{_by_mtl(source, entry, pull)}"
    )


def _by_mtl(source: str, entry: Entry, pull: str) -> str:
    """How ``mtl`` itself pulls and answers."""
    code = (
        "import mtl\n\n"
        f'model = mtl.load("hub:{source}#{entry.ref}")\n'
        "model.predict(ROWS)  # " + ", ".join(_columns(entry)) + "\n"
    )
    return f"Into a zoo of `mtl`, checked against its hashes:\n\n{pull}\n\n{fenced(code, 'python')}"


def _columns(entry: Entry) -> list[str]:
    """What ``predict`` wants, in words."""
    spec = entry.manifest.task.get("spec")
    inputs = spec.get("inputs") if isinstance(spec, dict) else None
    if not isinstance(inputs, list):
        return ["dicts, tuples, a frame"]
    names = dict.fromkeys(
        name for text in inputs for name in re.findall(r"\{([^{}]+)\}", str(text))
    )
    return [f"rows with {' and '.join(map(printable, names))}: tuples, dicts, a frame"]


def zoo_card(entries: Iterable[Listed], repo: RepoName, license: str | None) -> str:
    """The card of a repository that holds several entries, from its index."""
    from huggingface_hub import ModelCardData

    rows = sorted(entries, key=lambda item: item.ref)
    bases = sorted({str(item.summary.get("base")) for item in rows})
    data = ModelCardData(license=license, library_name="mtl", tags=["mtl", "zoo"])
    shown = [_row(item.summary, item) for item in rows[:_MAX_ROWS]]
    more = len(rows) - len(shown)
    source = f"{repo.id}@{repo.revision}" if repo.revision else repo.id
    first = rows[0].ref if rows else "ENTRY"
    head = ["entry", "kind", "task", "method", "seed", "metric", "test", "95 % interval", "n"]
    parts = [
        f"# Zoo: {counted(len(rows), 'entry', 'entries')}",
        f"Adapters and compositions of `mtl` on {text(', '.join(bases))}. Each folder has a card "
        "of its own, and a manifest that says what made it.",
        "## Use\n\nAll of it, or single entries with what they need, into a local zoo, checked "
        "against their hashes:\n\n"
        + fenced(f"python -m mtl.zoo pull {source}\npython -m mtl.zoo pull {source} {first}", "sh"),
        "## Entries\n\n" + table(head, shown) + (f"\n\n… and {more} more." if more else ""),
    ]
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n" + "\n\n".join(parts) + "\n"


def _row(summary: Mapping[str, Any], item: Listed) -> list[Any]:
    # What is in an index of somebody else may be of any type.
    values = {"value": _float(summary.get("value")), "stderr": _float(summary.get("stderr"))}
    plain = [summary.get(key) for key in ("kind", "task", "method", "seed", "metric")]
    n = summary.get("n")
    return [
        item.ref,
        *("–" if value is None else value for value in plain),
        number(values["value"]) + (" ?" if summary.get("caveat") else ""),
        interval(values),
        "–" if n is None else n,
    ]


def _float(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
