"""Prediction heads: our modules, stored in the format of ``adapters``' flexible heads.

=================  ==============================================================  ===============
name               computes, from one token x of the last layer (N,D)              stock files
=================  ==============================================================  ===============
``two_layer``      W2 dropout(tanh(W1 dropout(x) + b1)) + b2                       layers 2
``linear``         W dropout(x) + b                                                layers 1
``pooler_linear``  W dropout(pooler(x)) + b, the base's own frozen pooler          use_pooler
``frozen_pooler``  the same where the base has a pooler; else with tanh(P x + p)   as the others
                   for it, drawn at random and never trained: the reference's
                   head of COPA in stage two (docs/methods.md#heads)
``mean``           W dropout(m) + b, m the mean over the real tokens (N,D)         none: refused
=================  ==============================================================  ===============

Multiple choice: the head gives one logit per encoding, and a row's logits stand side by side. Span
extraction: x is every token in turn, (N,T,D) → (N,T,2), start and end.

x is the first token, or, where the type's row of :mod:`mtl.backbone.arch` says so, the last real
one, or the mean over the real ones. Dropout is the setting of the encoder that it names (BERT:
``hidden_dropout_prob``); weights start as N(0, 0.02), biases at zero (docs/methods.md#heads).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mtl.backbone.arch import arch_of
from mtl.backbone.head_designs import HEADS, HeadDesign
from mtl.errors import RequestError, ZooError
from mtl.files import read_json, read_safetensors, write_json, write_safetensors

CONFIG_FILE = "head_config.json"
WEIGHTS_FILE = "model_head.safetensors"
MEAN = "mean"
"""The value of ``pooling`` in the config of a head ``mean``; others have no such key."""

_HEAD_TYPES = {
    "classification": "classification",
    "regression": "classification",
    "multilabel": "multilabel_classification",
    "candidates": "classification",
    "multiple_choice": "multiple_choice",
    "span_extraction": "question_answering",
}


class Head(nn.Sequential):
    """Dropout and linear layers over one vector per sequence, (N,D) → (N,C), or over every token.

    The children's names "0", "1", … are those of ``adapters``' heads, so the files are, too.

    Attributes:
        use_pooler: whether it reads the base's pooled output.
        tokens: whether it reads every token, (N,T,D) → (N,T,C).
        mean: whether its design is to read the mean over the real tokens.
        pooling: else what it reads, one of :data:`mtl.backbone.arch_row.POOLINGS`.
    """

    def __init__(
        self,
        design: HeadDesign,
        hidden_size: int,
        outputs: int,
        dropout: float,
        *,
        tokens: bool = False,
        pooling: str = "first",
    ) -> None:
        parts: list[nn.Module] = []
        for _ in range(design.layers - 1):
            # A fixed first layer stands for a pooler, and nothing is dropped before that.
            before = nn.Dropout(0.0 if design.fixed_first else dropout)
            parts += [before, nn.Linear(hidden_size, hidden_size), nn.Tanh()]
        parts += [nn.Dropout(dropout), nn.Linear(hidden_size, outputs)]
        super().__init__(*parts)
        self.use_pooler = design.use_pooler
        self.tokens = tokens
        self.mean = design.mean
        self.pooling = MEAN if design.mean else pooling
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if design.fixed_first:
            self[1].requires_grad_(False)

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training may change, by name."""
        return {key: value for key, value in self.named_parameters() if value.requires_grad}


def build_head(
    name: str, config: Any, outputs: int, *, pooler: bool, kind: str = "classification"
) -> Head:
    """A new head for an encoder with ``config``.

    Args:
        name: a name in :data:`~mtl.backbone.head_designs.HEADS`.
        outputs: C, the number of logits.
        pooler: whether the base has pretrained pooler weights.
        kind: the task's kind; a span extraction reads every token.

    Raises:
        RequestError: unknown name, a pooler head on a base without a pretrained pooler, or for
            spans.
    """
    design = HEADS.get(name)
    tokens = _HEAD_TYPES[kind] == "question_answering"
    if tokens and (design.use_pooler or design.fixed_first or design.mean):
        raise RequestError(
            f"Head {name!r} reads one vector per text; a span extraction reads every token. Use "
            "--set head=linear or --set head=two_layer."
        )
    if design.use_pooler and not pooler:
        raise RequestError(
            f"Head {name!r} reads the base's pooler, but the checkpoint of this "
            f"{config.model_type} model holds no pooler weights. Use --set head=two_layer."
        )
    if design.fixed_first and pooler:
        design = HEADS.get("pooler_linear")
    return _head(design, config, outputs, tokens=tokens)


