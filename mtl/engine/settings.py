"""Settings of a run: everything about training that is not the method's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mtl.engine.lengths import read_length, write_length
from mtl.errors import RequestError, did_you_mean
from mtl.tasks.class_weights import BALANCED, NONE

NOT_IN_IDENTITY = ("eval_batch_size", "eval_tokens")
"""Settings that say how, not what, is computed; they are recorded but not part of a run's hash."""
LENGTHS = {
    "patience": (("evaluations", "epochs", "steps"), "evaluations", int),
    "warmup": (("steps",), "share", float),
}
"""Settings that are lengths of training: the units to write them in, that of a number, its type."""
LAST = "last"
"""The value of ``select`` with which no evaluation picks a state."""
LATER = (
    *("shots", "shot_draw", "max_dev_samples", "adam_form", "max_length"),
    *("shots_per_class", "sample", "group_by", "class_weights", "pair", "base_precision"),
    "init_from",
)
"""Settings younger than the first entries of zoos; left out where they have their default, which
is what those entries trained with, so that hashes stay equal."""


LIMITS = ("max_train_samples", "max_eval_samples", "max_dev_samples", "shots", "shots_per_class")
"""Settings that limit how many rows are used."""
ROW_SETTINGS = (*LIMITS, "shot_draw", "sample", "group_by")
"""Settings that say which rows are used."""
FIRST, DRAWN = "first", "drawn"
"""Values of ``sample``."""

SELECTS = ("loss", "metric", LAST)
"""What selects in every task; beside them, a metric by its name."""


