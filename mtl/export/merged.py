"""An entry as a plain ``AutoModelForSequenceClassification``: low-rank changes in the weights.

``W + Σ_k diag(ω_k) up_k down_k`` is one matrix, so a composition of low-rank sources, or a single
low-rank adapter, is the base with other weights. Bottlenecks are no change of weights. The head has
to be that of the stock class: where the table of types says so (``classifier`` of
:class:`~mtl.backbone.arch_row.Arch`) a linear layer, tanh and a linear layer over the first token
(``two_layer``), for BERT also one over the pooler (``pooler_linear``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.arch import archs
from mtl.backbone.linear import linear_paths
from mtl.backbone.network import INPUTS
from mtl.errors import RequestError
from mtl.export.low_rank import fold_low_rank

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.runs import Loaded

PROBLEMS = {
    "classification": "single_label_classification",
    "regression": "regression",
    "multilabel": "multi_label_classification",
}
OTHER = "Nearest: --to onnx, which takes it as it is, or --to adapters."


class MergedNetwork(nn.Module):
    """A stock sequence classifier as a network: batch → logits."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = self.model(**{k: batch[k] for k in INPUTS if k in batch}).logits
        return logits


def check_mergeable(loaded: Loaded, backbone: Backbone) -> None:
    """Refuse what is no plain sequence classifier of ``transformers``. Raises RequestError."""
    manifest = loaded.entry.manifest
    ref, kind = loaded.entry.ref, str(manifest.task.get("kind"))
    if not loaded.low_rank:
        method = loaded.sources[0].manifest.method if loaded.sources else manifest.method
        raise RequestError(
            f"Cannot export {ref} to transformers: {method} is more than a change of the base's "
            f"weights, so a plain model cannot hold it. {OTHER}"
        )
    if kind not in PROBLEMS:
        raise RequestError(
            f"Cannot export {ref} to transformers: a sequence classifier there is no {kind}. "
            f"{OTHER}"
        )
    if not archs()[backbone.base.type].classifier:
        known = [kind for kind, arch in archs().items() if arch.classifier]
        raise RequestError(
            f"Cannot export {ref} to transformers: the classifier of {backbone.base.type} there is "
            f"another function than our heads (known: {', '.join(known)}). {OTHER}"
        )
    head: Any = loaded.network.head
    layers = [module for module in head if isinstance(module, nn.Linear)]
    if head.mean or head.tokens or not (_over_pooler(loaded, backbone) or len(layers) == 2):
        raise RequestError(
            f"Cannot export {ref} to transformers: the classifier of {backbone.base.type} there "
            "has a linear layer, tanh and a linear layer over the first token (--head two_layer), "
            f"and this head is another. {OTHER}"
        )


def _over_pooler(loaded: Loaded, backbone: Backbone) -> bool:
    return bool(loaded.network.head.use_pooler) and backbone.base.type == "bert"


@torch.no_grad()
def write_merged(folder: Path, loaded: Loaded, backbone: Backbone) -> None:
    """Write config and weights of the merged model into ``folder``.

    Raises:
        RequestError: it is no plain sequence classifier.
    """
    check_mergeable(loaded, backbone)
    from transformers import AutoModelForSequenceClassification

    merged = copy.deepcopy(backbone.pristine).cpu()
    folded = fold_low_rank(loaded)
    paths = linear_paths(backbone.encoder(), folded.modules)
    for site, found in folded.sites.items():
        weight = merged.get_submodule(paths[site]).weight
        weight.copy_((weight.double() + found.up @ found.down).to(weight.dtype))
    manifest = loaded.entry.manifest
    head = [module for module in loaded.network.head if isinstance(module, nn.Linear)]
    outputs = head[-1].out_features
    names = [str(name) for name in manifest.task.get("labels") or ()]
    names = names if len(names) == outputs else [f"LABEL_{place}" for place in range(outputs)]
    config = copy.deepcopy(merged.config)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: place for place, name in enumerate(names)}
    config.problem_type = PROBLEMS[str(manifest.task["kind"])]
    if backbone.base.type == "deberta-v2":
        config.pooler_hidden_act, config.pooler_hidden_size = "tanh", config.hidden_size
    model: Any = AutoModelForSequenceClassification.from_config(config)
    model.base_model.load_state_dict(merged.state_dict(), strict=False)
    first, last = archs()[backbone.base.type].classifier
    if not _over_pooler(loaded, backbone):
        model.get_submodule(first).load_state_dict(head[0].cpu().state_dict())
    model.get_submodule(last).load_state_dict(head[-1].cpu().state_dict())
    model.save_pretrained(str(folder), safe_serialization=True)


def load_merged(folder: Path) -> MergedNetwork:
    """What stock ``transformers`` loads from ``folder``."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        str(folder), use_safetensors=True, trust_remote_code=False
    )
    return MergedNetwork(model).eval()
