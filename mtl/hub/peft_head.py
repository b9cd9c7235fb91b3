"""The head of a ``peft`` adapter for sequence classification, where it is one of our designs.

=====================  =====================================================  =================
base                   what ``transformers`` computes, dropout aside          ours
=====================  =====================================================  =================
BERT, ALBERT           ``W pooler(x) + b``, the pooler of the checkpoint      ``pooler_linear``
BERT, pooler trained   ``W tanh(P x + p) + b``, x the first token             ``two_layer``
RoBERTa and its kin,   ``W tanh(P x + p) + b``                                ``two_layer``
MPNet
decoders               ``W x``, x the last real token                         ``linear``, b = 0
=====================  =====================================================  =================

Others have another activation, or read something else (DeBERTa, ELECTRA, DistilBERT, ModernBERT,
T5, BART): such an adapter goes into the zoo as a source alone, with a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from mtl.backbone.arch import arch_of
from mtl.backbone.heads import build_head
from mtl.hub.foreign_files import FoundHead
from mtl.hub.peft_config import PeftConfig
from mtl.hub.peft_tensors import PeftTensors, is_pooler, unused

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.backbone import Backbone

_POOLER = "pooler.dense"
_LINEAR = ("classifier",)
_SCORE = "score.weight"
_TWO = ("classifier.dense", "classifier.out_proj")
_BY_TYPE = {
    **dict.fromkeys(("bert", "albert"), _LINEAR),
    **dict.fromkeys(("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet"), _TWO),
}
"""Model type → the linear modules of its head, in order."""


def peft_head(config: PeftConfig, tensors: PeftTensors, backbone: Backbone) -> FoundHead:
    """The trained head, or why there is none. Its labels have no names: ``LABEL_0``, …"""
    design, layers, why = _layers(config, tensors, backbone)
    if why:
        return _none(why)
    width = backbone.base.hidden_size
    outputs = len(layers[-1][0])
    shapes = [tuple(part.shape) for pair in layers for part in pair]
    wanted = [shape for _ in layers[1:] for shape in ((width, width), (width,))]
    if shapes != [*wanted, (outputs, width), (outputs,)]:
        return _none(f"Its head was left out: it has tensors of shapes {shapes}.")
    head = build_head(design, backbone.pristine.config, outputs, pooler=backbone.pooler)
    linears = [module for module in head if isinstance(module, torch.nn.Linear)]
    with torch.no_grad():
        for linear, (weight, bias) in zip(linears, layers, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
    names = tuple(f"LABEL_{index}" for index in range(outputs)) if outputs > 1 else ()
    kind = "classification" if outputs > 1 else "regression"
    return FoundHead(head, kind, names, "", len(layers))


def _none(why: str) -> FoundHead:
    return FoundHead(None, "classification", (), why)


Pairs = list[tuple["Tensor", "Tensor"]]


def _layers(config: PeftConfig, tensors: PeftTensors, backbone: Backbone) -> tuple[str, Pairs, str]:
    """Design, (weight, bias) of its linear layers; or why there is none."""
    kind = backbone.base.type
    if not tensors.beside:
        return "", [], "The adapter holds no prediction head."
    left = f"Its head was left out ({unused(tensors.beside)}): "
    if config.task_type != "SEQ_CLS":
        return "", [], f"{left}it is of a model for {config.task_type or 'no task that it names'}."
    if arch_of(backbone.pristine.config).pooling == "last" and {*tensors.beside} == {_SCORE}:
        weight = tensors.beside[_SCORE]
        return "linear", [(weight, weight.new_zeros(len(weight)))], ""
    names = _BY_TYPE.get(kind)
    if names is None:
        return "", [], f"{left}the head of a {kind} model is of no design of mtl."
    found = _pairs(tensors.beside, names)
    if found is None:
        return "", [], f"{left}{kind} models have {', '.join(names)}, weights and biases."
    if names is _TWO:
        return "two_layer", found, ""
    trained = _pairs(tensors.trained, (_POOLER,))
    if trained is not None:
        return "two_layer", [*trained, *found], ""
    if any(map(is_pooler, tensors.trained)):
        return "", [], f"{left}it reads a pooler that was trained, too."
    if not backbone.pooler:
        why = "it reads the base's pooler, and this checkpoint has none."
        return "", [], left + why
    return "pooler_linear", found, ""


def _pairs(tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> Pairs | None:
    """The weights and biases called ``names``, where these are all that there is."""
    keys = [(f"{name}.weight", f"{name}.bias") for name in names]
    if {*tensors} != {key for pair in keys for key in pair}:
        return None
    return [(tensors[weight], tensors[bias]) for weight, bias in keys]