@dataclass(frozen=True)
class RunSettings:
    """Training settings; defaults are those of single-task adapters in the ScaLearn protocol.

    Attributes:
        lr: peak learning rate (groups of a method may multiply it).
        epochs: passes over the training data; ignored when ``max_steps`` is given.
        max_steps: optimiser steps instead of epochs, 0 to go by epochs.
        batch_size: examples per optimiser step, over all processes.
        micro_batch_size: examples per forward pass at most, 0 for no limit; same gradient, other
            dropout.
        piece_overhead: a batch is cut into pieces of like length where that saves more padding than
            this many tokens per piece; same gradient, other dropout. 0 cuts wherever padding is
            saved, a large number never; -1 goes by device and hidden size (mtl/engine/passes.py).
        eval_batch_size: examples per forward pass in evaluation at most, 0 for no limit.
        eval_tokens: tokens per forward pass in evaluation at most, padding included; 0 for 2,048 on
            a CPU, 32,768 elsewhere.
        warmup: share of the steps in which the rate rises linearly from 0, or their number
            (``"100 steps"``); it then falls to 0.
        weight_decay: decoupled decay, never on biases, normalisation or omega.
        adam_form: ``torch`` for ``torch.optim.AdamW``; ``hf`` for the Hugging Face library's form,
            with which the references trained: its eps is not corrected for bias.
        clip: largest global gradient norm, 0 for no clipping.
        patience: how long nothing may improve before an evaluation ends training: ``"5 epochs"``,
            ``"20 steps"``, or a bare number of evaluations, however far ``eval_every`` puts them
            apart; 0 for never.
        select: which state is kept: the one of the best dev ``loss``, headline ``metric`` or metric
            by name, such as ``f1``, or the ``last`` one, whatever the dev set says of it (patience
            is 0 then).
        eval_every: steps between evaluations, 0 for one per epoch.
        max_length: tokens per encoding at most, 0 for the task's own.
        pair: how two texts become one, ``"{first} | {second}"``; empty for the task's own template,
            and where that has none, for the tokenizer's.
        max_train_samples: use only N training examples, 0 for all.
        max_eval_samples: use only N dev and test examples, 0 for all.
        max_dev_samples: use only N dev examples, 0 for all; the test stays whole.
        shots: train on this many rows of the training part (few-shot), 0 for all.
        shots_per_class: train on this many rows of every class, 0 for all.
        shot_draw: which rows: 0 for the first ones (the ScaLearn paper's single draw), 1, 2, …
            for random draws; of one draw, fewer shots are a part of more.
        sample: how these limits take rows: ``first`` ones, as the papers do, or ``drawn`` by class;
            the suite's, ``drawn`` for tasks of nobody's suite.
        group_by: a column; rows with one value of it stand on one side of a hold-out. Empty for the
            task's own.
        class_weights: ``balanced``: in the loss (that of dev, too) rare classes count as much as
            frequent ones, of multi-label tasks each label's rows as much as the others; ``none``.
        precision: ``fp32``, ``bf16`` (autocast; on CPUs with AVX512-BF16 or AMX about twice as fast
            as fp32, on others slower), or ``auto``: bf16 where a GPU has it.
        base_precision: in what the frozen base is held, adapters and heads being fp32: ``fp32``,
            ``bf16`` (half the memory), or ``nf4`` (a quarter of that; bitsandbytes, on a GPU).
        head: a name in ``mtl.backbone.HEADS``: ``two_layer``, ``linear``, ``pooler_linear``,
            ``mean``, …
        init_from: the adapter of the zoo that a new one begins as, to be trained on: a task, or a
            reference; the head is new. Only of stage one; empty for weights that are drawn.
    """

    lr: float = 3e-4
    epochs: int = 30
    max_steps: int = 0
    batch_size: int = 32
    micro_batch_size: int = 0
    piece_overhead: int = -1
    eval_batch_size: int = 0
    eval_tokens: int = 0
    warmup: float | str = 0.0
    weight_decay: float = 0.0
    adam_form: str = "torch"
    clip: float = 1.0
    patience: int | str = "5 epochs"
    select: str = "loss"
    eval_every: int = 0
    max_length: int = 0
    pair: str = ""
    max_train_samples: int = 0
    max_eval_samples: int = 0
    max_dev_samples: int = 0
    shots: int = 0
    shots_per_class: int = 0
    shot_draw: int = 0
    sample: str = FIRST
    group_by: str = ""
    class_weights: str = NONE
    precision: str = "auto"
    base_precision: str = "fp32"
    head: str = "two_layer"
    init_from: str = ""

    def __post_init__(self) -> None:
        problems = []
        for name in ("lr", "epochs", "batch_size"):
            if not getattr(self, name) > 0:
                problems.append(f"{name}={getattr(self, name)} must be above 0")
        for name in (
            "max_steps",
            "micro_batch_size",
            "eval_batch_size",
            "eval_tokens",
            "weight_decay",
            "clip",
            "eval_every",
            "max_length",
            "shot_draw",
            *LIMITS,
        ):
            if not getattr(self, name) >= 0:
                problems.append(f"{name}={getattr(self, name)} must not be negative")
        for name, (units, bare, kind) in LENGTHS.items():
            try:
                number, unit = read_length(getattr(self, name), units, bare, kind)
                if number < 0 or (unit == "share" and number >= 1):
                    limit = "from 0 to below 1" if unit == "share" else "not negative"
                    raise ValueError(f"must be {limit}")
                object.__setattr__(self, name, write_length(number, unit, bare))
            except ValueError as error:
                problems.append(f"{name}={getattr(self, name)!r} {error}")
        choosing = [
            f"{name}={getattr(self, name)}"
            for name in ("shots", "shots_per_class", "max_train_samples")
            if getattr(self, name)
        ]
        if len(choosing) > 1:
            problems.append(
                f"{' and '.join(choosing)} both choose the training rows; give one of them"
            )
        if self.sample not in {FIRST, DRAWN}:
            problems.append(f"sample={self.sample!r} must be {FIRST!r} or {DRAWN!r}")
        if self.shot_draw and not (self.shots or self.shots_per_class):
            problems.append(f"shot_draw={self.shot_draw} says which shots: give shots=…, too")
        if self.piece_overhead < -1:
            problems.append(
                f"piece_overhead={self.piece_overhead} must be -1 (by device and hidden size) or "
                "not negative"
            )
        if self.select == LAST and self.patience:
            problems.append(
                f"patience={self.patience} waits for a better state, and select={LAST} trains to "
                "the end and keeps the last: give patience=0, or select=loss or metric"
            )
        if self.adam_form not in {"torch", "hf"}:
            problems.append(f"adam_form={self.adam_form!r} must be 'torch' or 'hf'")
        if 0 < self.max_length < 8:
            problems.append(f"max_length={self.max_length} must be at least 8, or 0")
        if self.pair:
            from mtl.tasks.spec import pair_parts

            try:
                pair_parts(self.pair)
            except ValueError as error:
                problems.append(f"pair {error}")
        if self.select not in SELECTS:
            from mtl.tasks.metrics import METRICS

            if self.select not in METRICS:
                guess = did_you_mean(self.select, [*SELECTS, *METRICS])
                problems.append(
                    f"select={self.select!r} must be {', '.join(SELECTS)} or a task's metric{guess}"
                )
        if self.class_weights not in {NONE, BALANCED}:
            guess = did_you_mean(self.class_weights, [NONE, BALANCED])
            problems.append(
                f"class_weights={self.class_weights!r} must be {BALANCED!r} or {NONE!r}{guess}"
            )
        if self.precision not in {"auto", "fp32", "bf16"}:
            problems.append(f"precision={self.precision!r} must be 'auto', 'fp32' or 'bf16'")
        if self.base_precision not in {"fp32", "bf16", "nf4"}:
            problems.append(
                f"base_precision={self.base_precision!r} must be 'fp32', 'bf16' or 'nf4'"
            )
        if problems:
            raise RequestError("These run settings cannot be used: " + "; ".join(problems) + ".")

    def waited(self, evaluations: int, steps: int, batches: int) -> bool:
        """Whether patience ends training.

        Args:
            evaluations, steps: since the best one.
            batches: optimiser steps of an epoch.
        """
        length, unit = read_length(self.patience, *LENGTHS["patience"])
        been = {"evaluations": evaluations, "steps": steps, "epochs": steps / max(batches, 1)}
        return bool(length) and been[unit] >= length

    def warmup_steps(self, steps: int) -> int:
        """In how many of ``steps`` the rate rises; a share of them is rounded up."""
        length, unit = read_length(self.warmup, *LENGTHS["warmup"])
        return int(length) if unit == "steps" else int(length * steps + 0.999999)

    def to_dict(self) -> dict[str, Any]:
        """All settings, as manifests record them (:data:`LATER` ones where they are set).

        How rows are sampled says nothing where no limit takes some.
        """
        usual = {item.name: item.default for item in fields(self) if item.name in LATER}
        if not any(getattr(self, name) for name in LIMITS):
            usual["sample"] = self.sample
        return {k: v for k, v in asdict(self).items() if k not in usual or v != usual[k]}

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, as a run's hash covers them."""
        return {k: value for k, value in self.to_dict().items() if k not in NOT_IN_IDENTITY}


@dataclass(frozen=True)
class Training:
    """How a method's paper trains it; applies below every recipe, and alone with ``none``.

    Attributes:
        source: where the values stand, or why there are none.
        values: run settings that differ from the defaults of :class:`RunSettings`.
    """

    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
