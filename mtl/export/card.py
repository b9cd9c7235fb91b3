"""``README.md`` and ``export.json`` of an exported folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import find_arch
from mtl.export.proof import says_little
from mtl.files import finite, write_json, write_text
from mtl.zoo.card import base_code, fenced, header, table, text
from mtl.zoo.card_code import (
    IMPORTS,
    TOKENIZER,
    answering_code,
    copied_types,
    loading_code,
    plugged_code,
    what_heads_read,
    without_heads,
)

if TYPE_CHECKING:
    from mtl.zoo import Entry

RECORD_FILE = "export.json"


def write_card(folder: Path, entry: Entry, record: Mapping[str, Any]) -> None:
    """Write the record as JSON and the card that tells it. Raises RunError.

    Args:
        record: ``form``, ``name``, ``width``, ``sources``, ``proof``; where measured ``scores``,
            ``changes`` (kind → split → change) and ``curve``; ``command``, ``versions``.
    """
    write_json(folder / RECORD_FILE, finite(dict(record)))
    write_text(folder / "README.md", card(entry, record))


def card(entry: Entry, record: Mapping[str, Any]) -> str:
    """The card in Markdown, with the metadata header of the Hugging Face Hub."""
    manifest = entry.manifest
    what = "the whole model" if _whole(record) else "one stock adapter"
    title = f"# {text(manifest.task['id'])}: {text(manifest.method)}, {what}"
    sections = [title, _summary(entry, record), "## Load\n\n" + _load(entry, record)]
    sections.append("## Proof\n\n" + _proof(record))
    if record.get("scores"):
        sections.append("## Scores\n\n" + _scores(entry, record))
    if record.get("distilled"):
        sections.append("## Distilled\n\n" + _distilled(record))
    if record.get("curve"):
        sections.append("## Width\n\n" + _curve(record))
    sections += [
        "## Sources\n\n" + _sources(record),
        "## Made by\n\n" + fenced(record["command"], "sh"),
        "## Limits\n\n" + _limits(entry, record),
    ]
    metrics = record.get("scores") or {}
    same = record["exact"] and not record.get("gates")
    shown = manifest.metrics if same and not metrics else _as_metrics(entry, metrics)
    return (
        f"---\n{header(manifest, shown, form=record['form'])}\n---\n\n"
        + "\n\n".join(sections)
        + "\n"
    )


def _gates(gates: Mapping[str, Any]) -> str:
    """Which of the entry's functions this is."""
    column = text(gates["column"])
    if gates["group"] is None:
        return (
            f"The entry gates its sources by the column {column}: this is the pooled adapter, with "
            "which it answers rows of groups that training did not see. For each of the others it "
            "folds into an adapter of its own."
        )
    return (
        f"The entry gates its sources by the column {column}: this is its adapter for the group "
        f"{text(gates['group'])} ({gates['rows']} training rows), and means nothing for rows of "
        "others."
    )


def _as_metrics(entry: Entry, found: Mapping[str, Any]) -> dict[str, Any]:
    """Measured scores in the form of a manifest's metrics."""
    return {
        split: {name: {"value": value, "stderr": None, "n": None} for name, value in row.items()}
        for split, row in found.items()
    }


def _whole(record: Mapping[str, Any]) -> bool:
    return bool(record.get("files"))


def _summary(entry: Entry, record: Mapping[str, Any]) -> str:
    base = entry.manifest.base
    gates = f" {_gates(record['gates'])}" if record.get("gates") else ""
    if _whole(record):
        files = ", ".join(f"`{name}` ({size:,} bytes)" for name, size in record["files"].items())
        return (
            f"Encoder {text(base['id'])} ({text(base['type'])}, fingerprint "
            f"`{base['fingerprint'][:16]}`), adapters and prediction head as one model, in "
            f"{files}, with the tokenizer beside it.{gates} Entry: {text(entry.ref)}, digest "
            f"`{entry.digest}`."
        )
    how = {
        True: "It computes the same function, folded exactly",
        False: "It is an approximation; what it costs is measured below",
    }[bool(record["exact"])]
    return (
        f"One stock adapter of width {record['width']} in place of "
        f"{len(record['sources'])} source(s), on the frozen encoder {text(base['id'])} "
        f"({text(base['type'])}, {base['layers']} layers, width {base['hidden_size']}, fingerprint "
        f"`{base['fingerprint'][:16]}`), with its prediction head. {how}.{gates} Entry: "
        f"{text(entry.ref)}, digest `{entry.digest}`."
    )


