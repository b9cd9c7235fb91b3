"""``README.md`` of an entry, written from its manifest and nothing else.

Every string of a manifest may come from a stranger: in prose and tables it is escaped, in code it
cannot end the code, and the metadata header is written by a YAML library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.tasks.caveats import is_undefined, without_certainty
from mtl.words import printable
from mtl.zoo.machine import own_paths, portable_text
from mtl.zoo.manifest import Manifest
from mtl.zoo.quality import baselines, headlines, remarks

LICENSE = re.compile(r"[a-z0-9][a-z0-9.\-]{0,60}")
"""Identifiers of licences, as the Hub spells them."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "multilabel": "text-classification",
    "multiple_choice": "multiple-choice",
    "span_extraction": "question-answering",
}
_Z = 1.959963984540054  # the standard normal quantile at 0.975
_TITLES = {"adapter": "Adapter", "composition": "Composition", "joint": "Joint model"}


def card(
    manifest: Manifest,
    license: str | None = None,
    *,
    use: str | None = None,
    library: str | None = None,
) -> str:
    """The card in Markdown, with the metadata header of the Hugging Face Hub.

    ``base_model`` is given where the base came from the Hub (it has a revision), ``datasets``
    where the task's data do; undefined metrics are left out of ``model-index``.

    Args:
        license: as the Hub spells it (``apache-2.0``), where whoever publishes the entry gave one.
        use: Markdown that says how to load it from where the card stands.
        library: the package that reads the weights.
    """
    sections = [
        f"# {_title(manifest)}: {text(manifest.task['id'])}, {text(manifest.method)}, "
        f"seed {manifest.seed}",
        _summary(manifest),
        *([f"## Use\n\n{use}"] if use else []),
        "## Results\n\n" + _results(manifest),
        *([f"## Beside simple baselines\n\n{simple}"] if (simple := _simple(manifest)) else []),
        "## Training\n\n" + _training(manifest),
        "## Settings\n\n" + _settings(manifest),
    ]
    if manifest.parents:
        sections.append("## Sources\n\n" + _parents(manifest))
    sections += [
        "## Made by\n\n" + _made_by(manifest),
        "## Limits\n\n" + _limits(manifest),
        "## Licence\n\n" + _licence(license),
    ]
    body = "\n\n".join(sections)
    return f"---\n{header(manifest, manifest.metrics, license, library)}\n---\n\n{body}\n"


@dataclass(frozen=True)
class BaseCode:
    """How Python code on a card loads the frozen encoder.

    Attributes:
        lines: what stands before, with a line break at the end, or nothing.
        arguments: of ``from_pretrained``.
        note: a sentence for who has to do something first, or nothing.
    """

    lines: str
    arguments: str
    note: str


def base_code(manifest: Manifest) -> BaseCode:
    """The encoder by its Hub name and commit; a local folder is said to be one, with its weights.

    The name of a local folder means nothing on another machine, and to the Hub perhaps another
    model.
    """
    base = manifest.base
    if base["revision"]:
        return BaseCode("", f"{_code(base['id'])}, revision={_code(base['revision'])}", "")
    mark = f"weights with the fingerprint `{base['fingerprint'][:16]}`"
    if base["id"] == "demo":
        return BaseCode(
            "import mtl.backbone\n",
            'mtl.backbone.__path__[0] + "/demo"',
            f"The encoder is the one that comes with the package `mtl` ({mark}).",
        )
    return BaseCode(
        "",
        "FOLDER_OF_THE_ENCODER",
        f"The encoder is no model of the Hub, but a local folder called {text(base['id'])} of "
        f"whoever trained this: a {text(base['type'])} of {base['layers']} layers, width "
        f"{base['hidden_size']}, {mark}. Without these very weights the adapter means nothing; "
        "once it is in a zoo, `python -m mtl.zoo verify ENTRY --model FOLDER` compares them.",
    )


def _code(value: str) -> str:
    return json.dumps(printable(value))


