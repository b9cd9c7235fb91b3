"""The card of a packed zoo, from the manifests of its entries and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.files import canonical_json
from mtl.words import counted
from mtl.zoo.card import base_code, fenced, interval, number, table, text
from mtl.zoo.caveats import MARK, footnotes, stated
from mtl.zoo.machine import portable_text

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.manifest import Manifest


def pack_card(entries: Sequence[Entry], file: str, license: str | None = None) -> str:
    """Markdown: how to use the file, what is in it, and what made that.

    Args:
        file: name of the packed file.
        license: of the weights, where whoever packs them gave one.
    """
    manifests = [entry.manifest for entry in entries]
    parts = [
        f"# {text(file)}: {counted(len(entries), 'entry', 'entries')} of a zoo",
        f"Adapters of `mtl` in one file of {counted(_size(entries), 'byte')}, each with its "
        "manifest, its answers on dev and test and a card of its own. Unpacking checks every byte.",
        "## Use\n\n" + _use(manifests, file),
        "## Encoder\n\n" + _encoders(manifests),
        "## Entries\n\n" + _entries(entries),
        "## Made by\n\n" + _made_by(manifests),
        "## Data\n\n" + _data(manifests),
        "## Licence\n\n" + (f"Of the weights in this file: {text(license)}, as given by whoever "
        "packed it." if license else "Of the weights in this file none was given.")
        + " Those of the encoder and of the data apply to what is theirs.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _size(entries: Iterable[Entry]) -> int:
    return sum(int(item["bytes"]) for entry in entries for item in entry.files.values())


def _use(manifests: Sequence[Manifest], file: str) -> str:
    """Into a zoo, and as sources of a task of one's own."""
    from shlex import quote

    suites = list(dict.fromkeys(manifest.suite for manifest in manifests))
    sources = any(manifest.kind == "adapter" for manifest in manifests)
    lines = [f"python -m mtl.zoo unpack {quote(file)}"]
    if sources and len(suites) == 1:
        model = "--model ENCODER"
        lines += [
            f"python -m mtl.train --task my/task.yaml {model}",
            f"python -m mtl.compose --target my/task.yaml --suite {quote(suites[0])} --sources all "
            f"--allow-missing {model}",
        ]
    return (
        fenced("\n".join(lines), "sh")
        + "\n\nENCODER is the encoder below, `my/task.yaml` a task of yours (`python -m mtl.tasks "
        "new`); its own adapter is one of the sources."
    )


def _encoders(manifests: Sequence[Manifest]) -> str:
    found = {manifest.base["fingerprint"]: manifest for manifest in manifests}
    lines = []
    for mark, manifest in found.items():
        base, note = manifest.base, base_code(manifest).note
        at = f", revision {text(base['revision'])}" if base["revision"] else ""
        lines.append(
            f"- {text(base['id'])}{at}: {text(base['type'])}, {base['layers']} layers, width "
            f"{base['hidden_size']}, fingerprint `{text(mark)}`." + (f" {note}" if note else "")
        )
    return "\n".join(lines)


def _entries(entries: Sequence[Entry]) -> str:
    rows, doubts = [], []
    for entry in entries:
        manifest = entry.manifest
        metric = manifest.task["headline"]
        dev, test = (stated(entry, split, metric) or {} for split in ("dev", "test"))
        value = {"value": test.get("value"), "stderr": test.get("stderr")}
        doubts.append((f"test {metric} of {entry.ref}", test.get("caveat")))
        rows.append(
            [
                manifest.task["id"],
                manifest.method,
                manifest.seed,
                manifest.data["sizes"].get("train", "–"),
                metric,
                number(dev.get("value")),
                number(value["value"]) + (MARK if test.get("caveat") else ""),
                interval(value),
                test.get("n") or "–",
                entry.ref.rpartition("/")[2],
            ]
        )
    head = ["task", "method", "seed", "train rows", "metric", "dev", "test", "95 % interval", "n"]
    said = footnotes(doubts).strip()
    return table([*head, "run"], rows) + (f"\n\n{text(said)}" if said else "") + (
        "\n\nIntervals are over test examples: they say nothing of other seeds, and of a cut test "
        "split that it was cut."
    )  # fmt: skip


def _made_by(manifests: Sequence[Manifest]) -> str:
    commands = dict.fromkeys(portable_text(manifest.command) for manifest in manifests)
    versions = dict.fromkeys(
        ", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items()))
        for manifest in manifests
    )
    settings: dict[str, list[str]] = {}
    for manifest in manifests:
        own = {"method": manifest.method_settings, "run": manifest.run_settings}
        settings.setdefault(canonical_json(own), []).append(manifest.task["id"])
    parts = [fenced("\n".join(commands), "sh")]
    parts += [f"Versions: {text(item)}." for item in versions]
    parts += [
        f"Settings of {text(', '.join(dict.fromkeys(tasks)))}:\n\n{fenced(own, 'json')}"
        for own, tasks in settings.items()
    ]
    return "\n\n".join(parts)


def _data(manifests: Sequence[Manifest]) -> str:
    """Where the rows came from and how they were cut; what nobody recorded is called unknown."""
    rows: dict[str, list[Any]] = {}
    for manifest in manifests:
        spec = manifest.task.get("spec")
        data = spec.get("data") if isinstance(spec, Mapping) else None
        place = data if isinstance(data, Mapping) else {}
        named = " ".join(str(place[key]) for key in ("repo", "config") if place.get(key))
        notes = manifest.data["notes"]
        said = "; ".join(map(str, notes)) if isinstance(notes, list) else str(notes or "")
        licence = str(place.get("license") or "unknown")
        rows[manifest.task["id"]] = [
            manifest.task["id"],
            named or "files of whoever made it",
            manifest.data["protocol"],
            said or "–",
            licence,
        ]
    head = ["task", "data", "split protocol", "rows", "licence of the data"]
    return table(head, rows.values()) + (
        "\n\nTask files and manifests record no licence where this says unknown: ask the owners of "
        "the data before you publish what was trained on them."
    )
