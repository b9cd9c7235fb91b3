"""Two entries side by side: what was asked for, what came out, how far the weights are apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import ZooError
from mtl.zoo.arrays import read_arrays
from mtl.zoo.caveats import stated
from mtl.zoo.composition import FILE, as_used, layer_of
from mtl.zoo.expected_shapes import LAYER
from mtl.zoo.names import TENSOR_SUFFIX, is_derived, predictions_of
from mtl.zoo.predictions import read_predictions

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry

SECTIONS = (
    "kind", "weights", "base", "task", "suite", "method", "method_settings", "run_settings", "seed",
    "data", "head", "placement", "training", "versions", "parents",
)  # fmt: skip
"""What is compared as settings; times, the command and the metrics have places of their own."""
_BESIDE = {"baselines", "constant", "cut", "losses"}


@dataclass(frozen=True)
class Distance:
    """How far two groups of tensors are apart.

    Attributes:
        group: ``layer 3``, ``head``, ``shared`` or ``all``.
        values: how many numbers were compared.
        relative: ‖a − b‖ / (½ (‖a‖ + ‖b‖)): 0 for equal, about 1.4 for unrelated vectors of one
            length.
        cosine: a·b / (‖a‖ ‖b‖), None where one of them is zero.
        largest: max |a − b|.
    """

    group: str
    values: int
    relative: float
    cosine: float | None
    largest: float


@dataclass(frozen=True)
class Distances:
    """Distances per group, over everything, and the tensors that only one side has (or shapes)."""

    groups: tuple[Distance, ...]
    whole: Distance | None
    only: Mapping[str, str]


def diff(one: Entry, other: Entry) -> dict[str, Any]:
    """Everything in which two entries differ, as JSON.

    Returns:
        ``settings``: dotted key → [one, other], where they differ (None where a side has none);
        ``metrics``: split.metric → {"a", "b", "difference", "stderr", "caveat"};
        ``predictions``: {"n", "equal"} where both answered the same examples, else None;
        ``weights``: see :class:`Distances`; ``same_digest``.

    Raises:
        ZooError: a file of one of them is damaged or gone.
    """
    found = distances(one, other)
    return {
        "a": one.ref,
        "b": other.ref,
        "same_digest": one.digest == other.digest,
        "settings": settings(one, other),
        "metrics": metrics(one, other),
        "predictions": predictions(one, other),
        "weights": {
            "groups": [asdict(group) for group in found.groups],
            "all": asdict(found.whole) if found.whole else None,
            "only": dict(found.only),
        },
    }


def settings(one: Entry, other: Entry) -> dict[str, list[Any]]:
    """Dotted key → the two values, where they differ."""
    flat = []
    for entry in (one, other):
        whole = entry.manifest.to_dict()
        # what a run is compared with is none of its settings
        kept = {k: v for k, v in whole["training"].items() if k not in _BESIDE}
        values = dict(_flatten({**{key: whole[key] for key in SECTIONS}, "training": kept}))
        values.pop("training.seconds", None)
        flat.append(values)
    keys = dict.fromkeys((*flat[0], *flat[1]))
    return {
        key: [flat[0].get(key), flat[1].get(key)]
        for key in keys
        if flat[0].get(key, flat) != flat[1].get(key, flat)
    }


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def metrics(one: Entry, other: Entry) -> dict[str, dict[str, Any]]:
    """Every metric that both have; ``stderr`` is that of the difference of independent results.

    ``caveat`` is that of one of them, where there is one.
    """
    found: dict[str, dict[str, Any]] = {}
    for split, values in one.manifest.metrics.items():
        for name in values:
            item, match = stated(one, split, name), stated(other, split, name)
            if item is None or match is None:
                continue
            a, b = item["value"], match["value"]
            known = a is not None and b is not None
            errors = (item["stderr"], match["stderr"])
            found[f"{split}.{name}"] = {
                "a": a,
                "b": b,
                "difference": b - a if known else None,
                "stderr": None if None in errors else math.hypot(*errors),
                "caveat": item.get("caveat") or match.get("caveat"),
            }
    return found


def predictions(one: Entry, other: Entry) -> dict[str, Any] | None:
    """How many answers on the test split are equal, where both answered the same examples.

    Of joint entries: over all tasks that both answered so.
    """
    n, equal = 0, 0
    found = False
    for name in sorted(set(one.files) & set(other.files)):
        if (predictions_of(name) or ("", ""))[0] != "test":
            continue
        a, b = read_predictions(one.folder, name), read_predictions(other.folder, name)
        if (
            a.label.shape != b.label.shape
            or not np.array_equal(a.row, b.row)
            or not np.allclose(a.label, b.label)
        ):
            continue
        same = a.prediction == b.prediction
        if same.ndim > 1:
            same = same.all(axis=1)
        found, n, equal = True, n + len(a.row), equal + int(same.sum())
    if not found:
        return None
    return {"n": n, "equal": equal / n if n else 1.0}


def weight_bytes(entry: Entry) -> int:
    """Bytes of the tensor files that :func:`distances` reads."""
    return sum(entry.files[name]["bytes"] for name in _weight_files(entry))


def distances(one: Entry, other: Entry) -> Distances:
    """Distances of the weights, per layer; tensors are paired by file and name.

    The adapters' own names, which differ between tasks, count as equal. omega is compared as it
    enters the sum, normalised where the settings say so.

    Raises:
        ZooError: a file is damaged or gone.
    """
    a, b = _weights(one), _weights(other)
    only = {
        name: "shape" if name in a and name in b else ("a" if name in a else "b")
        for name in sorted({*a, *b})
        if name not in a or name not in b or a[name].shape != b[name].shape
    }
    groups: dict[str, list[str]] = {}
    for name in a:
        if name not in only:
            groups.setdefault(_group(name), []).append(name)
    found = [_distance(group, names, a, b) for group, names in groups.items()]
    found.sort(key=lambda item: (not item.group.startswith("layer"), _layer(item.group)))
    whole = _distance("all", [n for names in groups.values() for n in names], a, b)
    return Distances(tuple(found), whole if groups else None, only)


def _distance(
    group: str, names: list[str], a: Mapping[str, NDArray[Any]], b: Mapping[str, NDArray[Any]]
) -> Distance:
    count, gap, dot, squares, largest = 0, 0.0, 0.0, [0.0, 0.0], 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # told as infinite, or not a number
        for name in names:
            x, y = a[name].ravel().astype(np.float64), b[name].ravel().astype(np.float64)
            count += x.size
            gap += float(((x - y) ** 2).sum())
            dot += float(x @ y)
            squares = [squares[0] + float(x @ x), squares[1] + float(y @ y)]
            largest = max(largest, float(np.abs(x - y).max(initial=0.0)))
    lengths = [math.sqrt(value) for value in squares]
    mean, product = sum(lengths) / 2, lengths[0] * lengths[1]
    relative = math.sqrt(gap) / mean if mean else 0.0
    cosine = max(-1.0, min(1.0, dot / product)) if product and math.isfinite(product) else None
    return Distance(group, count, relative, cosine, largest)


def _group(name: str) -> str:
    file, _, tensor = name.partition(":")
    found = LAYER.search(tensor)
    layer = int(found[1]) if found else layer_of(tensor) if file == FILE else None
    if layer is not None:
        return f"layer {layer}"
    return "head" if "model_head" in name else "shared"


def _layer(group: str) -> int:
    number = group.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def _weight_files(entry: Entry) -> list[str]:
    return [name for name in entry.files if name.endswith(TENSOR_SUFFIX) and not is_derived(name)]


def _weights(entry: Entry) -> dict[str, NDArray[Any]]:
    own = entry.manifest.head.get("name")
    found = {}
    for file in _weight_files(entry):
        try:
            arrays = read_arrays(entry.folder / file)
        except FileNotFoundError as error:
            raise ZooError(f"{entry.ref}: {file} is missing.") from error
        if file == FILE:
            arrays = as_used(arrays, entry.manifest)
        for name, value in arrays.items():
            if isinstance(own, str) and own:
                name = f".{name}.".replace(f".{own}.", ".*.").strip(".")
            found[f"{file}:{name}"] = value
    return found
