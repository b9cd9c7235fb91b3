"""Split protocols: from the official splits of a dataset to train, dev and test.

============  ==========================================================================
protocol      splits
============  ==========================================================================
``scalearn``  dev = 10 % of the official train (seed 42, by class unless the task says no);
              test = the official validation (Frohmann et al. 2024, arXiv:2310.01217)
``sora``      small tasks: dev and test are halves of the official validation; large ones:
              dev = 1,000 of train, test = validation (Ding et al. 2023, arXiv:2311.11696)
``official``  train, dev and test as they are given, all three
``holdout``   train, dev and test as they are given; of dev and test, what is missing is
              held out of train: a test of 10 %, then a dev of 10 % (seed 42, by class,
              and a row of every class that has one to spare)
``holdout-1`` the same before it saw to rare classes: for entries of then
============  ==========================================================================

A protocol works on labels and row numbers only; it never sees the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import RequestError
from mtl.registry import Registry
from mtl.tasks.kinds import KINDS

if TYPE_CHECKING:
    from mtl.tasks.spec import TaskSpec

SEED = 42
"""The seed of both papers' splits; the same for every seed of a run."""
SORA_LARGE = ("qqp", "qnli", "sst2", "record")
SORA_SMALL = (
    *("cola", "wnli", "rte", "mrpc", "stsb", "mnli"),
    *("cb", "copa", "multirc", "wic", "wsc", "boolq"),
)


@dataclass(frozen=True)
class Part:
    """Rows of an official split: all of them where ``rows`` is None, in the order given."""

    source: str
    rows: np.ndarray | None = None


Labels = Callable[[str], np.ndarray]
"""Name of an official split → its labels."""
Protocol = Callable[["TaskSpec", Sequence[str], Labels], Mapping[str, Part]]

PROTOCOLS: Registry[Protocol] = Registry("split protocol")


def main_test(spec: TaskSpec, splits: Sequence[str], default: Sequence[str]) -> str:
    """The official split that is the main test: the spec's first, else the first of ``default``."""
    if spec.test:
        return next(iter(spec.test.values()))
    return _first(spec, splits, default)


def _first(spec: TaskSpec, splits: Sequence[str], wanted: Sequence[str]) -> str:
    for name in wanted:
        if name in splits:
            return name
    raise RequestError(
        f"Task {spec.id!r}: its data have none of the splits {', '.join(wanted)}; they have "
        f"{', '.join(splits) or 'none at all'}. Choose another --protocol, or complete the data."
    )


