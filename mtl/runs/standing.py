"""What a finished run records of how good it is: baselines, constant answers, how far losses fell.

It goes into the manifest's ``training``, outside of the digest: the same run is the same entry,
whatever it is compared with. :mod:`mtl.zoo.quality` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.engine.weighting import loss_weights
from mtl.runs.baselines import Rows, baselines_of
from mtl.zoo.quality import constant_text

if TYPE_CHECKING:
    import torch

    from mtl.engine import Device, EvalSet, Evaluation
    from mtl.runs.run import Run
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec


def standing(
    run: Run,
    workspace: Workspace,
    device: Device,
    sets: Mapping[str, Mapping[str, EvalSet]],
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    events: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """``baselines``: task → :func:`~mtl.runs.baselines.baselines_of`; ``constant``: task → split →
    the one answer given; ``cut``: task → split → :func:`cut_texts`; ``losses``: of one task
    ``constant`` and ``least``.

    Args:
        sets, evaluations: task → split → its rows, and what the run answers.
        events: the run's evaluations while it trained.
    """
    cache = workspace.cache.parent
    found: dict[str, Any] = {
        "baselines": {
            task: baselines_of(Rows(data, sets[task], run.backbone, device, cache))
            for task, data in run.datas.items()
        }
    }
    constant = {
        task: {
            split: said
            for split, answers in splits.items()
            if (said := constant_text(answers.prediction, run.datas[task].spec.labels))
        }
        for task, splits in evaluations.items()
    }
    found["constant"] = {task: splits for task, splits in constant.items() if splits}
    cut = {
        task: {split: told for split, each in splits.items() if (told := cut_texts(each))}
        for task, splits in sets.items()
    }
    found["cut"] = {task: splits for task, splits in cut.items() if splits}
    if not run.joint:
        train = sets[run.task_id]["train"]
        weights = loss_weights(run.settings, {run.task_id: train}).get(run.task_id)
        found["losses"] = losses(train.spec, train.encoded.labels, weights, events)
    return {key: value for key, value in found.items() if value}


def cut_texts(found: EvalSet) -> dict[str, int] | None:
    """``texts`` that lost tokens, ``of`` how many, and ``tokens``, how many were kept at most.

    None where nothing was cut; contexts of spans are read through windows, and lose nothing.
    """
    encoded = found.encoded
    if not encoded.truncated or found.spec.kind == "span_extraction":
        return None
    texts = len(encoded) * encoded.choices
    return {"texts": encoded.truncated, "of": texts, "tokens": int(encoded.lengths.max())}


def losses(
    spec: TaskSpec,
    labels: np.ndarray,
    weights: torch.Tensor | None,
    events: Sequence[Mapping[str, Any]],
) -> dict[str, float] | None:
    """``constant``: the loss of the best answer that ignores the text; ``least``: what was reached.

    Both are needed of the least: a regulariser keeps the training loss up, and rows learned by
    heart bring the dev loss up.
    """
    reached = [
        float(event[key])
        for event in events
        for key in ("train_loss", "dev_loss")
        if event.get(key) is not None
    ]
    constant = constant_loss(spec, labels, None if weights is None else weights.numpy())
    if constant is None or not reached:
        return None
    return {"constant": constant, "least": min(reached)}


def constant_loss(spec: TaskSpec, labels: np.ndarray, weights: np.ndarray | None) -> float | None:
    """The task's mean loss over ``labels`` (n,) or (n,C) at the best constant logits.

    Classes: the entropy of their shares, weighted as the loss is; label sets: the mean of it over
    the labels; a regression: the variance. None for choices and spans, whose places mean nothing,
    and for candidates.
    """
    if spec.kind == "regression":
        return float(np.var(labels.astype(np.float64)))
    if spec.kind == "multilabel":
        having = labels.mean(axis=0, dtype=np.float64)
        masses = np.stack([having * (1 if weights is None else weights), 1 - having])
        return float(np.mean([_entropy(mass) for mass in masses.T]))
    if spec.kind == "classification":
        share = np.bincount(labels.astype(np.int64), minlength=spec.num_outputs) / len(labels)
        return _entropy(share if weights is None else share * weights)
    return None


def _entropy(mass: np.ndarray) -> float:
    """What the mass costs at the best constant answer: Σ m · −ln(m / Σm)."""
    mass = mass[mass > 0].astype(np.float64)
    return float((mass * -np.log(mass / mass.sum())).sum())
