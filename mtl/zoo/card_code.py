"""Python on a card that answers a text with stock libraries: tokenizer, forward pass, names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtl.words import printable

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest

IMPORTS = "import torch\n"
TOKENIZER = "from transformers import AutoTokenizer\n"
"""What the lines of :func:`answering_code` need, before and behind another import."""
MOST_LABELS = 200
"""Names of classes that a snippet lists at most."""


def answering_code(manifest: Manifest, base: str, model: str = "model") -> str:
    """Lines that answer a text with ``model``; empty where one line of code cannot say it.

    For classification, regression and multi-label tasks of one text or a pair. What the texts are
    made of (the task's templates) stands in a comment.

    Args:
        base: arguments of ``from_pretrained``, for the tokenizer.
    """
    spec = manifest.task.get("spec")
    if manifest.kind == "joint" or not isinstance(spec, Mapping) or spec.get("prepare"):
        return ""
    kind, inputs = manifest.task.get("kind"), spec.get("inputs")
    if not isinstance(inputs, list) or len(inputs) not in (1, 2):
        return ""
    read = _reading(str(kind), manifest.task.get("labels"))
    length = spec.get("max_length")
    if not read or not isinstance(length, int) or isinstance(length, bool):
        return ""
    texts = ", ".join(f'["text {number}"]' for number, _ in enumerate(inputs, start=1))
    cut = "only_first" if spec.get("truncate") == "first" and len(inputs) == 2 else "True"
    cut = json.dumps(cut) if cut != "True" else cut
    comment = ", ".join(_code(template) for template in inputs)
    return (
        f"tokenizer = AutoTokenizer.from_pretrained({base})\n"
        f"# text of a row: {comment}\n"
        f"batch = tokenizer({texts}, padding=True, truncation={cut}, max_length={length}, "
        f'return_tensors="pt")\n'
        "with torch.no_grad():\n"
        f"    logits = {model}.eval()(**batch).logits\n"
        f"{read}"
    )


def _reading(kind: str, labels: Any) -> str:
    if kind == "regression":
        return "print(logits[:, 0].tolist())\n"
    if not isinstance(labels, list) or not 0 < len(labels) <= MOST_LABELS:
        return ""
    names = f"labels = [{', '.join(_code(label) for label in labels)}]\n"
    if kind == "classification":
        return f"{names}print([labels[place] for place in logits.argmax(-1)])\n"
    if kind == "multilabel":
        return (
            f"{names}print([[name for name, value in zip(labels, row) if value > 0] "
            "for row in logits])\n"
        )
    return ""


def _code(value: Any) -> str:
    return json.dumps(printable(str(value)))
