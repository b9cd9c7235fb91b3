"""Is a result any good? What stands beside it, and what has to be said of it, from its manifest.

``training.baselines`` (task → :func:`mtl.runs.baselines.baselines_of`), ``training.constant``,
``training.cut`` and ``training.losses`` are recorded by :mod:`mtl.runs.standing`; entries of before
have none, of which only constant answers are still seen, in the predictions that they store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.errors import MtlError

if TYPE_CHECKING:
    import numpy as np

    from mtl.zoo.entry import Entry
    from mtl.zoo.manifest import Manifest

TITLES = {"majority": "majority", "tfidf": "TF-IDF", "probe": "probe"}
"""Baselines in their order, as tables call them."""
HARDLY = 0.1
"""Training that brings the loss down by less than this share of that of a constant answer has
hardly moved it."""
CUT = 0.1
"""Share of the texts of a split that are cut from which this has to be said."""
SMALL = 512
"""Encoders up to this hidden size are small: rates made for width 768 are too low for them."""
RECIPE = "small"
"""The recipe for small encoders."""


def constant_text(prediction: np.ndarray, labels: Sequence[str]) -> str | None:
    """The one answer that all rows got, in words; None where two differ, or of a single row.

    Args:
        prediction: (n,) classes or values, (n,C) label sets; spans are left out.
        labels: names of the classes.
    """
    if len(prediction) < 2 or (prediction != prediction[0]).any():
        return None
    first = prediction[0]
    if prediction.ndim == 2:
        if prediction.shape[1] != len(labels):
            return None
        return "{" + ", ".join(n for n, v in zip(labels, first, strict=True) if v) + "}"
    if prediction.dtype.kind == "f":
        return f"{float(first):.4g}"
    place = int(first)
    return str(labels[place]) if 0 <= place < len(labels) else str(place)


def constant_of(entry: Entry) -> str | None:
    """The one answer that an entry of one task gives to every test row, or None."""
    from mtl.zoo.predictions import read_predictions

    manifest = entry.manifest
    if "baselines" in manifest.training or manifest.kind == "joint":
        return _constant(manifest)
    labels = manifest.task.get("labels")
    try:
        stored = read_predictions(entry.folder)
    except (MtlError, OSError, ValueError):
        return None  # fsck names it
    return constant_text(stored.prediction, list(map(str, labels or ())))


def _constant(manifest: Manifest, task: str | None = None, split: str = "test") -> str | None:
    found = _mapping(_mapping(manifest.training, "constant"), task or manifest.task["id"])
    said = found.get(split)
    return str(said) if said is not None else None


def baselines(manifest: Manifest, task: str | None = None) -> Mapping[str, Any]:
    """The record of one task's baselines; empty where there is none."""
    return _mapping(_mapping(manifest.training, "baselines"), task or manifest.task["id"])


def headlines(manifest: Manifest) -> dict[str, str]:
    """Task → headline metric: of an entry, or of each task of a joint one."""
    listed = manifest.task.get("tasks") if manifest.kind == "joint" else [manifest.task]
    found = [item for item in listed if isinstance(item, dict)] if type(listed) is list else []
    return {str(item["id"]): str(item.get("headline")) for item in found if "id" in item}


def beside(
    manifest: Manifest, split: str = "test", task: Mapping[str, Any] | None = None
) -> dict[str, Mapping[str, Any]]:
    """Baseline → summary of the headline metric on a split.

    Args:
        task: of a joint manifest, one of its ``task.tasks``.
    """
    task = task or manifest.task
    scores = _mapping(baselines(manifest, task["id"]), "scores")
    found = {}
    for name in TITLES:
        splits = _mapping(_mapping(scores, name), "splits")
        item = _mapping(_mapping(splits, split), task["headline"])
        if item:
            found[name] = item
    return found


PHRASES = {
    "constant": "every test row got the same answer",
    "majority": "no better than an answer that ignores the text, by more than the standard error",
    "probe": "below a linear model on the same frozen base",
    "losses": "training hardly moved the loss",
}
"""Kinds of findings, as a line over several seeds says them; cut texts are said as they are."""


def findings(manifest: Manifest, constant: str | None = None) -> dict[str, str]:
    """What has to be said of a result on test: kind → sentence, of an entry of one task.

    Args:
        constant: what :func:`constant_of` says; None for what the manifest says.
    """
    if manifest.kind == "joint":
        return {}
    said = {}
    cut = cut_text(manifest)
    if cut:
        said["cut"] = cut
    constant = constant or _constant(manifest)
    headline = manifest.task["headline"]
    item = _mapping(_mapping(manifest.metrics, "test"), headline)
    others = beside(manifest)
    majority, probe = others.get("majority", {}), others.get("probe", {})
    if constant is not None:
        said["constant"] = f"{PHRASES['constant']}, {constant}"
    elif _number(majority, "value", least=None) and not _above(item, majority, item):
        what = _mapping(_mapping(baselines(manifest), "scores"), "majority").get("says")
        said["majority"] = (
            f"test {headline} {item['value']:.4f} does not beat the answer that ignores the text "
            f"({what}: {majority['value']:.4f}) by more than its standard error "
            f"({item.get('stderr') or 0:.4f})"
        )
    if _above(probe, item, probe):
        said["probe"] = (
            f"a linear model on the same frozen base has test {headline} {probe['value']:.4f}, "
            f"more than its {item['value']:.4f}"
        )
    moved = None if _nearly_all(item, majority) else hardly_moved(manifest)
    return {**said, "losses": moved} if moved else said