def _load(entry: Entry, record: Mapping[str, Any]) -> str:
    if record["form"] == "transformers":
        answering = answering_code(entry.manifest, "FOLDER")
        return fenced(
            f"{IMPORTS if answering else ''}from transformers import "
            f"AutoModelForSequenceClassification{', AutoTokenizer' if answering else ''}\n\n"
            "model = AutoModelForSequenceClassification.from_pretrained(FOLDER)\n"
            f"{answering}",
            "python",
        )
    if record["form"] == "onnx":
        return _load_onnx(entry)
    name = record["name"]
    base = base_code(entry.manifest)
    note = f"{base.note}\n\n" if base.note else ""
    answering = answering_code(entry.manifest, base.arguments)
    if record["form"] == "peft":
        auto, loaded = loading_code(entry.manifest.base, base.arguments)
        return note + fenced(
            f"{base.lines}from peft import PeftModel\n"
            f"from transformers import {auto}\n\n"
            f"encoder = {loaded}\n"
            "encoder = PeftModel.from_pretrained(encoder, FOLDER)",
            "python",
        )
    if without_heads(entry.manifest.base):
        code = plugged_code(entry.manifest.base, base.lines, base.arguments, "FOLDER")
        place = what_heads_read(entry.manifest.base)
        return (
            f"{note}{fenced(code, 'python')}\n\nadapters has no heads for this type: the head, "
            f"called {text(name)}, reads {place} of `last_hidden_state` (spans: every one)."
        )
    return (
        note
        + fenced(
            f"{base.lines}{IMPORTS if answering else ''}from adapters import AutoAdapterModel\n"
            f"{TOKENIZER if answering else ''}\n"
            f"model = AutoAdapterModel.from_pretrained({base.arguments})\n"
            f"name = model.load_adapter(FOLDER, set_active=True)\n{answering}",
            "python",
        )
        + f"\n\nAdapter and head are called {text(name)}. The weights are there twice, as "
        "safetensors (`use_safetensors=True`) and as tensor-only `.bin` files."
        + _copied(entry, base.arguments)
    )


def _copied(entry: Entry, arguments: str) -> str:
    """How to load an encoder whose config.json says a type that ``adapters`` does not know."""
    base = entry.manifest.base
    kinds = copied_types(base)
    if not kinds:
        return ""
    arch = find_arch(str(base["type"]))
    assert arch is not None, base["type"]
    name = arch.heads.replace("AdapterModel", "Config")
    code = (
        f"from transformers import {name}\n\n"
        f"config = {name}.from_pretrained({arguments})\n"
        f'config.model_type = "{arch.type}"\n'
        f"model = AutoAdapterModel.from_pretrained({arguments}, config=config)"
    )
    return (
        f"\n\nIf the encoder's own config.json says {' or '.join(kinds)}, a type that adapters "
        f"does not know and whose class is a copy of {arch.type}'s, load it so:\n\n"
        f"{fenced(code, 'python')}"
    )


def _load_onnx(entry: Entry) -> str:
    answering = answering_code(entry.manifest, "FOLDER", "session")
    lines = (
        "import onnxruntime\n"
        "from transformers import AutoTokenizer\n\n"
        'session = onnxruntime.InferenceSession(FOLDER + "/model.onnx")\n'
    )
    if answering:
        head, _, rest = answering.partition("with torch.no_grad():\n")
        _, _, read = rest.partition("\n")
        lines += head.replace('return_tensors="pt"', 'return_tensors="np"')
        lines += (
            "names = [item.name for item in session.get_inputs()]\n"
            "(logits,) = session.run(None, {name: batch[name] for name in names})\n"
        )
        lines += read
    said = (
        "Inputs are of int64, (batch, length), both free. Task, labels, templates and length stand"
    )
    return fenced(lines, "python") + f"\n\n{said} in the model's metadata, under `mtl.…`."


