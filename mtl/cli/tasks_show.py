"""``mtl.tasks show``: rows as the model sees them, special tokens included, raw columns beside."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.data import Encoded, TaskData
    from mtl.tasks import TaskSpec

_WIDEST = 300  # characters of a raw column on a screen; --json has all of it


def run(options: Namespace) -> int:
    """Print the rows, or one line of JSON."""
    from mtl.cli.tasks import data_root, source_of
    from mtl.data import encode, load_data
    from mtl.data.raw_rows import RawRows
    from mtl.errors import RequestError, unknown
    from mtl.tasks import default_protocol, load_task, suite_for

    if options.n < 1:
        raise RequestError(f"-n {options.n}: the number of rows must be at least 1.")
    for name in ("shots", "shots_per_class", "shot_draw"):
        if getattr(options, name) < 0:
            flag = name.replace("_", "-")
            raise RequestError(f"--{flag} {getattr(options, name)} must not be negative.")
    spec = load_task(options.task)
    model, tokenizer, reason = _tokenizer(options, spec)
    protocol = options.protocol or default_protocol(spec)
    drawn = {
        "shots": options.shots,
        "shots_per_class": options.shots_per_class,
        "shot_draw": options.shot_draw,
        "sample": suite_for(spec).sample_of(spec.id),
    }
    raw = RawRows(spec, data_root(options))
    data = load_data(spec, rows=raw, protocol=protocol, **drawn)
    if options.split not in data.splits:
        raise unknown(f"split of {spec.id}", options.split, data.splits)
    split = data.splits[options.split]
    encoded = encode(data, options.split, tokenizer) if tokenizer else None
    count = min(options.n, len(split))
    columns = raw.columns(split.source, split.rows[:count])
    rows: list[dict[str, Any]] = []
    for row in range(count):
        item: dict[str, Any] = {
            "row": row,
            "place": raw.place(split.source, int(split.rows[row])),
            "columns": columns[row],
            "texts": [texts[row] for texts in split.texts],
            "label": label_of(data.spec, split.labels[row]),
        }
        if encoded is not None:
            item |= _tokens(data, encoded, row, tokenizer)
        rows.append(item)
    if options.json:
        answer = {
            "task": spec.id,
            "split": options.split,
            "protocol": data.protocol,
            "sizes": dict(data.sizes),
            "fingerprint": data.fingerprint,
            "model": model,
            "rows": rows,
        }
        print(json.dumps(answer, default=str))
        return 0
    sizes = ", ".join(f"{name} {size:,}" for name, size in data.sizes.items())
    print(f"{spec.id}  {spec.kind}, {', '.join(spec.metrics)}; {source_of(spec)}")
    print(f"protocol {data.protocol}: {sizes}")
    for note in data.notes:
        print(f"note: {note}")
    print(f"tokens of {model}" if tokenizer else f"no tokens: {reason}")
    for item in rows:
        print(f"\n{options.split} {item['row']}: {item['label']}   ({item['place']})")
        for name, value in item["columns"].items():
            print(f"  {name} = {_cut(value)}")
        for text in item["texts"]:
            print(f"  > {text}")
        for tokens in item.get("encodings", []):
            cut = ", truncated" if item["truncated"] else ""
            print(f"  {len(tokens)} tokens{cut}: {' '.join(tokens)}")
    return 0


def _tokenizer(options: Namespace, spec: TaskSpec) -> tuple[str, Any, str]:
    """Model, its tokenizer, or why there is none: only one that was asked for must be there."""
    from mtl.cli.tasks import tokenizer_of
    from mtl.errors import MtlError
    from mtl.tasks import suite_for

    asked = options.model or os.environ.get("MTL_MODEL")
    if asked:
        return asked, tokenizer_of(asked), ""
    model = suite_for(spec).model
    try:
        return model, tokenizer_of(model), ""
    except MtlError:
        return model, None, f"{model} cannot be loaded; give --model FOLDER, or --model demo"


def _tokens(data: TaskData, encoded: Encoded, row: int, tokenizer: Any) -> dict[str, Any]:
    """The encodings of a row as tokens: one, one per choice, or one per window."""
    import numpy as np

    windows = encoded.table.get("example")
    rows = [row] if windows is None else np.flatnonzero(windows == row).tolist()
    encodings = [
        tokenizer.convert_ids_to_tokens(ids.tolist())
        for place in rows
        for ids in encoded.tokens(place)
    ]
    first, *rest = (texts[row] for texts in data.splits[encoded.name].texts)
    wholes: list[tuple[str, ...]] = [(first, second) for second in rest] or [(first,)]
    length = max(len(tokenizer(*texts, verbose=False)["input_ids"]) for texts in wholes)
    return {
        "tokens": encodings[0],
        "encodings": encodings,
        "length": int(encoded.lengths[rows[0]]),
        "truncated": length > max(map(len, encodings)),
    }


def label_of(spec: TaskSpec, value: Any) -> Any:
    """A label as people write it: the name, the number, or the names of a set."""
    if spec.kind == "regression":
        return round(float(value), 6)
    if spec.kind == "span_extraction":
        return [int(place) for place in value]
    if value.ndim:
        return [name for name, on in zip(spec.labels, value, strict=True) if on]
    return spec.labels[int(value)]


def _cut(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}… ({len(text):,} characters)"