def holdout(
    labels: np.ndarray, share: float, *, stratify: bool, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of (the rest, the held-out ``share``), drawn by ``datasets`` with seed 42.

    Raises:
        RequestError: too few rows to hold something out of every class.
    """
    import datasets
    import pyarrow as pa

    features = {"id": datasets.Value("int64")}
    columns = {"id": pa.array(np.arange(len(labels)))}
    if stratify:
        features["label"] = datasets.ClassLabel(num_classes=int(labels.max()) + 1)
        columns["label"] = pa.array(labels.astype(np.int64))
    table = pa.table(columns).cast(datasets.Features(features).arrow_schema)
    try:
        parts = datasets.Dataset(table).train_test_split(
            test_size=share,
            shuffle=True,
            seed=SEED,
            stratify_by_column="label" if stratify else None,
            keep_in_memory=True,
        )
    except ValueError as error:
        counts = np.bincount(labels).tolist() if stratify else [len(labels)]
        raise RequestError(
            f"{where}: {share:.0%} of {len(labels)} training rows (per class: {counts}) cannot be "
            f"held out as dev: {error} Add rows, set stratify: false in the task, or choose "
            "--protocol official."
        ) from error
    rest, held = (parts[name].with_format("numpy")["id"][:] for name in ("train", "test"))
    return rest, held


@PROTOCOLS.register("scalearn")
def scalearn(spec: TaskSpec, splits: Sequence[str], labels: Labels) -> Mapping[str, Part]:
    """dev = 10 % of train (or the split that the task names), test = official validation."""
    train = _first(spec, splits, ("train",))
    if spec.dev is not None:
        # ReCoRD in the ScaLearn paper: selection and test on the same rows.
        test = main_test(spec, splits, ("validation", "dev"))
        return {"train": Part(train), "dev": Part(spec.dev), "test": Part(test)}
    stratify = spec.stratify and KINDS.get(spec.kind).classes
    rest, dev = holdout(labels(train), 0.1, stratify=stratify, where=f"Task {spec.id!r}")
    test = main_test(spec, splits, ("validation", "dev"))
    return {"train": Part(train, rest), "dev": Part(train, dev), "test": Part(test)}


@PROTOCOLS.register("sora")
def sora(spec: TaskSpec, splits: Sequence[str], labels: Labels) -> Mapping[str, Part]:
    """Small tasks halve the official validation; large ones take 1,000 training rows as dev.

    Which is which goes by the task's name, as in the paper's code (MNLI is small there).
    """
    train = _first(spec, splits, ("train",))
    test = main_test(spec, splits, ("validation", "dev"))
    if spec.name in SORA_LARGE:
        order = _permutation(len(labels(train)))
        if len(order) <= 1000:
            raise RequestError(
                f"Task {spec.id!r}: protocol sora takes 1,000 training rows as dev, and there are "
                f"only {len(order)}. Choose another --protocol."
            )
        return {
            "train": Part(train, order[1000:]),
            "dev": Part(train, order[:1000]),
            "test": Part(test),
        }
    if spec.name not in SORA_SMALL:
        raise RequestError(
            f"Task {spec.id!r}: protocol sora is defined for {', '.join(SORA_SMALL)} and "
            f"{', '.join(SORA_LARGE)} only. Choose another --protocol."
        )
    order = _permutation(len(labels(test)))
    half = len(order) // 2
    parts = {
        "train": Part(train),
        "dev": Part(test, order[:half]),
        "test": Part(test, order[half:]),
    }
    for name, split in list((spec.test or {}).items())[1:]:
        if split in splits:
            other = _permutation(len(labels(split)))
            parts[f"test_{name}"] = Part(split, other[len(other) // 2 :])
    return parts


def _permutation(rows: int) -> np.ndarray:
    import torch

    return torch.randperm(rows, generator=torch.Generator().manual_seed(SEED)).numpy()


@PROTOCOLS.register("official")
def official(spec: TaskSpec, splits: Sequence[str], labels: Labels) -> Mapping[str, Part]:
    """The splits as they are given.

    No split stands in for another: a test on the rows that selected the model is no test.
    """
    train = _first(spec, splits, ("train",))
    dev = main_test(spec, splits, ("validation", "dev"))
    return {"train": Part(train), "dev": Part(dev), "test": Part(_first(spec, splits, ("test",)))}


def holdout_of_every_class(
    labels: np.ndarray, share: float, *, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`holdout` by class, and of every class with two rows or more one in each part.

    The draw is that of :func:`holdout`; where it leaves out a class, as shares below one row do,
    the first row of that class in the shuffled rest is held out, too. Classes of a single row stay
    in the rest: a model cannot be tested on what it never saw.

    Raises:
        RequestError: too few rows to hold something out of every class.
    """
    number, counts = np.unique(labels, return_counts=True)
    single = np.isin(labels, number[counts < 2])
    several = np.flatnonzero(~single)
    if not len(several):  # nothing to stratify: the error says so
        return holdout(labels, share, stratify=True, where=where)
    rest, held = holdout(labels[several], share, stratify=True, where=where)
    rest, held = several[rest], several[held]
    missing = [c for c in number[counts > 1] if c not in labels[held]]
    moved = np.array([rest[labels[rest] == c][0] for c in missing], dtype=rest.dtype)
    rest = rest[~np.isin(rest, moved)]
    return np.concatenate([rest, np.flatnonzero(single)]), np.concatenate([held, moved])


@PROTOCOLS.register("holdout-1")
def held_out_as_before(spec: TaskSpec, splits: Sequence[str], labels: Labels) -> Mapping[str, Part]:
    """``holdout`` as it was: a class with few rows may be in one of the parts only."""
    return _held_out(spec, splits, labels, every_class=False)


@PROTOCOLS.register("holdout")
def held_out(spec: TaskSpec, splits: Sequence[str], labels: Labels) -> Mapping[str, Part]:
    """The splits as they are given; a missing test, then a missing dev, is held out of train.

    Rows are those of ``holdout-1`` wherever that kept a row of every class in every part.
    """
    return _held_out(spec, splits, labels, every_class=True)


def _held_out(
    spec: TaskSpec, splits: Sequence[str], labels: Labels, *, every_class: bool
) -> Mapping[str, Part]:
    train = _first(spec, splits, ("train",))
    rows = np.arange(len(labels(train)))
    parts: dict[str, Part] = {}
    for name, given in (("test", ("test",)), ("dev", ("validation", "dev"))):
        found = next((split for split in given if split in splits), None)
        if found is not None:
            parts[name] = Part(found)
            continue
        stratify = spec.stratify and spec.kind == "classification"
        where = f"Task {spec.id!r}, {name}"
        if stratify and every_class:
            rest, held = holdout_of_every_class(labels(train)[rows], 0.1, where=where)
        else:
            rest, held = holdout(labels(train)[rows], 0.1, stratify=stratify, where=where)
        rows, parts[name] = rows[rest], Part(train, rows[held])
    return {"train": Part(train, rows), "dev": parts["dev"], "test": parts["test"]}