def _proof(record: Mapping[str, Any]) -> str:
    proof = record["proof"]
    lines = [
        f"A batch of {proof['rows']} random texts ({proof['tokens']} tokens) was run both ways, "
        f"through {text(proof['reference'])} and through the files of this folder in stock "
        f"{text(proof['other'])}: largest logit difference {proof['max_logit_difference']:.3g} "
        f"(fp32, allowed {proof['limit']:.3g}; largest logit {proof['max_logit']:.3g}; without the "
        f"adapter {proof['adapter_effect']:.3g})."
    ]
    if says_little(proof):
        lines.append(
            "The adapter itself moves these logits by no more than is allowed: it has learned next "
            "to nothing, and the comparison is one of the heads."
        )
    rows = [
        [kind, split, row["metric"], f"{row['before']:.4f}", f"{row['after']:.4f}",
         _number(row["equal_predictions"]), f"{row['max_logit_difference']:.3g}", row["n"]]
        for kind, splits in (record.get("changes") or {}).items()
        for split, row in splits.items()
    ]  # fmt: skip
    if rows:
        head = ["by", "split", "metric", "before", "after", "equal predictions", "max Δ logit", "n"]
        lines.append("What the entry loses:\n\n" + table(head, rows))
    return "\n\n".join(lines)


def _scores(entry: Entry, record: Mapping[str, Any]) -> str:
    rows = []
    for split, metrics in record["scores"].items():
        for name, value in metrics.items():
            stored = entry.manifest.metrics.get(split, {}).get(name, {}).get("value")
            shown = "–" if stored is None else f"{stored:.4f}"
            rows.append([split, name, f"{value:.4f}", shown])
    there = "by themselves" if _whole(record) else "in stock adapters"
    note = f"Scores of these files {there}, and those recorded with the entry."
    gates = record.get("gates")
    if gates:
        over = "all rows" if gates["group"] is None else f"the rows of {text(gates['group'])} alone"
        note += f" The former are over {over}, the latter over all rows, each with its own gates."
    return table(["split", "metric", "exported", "entry"], rows) + f"\n\n{note}"


def _distilled(record: Mapping[str, Any]) -> str:
    found = record["distilled"]
    errors = ", ".join(f"{error:.4f}" for error in found["dev_logit_error"])
    return (
        "The entry does not fold, or was not to: this adapter was trained to give its hidden "
        f"states and logits, on {found['rows_of_text']} training texts without labels "
        f"({found['epochs']} epochs, {found['steps']} steps, learning rate {found['lr']:g}). Mean "
        f"squared error of the dev logits over their variance, from the least-squares start on: "
        f"{errors}; epoch {found['kept_epoch']} was kept. What it costs is in the proof above."
    )


def _curve(record: Mapping[str, Any]) -> str:
    rows = [
        [
            row["width"],
            f"{row['score']:.4f}",
            f"{row['loss']:+.4f}",
            "taken" if row["taken"] else "",
        ]
        for row in record["curve"]["rows"]
    ]
    curve = record["curve"]
    note = (
        f"By {text(curve['how'])}, fitted on {curve['rows_of_text']} unlabelled training rows; "
        f"the narrowest within {curve['tolerance']} of the full width on dev was taken."
    )
    return table(["width", f"dev {text(curve['metric'])}", "change", ""], rows) + f"\n\n{note}"


def _sources(record: Mapping[str, Any]) -> str:
    rows = [
        [s["task"], s["method"], s["seed"], s["ref"], s["digest"][:16], _number(s.get("omega")),
         "dropped" if s.get("dropped") else ""]
        for s in record["sources"]
    ]  # fmt: skip
    return table(["task", "method", "seed", "entry", "digest", "rms omega", ""], rows)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _limits(entry: Entry, record: Mapping[str, Any]) -> str:
    lines = [
        "Meant for the task and the encoder weights above; with other weights it means nothing.",
        "It inherits what the encoder and the training data hold, their biases included; it was "
        "not examined for use in decisions about people.",
    ]
    if record.get("late_dropout"):
        lines.append(
            "Its sources sat before the block's dropout; stock adapters put theirs behind it. That "
            "is the same in evaluation, not in further training."
        )
    return "\n".join(f"- {line}" for line in lines)


def record_json(record: Mapping[str, Any]) -> str:
    """One line."""
    return json.dumps(finite(dict(record)))
