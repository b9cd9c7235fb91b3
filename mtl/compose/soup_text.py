"""How similar the training texts of tasks are: mean cosine of their sentence embeddings.

The mean over all pairs of ``cos(e_i, e'_j)`` is the product of the two mean unit vectors, so each
task is embedded once. (A reference implementation takes as many texts as its dataset has splits
instead of 10,000; that is its mistake, and not repeated here: specs/composition_methods §6.4.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mtl.errors import RequestError
from mtl.train.workspace import load_recorded_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.tasks import TaskData
    from mtl.train import Workspace
    from mtl.zoo import Entry

BASE = "base"
BATCH, TOKENS = 64, 128


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
        data = load_recorded_data(entry.manifest, workspace)
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
    if name == BASE:
        return backbone.pristine, backbone.tokenizer
    from transformers import AutoModel, AutoTokenizer

    try:
        model = AutoModel.from_pretrained(name, use_safetensors=True)
        return model.eval(), AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise RequestError(
            f"Cannot load the sentence encoder {name!r}: {' '.join(str(error).split())[:200]} "
            "Give a folder with --set embedder=FOLDER, or --set embedder=base for the run's own "
            "encoder."
        ) from error


@torch.no_grad()
def mean_embedding(texts: Sequence[str], model: Any, tokenizer: Any) -> Tensor:
    """Mean of the unit sentence vectors (means over real tokens of the last layer): (D,), fp64."""
    from tqdm import tqdm

    from mtl.engine.progress import quiet

    total = torch.zeros((), dtype=torch.float64)
    limit = int(min(tokenizer.model_max_length, TOKENS))
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