def _head(design: HeadDesign, config: Any, outputs: int, *, tokens: bool) -> Head:
    arch = arch_of(config)
    dropout = arch.head_dropout(config)
    return Head(design, config.hidden_size, outputs, dropout, tokens=tokens, pooling=arch.pooling)


def save_head(
    head: Head,
    folder: Path,
    name: str,
    config: Any,
    *,
    kind: str,
    labels: tuple[str, ...],
    model_id: str,
) -> None:
    """Write ``head_config.json`` and ``model_head.safetensors`` as ``adapters`` would.

    Args:
        name: the name inside the files; ``load_adapter`` of stock ``adapters`` takes it up.
        kind: the task's kind; decides ``head_type``.
        labels: class names, in the order of the logits.
    """
    write_json(
        folder / CONFIG_FILE,
        {
            "config": _stock_config(head, kind, labels),
            "hidden_size": config.hidden_size,
            "model_class": arch_of(config).heads or None,
            "model_name": model_id,
            "model_type": config.model_type,
            "name": name,
            "version": _version(),
        },
    )
    tensors = {f"heads.{name}.{key}": value for key, value in head.state_dict().items()}
    write_safetensors(folder / WEIGHTS_FILE, tensors)


def _stock_config(head: Head, kind: str, labels: tuple[str, ...]) -> dict[str, Any]:
    """The keys that ``adapters`` builds a head of this type from: it refuses others."""
    linear = [module for module in head if isinstance(module, nn.Linear)]
    outputs = linear[-1].out_features
    found: dict[str, Any] = {
        "activation_function": "tanh",
        "dropout_prob": None,
        "head_type": _HEAD_TYPES[kind],
        "layers": len(linear),
    }
    if kind == "multiple_choice":
        found |= {"num_choices": len(labels), "use_pooler": head.use_pooler}
    elif kind == "span_extraction":
        found |= {"num_labels": outputs}
    else:
        found |= {"num_labels": outputs, "use_pooler": head.use_pooler, "bias": True}
    if head.mean:  # stock adapters stops at a key that it does not know, and must
        found["pooling"] = MEAN
    known = labels or tuple(f"LABEL_{index}" for index in range(outputs))
    found["label2id"] = {label: index for index, label in enumerate(known)}
    return dict(sorted(found.items()))


def load_head(folder: Path, config: Any, *, pooler: bool) -> Head:
    """Read a head written by :func:`save_head` (or by ``adapters``, if it is one of our designs).

    Raises:
        ZooError: missing or damaged files, another hidden size, weights that do not fit.
        RequestError: a pooler head on a base without a pooler.
    """
    stored = read_json(folder / CONFIG_FILE)
    tensors, _ = read_safetensors(folder / WEIGHTS_FILE)
    try:
        settings = stored["config"]
        several = settings["head_type"] == "multiple_choice"
        tokens = settings["head_type"] == "question_answering"
        outputs = 1 if several else int(settings["num_labels"])
        # Heads over tokens have no such key.
        use_pooler = False if tokens else bool(settings["use_pooler"])
        mean = {None: False, MEAN: True}[settings.get("pooling")]
        design = HeadDesign(int(settings["layers"]), use_pooler, mean=mean)
        prefix = f"heads.{stored['name']}."
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ZooError(
            f"{folder / CONFIG_FILE} is no head config we can read: {error!r}."
        ) from error
    if stored.get("hidden_size") != config.hidden_size:
        raise ZooError(
            f"Cannot load the head in {folder}: made for hidden size {stored.get('hidden_size')}, "
            f"the encoder has {config.hidden_size}."
        )
    if design.use_pooler and not pooler:
        raise RequestError(f"The head in {folder} needs a pretrained pooler; this base has none.")
    widths = {value.shape[0] for value in tensors.values() if value.ndim}
    if not 0 < design.layers <= len(tensors) or (outputs not in widths and not tokens):
        raise ZooError(
            f"The weights in {folder / WEIGHTS_FILE} do not fit the head they describe: "
            f"{len(tensors)} tensors for {design.layers} layers and {outputs} outputs."
        )
    head = _head(design, config, outputs, tokens=tokens)
    own = {key.removeprefix(prefix): value for key, value in tensors.items()}
    expected = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in own.items()}
    if expected != found:
        raise ZooError(
            f"The weights in {folder / WEIGHTS_FILE} do not fit the head they describe: expected "
            f"{expected}, found {found}."
        )
    head.load_state_dict({key: value.to(torch.float32) for key, value in own.items()})
    return head


def _version() -> str:
    from importlib.metadata import version

    return f"adapters.{version('adapters')}"