def text(value: Any) -> str:
    """``value`` as one line of Markdown prose or table cell that means itself."""
    line = printable(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", line)


def fenced(value: str, language: str = "") -> str:
    """``value`` as a code block that it cannot end."""
    lines = "\n".join(printable(line) for line in value.splitlines())
    longest = max((len(run) for run in re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{lines}\n{fence}"


def number(value: float | None) -> str:
    """Four decimals; ``–`` for what is undefined."""
    return "–" if value is None else f"{value:.4f}"


def interval(item: Mapping[str, Any]) -> str:
    """``0.8963 to 0.9277``: value ± 1.96 standard errors (95 %); ``–`` where one is undefined."""
    value, stderr = item["value"], item["stderr"]
    if value is None or stderr is None:
        return "–"
    return f"{value - _Z * stderr:.4f} to {value + _Z * stderr:.4f}"


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """A Markdown table of escaped cells."""
    head = list(head)
    lines = [head, ["---"] * len(head), *([text(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _title(manifest: Manifest) -> str:
    kind = _TITLES[manifest.kind]
    return f"Control of a {kind.lower()} ({text(manifest.control)})" if manifest.control else kind


def _summary(manifest: Manifest) -> str:
    base = manifest.base
    revision = f" at revision {text(base['revision'])}" if base["revision"] else ""
    what = {
        "adapter": "An adapter for one task",
        "composition": "A learned use of frozen adapters of other tasks (listed below; their "
        "weights are not in this folder) for one task",
        "joint": "Adapters for several tasks, trained together",
    }[manifest.kind]
    if manifest.control:
        what = (
            "**A measurement, nothing to use**: a composition in which every source of another "
            f"task (listed below) was replaced by a twin without information "
            f"({text(manifest.control)})"
        )
    return (
        f"{what}, on the frozen encoder {text(base['id'])}{revision} ({text(base['type'])}, "
        f"{base['layers']} layers, width {base['hidden_size']}, fingerprint "
        f"`{base['fingerprint'][:16]}`). Task: {_task(manifest)}. Weights format: "
        f"{text(manifest.weights)}, in safetensors."
    )


def _task(manifest: Manifest) -> str:
    tasks = manifest.task.get("tasks")
    if manifest.kind == "joint" and isinstance(tasks, list):
        names = [text(task["id"]) for task in tasks if isinstance(task, dict) and "id" in task]
        return f"{', '.join(names)} (one head each, in `heads/`)"
    return (
        f"{text(manifest.task['id'])} of the suite {text(manifest.suite)} "
        f"({text(manifest.task['kind'])})"
    )


def _results(manifest: Manifest) -> str:
    found = [
        (split, metric, without_certainty(item))
        for split, metrics in manifest.metrics.items()
        for metric, item in metrics.items()
    ]
    rows = [
        [
            split,
            metric,
            number(item["value"]) + (" ?" if item.get("caveat") else ""),
            interval(item),
            number(item["stderr"]),
            "–" if item["n"] is None else item["n"],
        ]
        for split, metric, item in found
    ]
    if not rows:
        return "None recorded."
    doubts = "".join(
        f"\n- ? {text(split)} {text(metric)}: {text(item['caveat'])}"
        for split, metric, item in found
        if item.get("caveat")
    )
    headline = manifest.task["headline"]
    note = (
        "Intervals: value ± 1.96 standard errors over n examples; the headline metric is "
        f"{text(headline)}."
    )
    verified = manifest.verified
    state = "verified by a second evaluation from disk" if verified else "not verified"
    head = ["split", "metric", "value", "95 % interval", "standard error", "n"]
    whole = table(head, rows) + f"\n\n{note} Stored result: {state}."
    return whole + (f"\n\nValues that say less than they seem:\n{doubts}" if doubts else "")


def _simple(manifest: Manifest) -> str:
    """Baselines from the same rows, and what has to be said of the result; empty without any."""
    joint = manifest.kind == "joint"
    rows: list[list[Any]] = []
    notes: list[str] = []
    for task, headline in headlines(manifest).items():
        record = baselines(manifest, task)
        for name, found in (record.get("scores") or {}).items():
            for split, metrics in found["splits"].items():
                item = metrics.get(headline)
                if item is not None:
                    own = f"{task} {headline}" if joint else headline
                    cells = [name, found["train"], split, own]
                    says = found["says"] or ""
                    rows.append([*cells, number(item["value"]), interval(item), item["n"], says])
        missing = record.get("missing") or {}
        notes += [f"No baseline {name} of {task}: {why}" for name, why in missing.items()]
    notes += [f"Of this run: {line}" for line in remarks(manifest)]
    listed = "\n".join(f"- {text(note)}." for note in notes)
    head = ["baseline", "training rows", "split", "metric", "value", "95 % interval", "n", ""]
    return "\n\n".join(filter(None, [table(head, rows) if rows else "", listed]))


def _training(manifest: Manifest) -> str:
    training, held = manifest.training, manifest.run_settings.get("base_precision")
    rows: list[list[Any]] = [
        ["seed", manifest.seed],
        ["parameters trained", f"{training['trainable_parameters']:,}"],
        ["steps", training["steps"]],
        ["epochs", training["epochs"]],
        ["selected by", manifest.selected_by()],
        ["best step", training["best_step"]],
        ["stopped", training["stopped"]],
        ["precision", training["precision"]],
        *([["base held in", held]] if held else []),
        ["device", training["device"]],
        ["seconds", f"{training['seconds']:.1f}"],
        ["split protocol", manifest.data["protocol"]],
        ["examples", _pairs(manifest.data["sizes"])],
        ["versions", _pairs(manifest.versions)],
        ["created", manifest.created],
        ["run", manifest.runhash],
    ]
    shown = [["–" if cell is None else cell for cell in row] for row in rows]
    return table(["", ""], shown)


def _pairs(value: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {item}" for key, item in value.items()) or "–"


def _settings(manifest: Manifest) -> str:
    value = {
        "method": {"name": manifest.method, **manifest.method_settings},
        "run": manifest.run_settings,
        "head": manifest.head,
    }
    return fenced(json.dumps(value, indent=2, ensure_ascii=False), "json")


def _parents(manifest: Manifest) -> str:
    rows = [
        [parent["task"], parent["method"], parent["seed"], parent["ref"], parent["digest"][:16]]
        for parent in manifest.parents
    ]
    return table(["task", "method", "seed", "entry", "digest"], rows)


def _made_by(manifest: Manifest) -> str:
    command = portable_text(manifest.command)
    away = own_paths(manifest, command)
    said = f"\n\nPut in your own path of {', '.join(map(text, away))}." if away else ""
    return fenced(command, "sh") + said


def _limits(manifest: Manifest) -> str:
    lines = [
        "Meant for the task and the encoder weights above; with other weights it means nothing.",
        "The standard errors are over test examples of one run; they say nothing about other "
        "seeds or other data.",
        "It inherits what the encoder and the training data hold, their biases included; it was "
        "not examined for use in decisions about people.",
    ]
    notes = manifest.data["notes"]
    if isinstance(notes, list):
        lines += [f"Data: {text(note)}" for note in notes]
    elif notes:
        lines.append(f"Data: {text(notes)}")
    return "\n".join(f"- {line}" for line in lines)


def _licence(license: str | None) -> str:
    if license:
        return f"{text(license)}, as given by whoever published this entry."
    return "None was given. The licences of the encoder and of the data apply to what is theirs."


def _dataset(manifest: Manifest) -> Mapping[str, Any]:
    """Where the task's data come from, as its specification says."""
    spec = manifest.task.get("spec")
    data = spec.get("data") if isinstance(spec, Mapping) else None
    return data if isinstance(data, Mapping) else manifest.data


def header(
    manifest: Manifest,
    splits: Mapping[str, Any],
    license: str | None = None,
    library: str | None = None,
    form: str | None = None,
) -> str:
    """The metadata of the Hub as YAML; ``splits`` in a manifest's form, ``form`` of an export."""
    from huggingface_hub import EvalResult, ModelCardData

    repo = _dataset(manifest).get("repo")
    config = _dataset(manifest).get("config")
    dataset = repo if isinstance(repo, str) and _HUB_ID.fullmatch(repo) else None
    base = manifest.base["id"] if manifest.base["revision"] else ""
    pipeline = _PIPELINES.get(manifest.task["kind"], "text-classification")
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type=dataset or printable(manifest.task["id"]),
            dataset_name=printable(manifest.task["id"]),
            dataset_config=printable(config) if dataset and config else None,
            dataset_split=printable(split),
            metric_type=printable(metric),
            metric_name=printable(metric),
            metric_value=item["value"],
        )
        for split, metrics in splits.items()
        for metric, item in metrics.items()
        if item["value"] is not None and not is_undefined(item) and not manifest.control
    ]
    name = f"{manifest.task['id']} {manifest.method} seed {manifest.seed}"
    weights = form or manifest.weights
    whole = form in {"onnx", "transformers"}
    relation = "finetune" if whole else "adapter"
    more: dict[str, Any] = {"base_model_relation": relation} if _HUB_ID.fullmatch(base) else {}
    stock = weights == "adapters" and library in {None, "adapters"}
    data = ModelCardData(
        base_model=base if _HUB_ID.fullmatch(base) else None,
        datasets=[dataset] if dataset else None,
        eval_results=results or None,
        library_name=library or form,
        license=license,
        metrics=sorted({item.metric_type for item in results}) or None,
        model_name=printable(name) if results else None,
        pipeline_tag=pipeline,
        tags=[
            "mtl",
            "control" if manifest.control else manifest.kind,
            printable(manifest.method),
            printable(f"task:{manifest.task['id']}"),
            *(["adapter-transformers"] if stock else []),
            *([weights] if weights in {"peft", "onnx"} else []),
        ],
        **more,
    )
    return data.to_yaml(line_break="\n")


def license_of(path: Path) -> str | None:
    """The licence in the metadata of a card, if it has one that can be one."""
    import yaml

    try:
        found = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)
        data = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    name = data.get("license") if isinstance(data, dict) else None
    return name if isinstance(name, str) and LICENSE.fullmatch(name) else None