def remarks(manifest: Manifest, constant: str | None = None) -> list[str]:
    """:func:`findings` as sentences, the last one with what to change; of a joint entry by task."""
    if manifest.kind == "joint":
        return list(_of_joint(manifest))
    found = findings(manifest, constant)
    said = list(found.values())
    if not found.keys() - {"cut"}:
        return said
    return [*said[:-1], f"{said[-1]}: try {advice(manifest)}"]


def beside_text(values: Mapping[str, Any]) -> str:
    """``majority 0.5000, TF-IDF 0.5075``: values of baselines by name."""
    return ", ".join(
        f"{TITLES[name]} {'–' if value is None else format(value, '.4f')}"
        for name, value in values.items()
    )


def _of_joint(manifest: Manifest) -> Iterator[str]:
    for task in _mapping(manifest.training, "cut"):
        if cut := cut_text(manifest, str(task)):
            yield f"{task}: {cut}"
    for task, splits in _mapping(manifest.training, "constant").items():
        if isinstance(splits, Mapping) and "test" in splits:
            yield f"every test row of {task} got the same answer, {splits['test']}"


def cut_text(manifest: Manifest, task: str | None = None) -> str | None:
    """That texts of a task were cut at the length that was read, in words, or None.

    Of the splits of which :data:`CUT` of the texts were, or more.
    """
    splits = _mapping(_mapping(manifest.training, "cut"), task or manifest.task["id"])
    parts, kept = [], 0
    for split in ("train", "dev", "test"):
        found = _mapping(splits, split)
        known = all(type(found.get(key)) is int for key in ("texts", "of", "tokens"))
        if known and found["texts"] >= CUT * found["of"] > 0:
            parts.append(f"{found['texts']:,} of {found['of']:,} {split}")
            kept = max(kept, found["tokens"])
    if not parts:
        return None
    return (
        f"{', '.join(parts)} texts were cut at {kept} tokens, and nothing behind was read "
        "(max_length of the task, --max-length, and what the base takes)"
    )


def _above(one: Mapping[str, Any], other: Mapping[str, Any], of: Mapping[str, Any]) -> bool:
    """Whether a summary is better than another by more than the standard error of ``of``."""
    if not _number(one, "value", least=None) or not _number(other, "value", least=None):
        return False
    return bool(one["value"] - other["value"] > (of.get("stderr") or 0.0))


def _nearly_all(item: Mapping[str, Any], majority: Mapping[str, Any]) -> bool:
    """Whether a result is nine tenths of the way from the majority's to 1: it learned, whatever
    its loss, which says how large its scores are, too.
    """
    if not _number(item, "value", least=None) or not _number(majority, "value", least=None):
        return False
    return bool(item["value"] >= 0.9 + 0.1 * majority["value"])


def hardly_moved(manifest: Manifest) -> str | None:
    """That training hardly moved the loss, in words, or None.

    Measured against the loss of always answering with the shares of the classes (the mean of a
    regression), which knows nothing of the texts: the least loss that an evaluation saw, in
    training or on dev, is not below 1 − :data:`HARDLY` of it.
    """
    found = _mapping(manifest.training, "losses")
    constant, least = found.get("constant"), found.get("least")
    if not isinstance(constant, float) or not isinstance(least, float):
        return None
    if constant <= 0 or least < (1 - HARDLY) * constant:
        return None
    return (
        f"training hardly moved the loss: it reached {least:.4f}, and an answer that ignores the "
        f"text has {constant:.4f}"
    )


def advice(manifest: Manifest) -> str:
    """What to change, with what it was: rate, epochs, and the recipe for small encoders."""
    settings = manifest.run_settings
    text = f"a higher --lr (it was {settings.get('lr'):g})" if _number(settings, "lr") else "--lr"
    if _number(settings, "max_steps"):
        text += f", more --max-steps ({settings['max_steps']})"
    else:
        text += f", more --epochs ({settings.get('epochs')})"
    rate = small_rate(manifest.method, manifest.base["hidden_size"])
    if rate is not None and _number(settings, "lr") and settings["lr"] < rate:
        text += f", or --recipe {RECIPE} (lr {rate:g})"
    return text


def small_rate(method: str, hidden_size: int) -> float | None:
    """The rate of recipe ``small`` for a method on a small encoder; None for others."""
    from mtl.tasks import load_recipe

    if hidden_size > SMALL:
        return None
    try:
        recipe = load_recipe(RECIPE)
        found = recipe.settings(method, "").get("lr") if recipe.names(method) else None
    except MtlError:  # no such file in a package of somebody else's
        return None
    return float(found) if isinstance(found, int | float | str) else None


def _number(item: Mapping[str, Any], key: str, least: float | None = 0.0) -> bool:
    """Whether ``key`` holds a number, above ``least`` where one is given."""
    value = item.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and (least is None or (value is not None and value > least))


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    """The object under ``key``, or an empty one: manifests come from strangers, too."""
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}
