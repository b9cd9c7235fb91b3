"""How similar the training texts of tasks are: mean cosine of their sentence embeddings.

The mean over all pairs of ``cos(e_i, e'_j)`` is the product of the two mean unit vectors, so each
task is embedded once. (A reference implementation takes as many texts as its dataset has splits
instead of 10,000; that is its mistake, and not repeated here.)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mtl.backbone.encoder_fit import position_limit
from mtl.engine import open_device
from mtl.errors import RequestError
from mtl.runs.loading import data_of_entry

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import TaskData
    from mtl.runs import Workspace
    from mtl.zoo import Entry

BASE = "base"
BATCH, TOKENS = 64, 384
"""Texts per forward pass; tokens of a text that count, as in the default sentence encoder."""


def similarities(
    target: TaskData,
    sources: Sequence[Entry],
    embedder: str,
    rows: int,
    backbone: Backbone,
    workspace: Workspace,
) -> list[float]:
    """Mean pairwise cosine between up to ``rows`` training texts of the target and each source.

    Raises:
        RequestError: the sentence encoder or a source's data cannot be had.
    """
    model, tokenizer = load_embedder(embedder, backbone)
    ours = mean_embedding(training_texts(target, rows), model, tokenizer)
    found = []
    for entry in sources:
        if entry.manifest.task["id"] == target.spec.id:
            found.append(float(ours @ ours))
            continue
        data = data_of_entry(entry, workspace, option="--sources FILE …")
        found.append(float(ours @ mean_embedding(training_texts(data, rows), model, tokenizer)))
    return found


def training_texts(data: TaskData, rows: int) -> list[str]:
    """Up to ``rows`` training texts, the parts of a row joined; the same draw every time."""
    split = data.splits["train"]
    numbers = np.arange(len(split))
    if len(numbers) > rows:
        numbers = np.sort(np.random.default_rng(0).permutation(len(numbers))[:rows])
    return [" ".join(texts[number] for texts in split.texts) for number in numbers]


def load_embedder(name: str, backbone: Backbone) -> tuple[Any, Any]:
    """The sentence encoder and its tokenizer.

    Raises:
        RequestError: not to be had.
    """
    device = open_device("fp32", hidden_size=backbone.base.hidden_size).torch_device
    if name == BASE:
        # A copy: the pristine encoder is what all others are copied from, on the CPU.
        return copy.deepcopy(backbone.pristine).to(device).eval(), backbone.tokenizer
    from mtl.backbone.backbones import load_text_encoder

    try:
        model, tokenizer = load_text_encoder(name)
        return model.to(device), tokenizer
    except Exception as error:
        raise RequestError(_not_there(name, error)) from error


def _not_there(name: str, error: Exception) -> str:
    """What is wrong with the sentence encoder ``name``, and the ways out."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    first = f"Cannot load the sentence encoder {name!r}: "
    rest = (
        "give the folder of one with --set embedder=FOLDER, or take the run's own encoder with "
        "--set embedder=base, or set the weights yourself: --set weights=0.7,0.3."
    )
    if Path(name).is_dir():
        return f"{first}{' '.join(str(error).split())[:300]} Mend the folder, or {rest}"
    if name.startswith((".", "/", "~")):
        return f"{first}there is no such folder. Else {rest}"
    if HF_HUB_OFFLINE:
        return (
            f"{first}it is not in the cache of the Hub's client, and HF_HUB_OFFLINE=1 forbids to "
            f"fetch it. Fetch it once where there is a network (hf download {name}), {rest}"
        )
    said = " ".join(str(error).split()).split(" Check your internet")[0][:300]
    return f"{first}{said} Mend that, or {rest}"


@torch.no_grad()
def mean_embedding(texts: Sequence[str], model: Any, tokenizer: Any) -> Tensor:
    """Mean of the unit sentence vectors (means over real tokens of the last layer): (D,), fp64."""
    from tqdm import tqdm

    from mtl.engine.progress import quiet

    total = torch.zeros((), dtype=torch.float64)
    limit = int(min(tokenizer.model_max_length, TOKENS, position_limit(model.config) or TOKENS))
    texts = sorted(texts, key=len)  # texts of like length need little padding; a sum has no order
    starts = range(0, len(texts), BATCH)
    bar = tqdm(starts, desc="embed", leave=False, disable=True if quiet() else None)
    for start in bar:
        batch = tokenizer(
            list(texts[start : start + BATCH]),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        ).to(next(model.parameters()).device)
        state = model(**batch).last_hidden_state.double()
        mask = batch["attention_mask"].unsqueeze(-1).double()
        vectors = (state * mask).sum(1) / mask.sum(1)
        total = total + torch.nn.functional.normalize(vectors, dim=-1).sum(0).cpu()
    return total / len(texts)
