"""Python on a card that answers a text with stock libraries: tokenizer, forward pass, names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import Arch, archs, find_arch
from mtl.words import printable

if TYPE_CHECKING:
    from mtl.zoo.manifest import Manifest

IMPORTS = "import torch\n"
TOKENIZER = "from transformers import AutoTokenizer\n"
"""What the lines of :func:`answering_code` need, before and behind another import."""
OURS = "FOLDER"
"""Where the tokenizer lies beside the model, as training had it."""
MOST_LABELS = 200
"""Names of classes that a snippet lists at most."""


def without_heads(base: Mapping[str, Any]) -> bool:
    """Whether ``adapters`` has no heads for the base of a manifest."""
    arch = find_arch(str(base.get("type")))
    return arch is not None and not arch.heads


def what_heads_read(base: Mapping[str, Any]) -> str:
    """Which tokens of ``last_hidden_state`` a head on the base of a manifest reads, in words."""
    arch = find_arch(str(base.get("type")))
    return _READ[arch.pooling if arch is not None else "first"]


_READ = {
    "first": "the first token",
    "last": "the last token of each text that is no padding",
    "mean": "the mean over the tokens of each text that are no padding",
}


def loading_code(base: Mapping[str, Any], arguments: str) -> tuple[str, str]:
    """Of the base of a manifest: the class of ``transformers``, and the expression that loads it.

    Args:
        arguments: of ``from_pretrained``.
    """
    arch = find_arch(str(base.get("type"))) or Arch("")
    part = f".{arch.part}" if arch.part else ""
    return arch.auto, f"{arch.auto}.from_pretrained({arguments}){part}"


def copied_types(base: Mapping[str, Any]) -> list[str]:
    """Types that the encoder's own config.json may say in place of the manifest's.

    They are loaded as that type, and ``adapters`` does not know them. Of a model of the Hub its
    name tells; a folder may hold any.
    """
    return [
        kind
        for kind, arch in archs().items()
        if arch.like == base.get("type")
        and (not base.get("revision") or kind in str(base.get("id")).lower())
    ]


def needs_interface(base: Mapping[str, Any]) -> bool:
    """Whether ``adapters`` must be told by an interface of ours how such a base is built."""
    arch = find_arch(str(base.get("type")))
    return arch is not None and bool(arch.interface)


def plugged_code(base: Mapping[str, Any], lines: str, arguments: str, folder: str) -> str:
    """Lines that load an adapter into an encoder of a type for which ``adapters`` has no heads.

    Args:
        lines, arguments: imports, and arguments of ``from_pretrained``.
        folder: an expression.
    """
    own, (auto, loaded) = needs_interface(base), loading_code(base, arguments)
    init = "adapters.init(encoder)\n"
    if own:
        init = (
            f'interface = json.load(open({folder} + "/adapter_interface.json"))["interface"]\n'
            "adapters.init(encoder, interface=adapters.AdapterModelInterface(**interface))\n"
        )
    json_line = "import json\n" if own else ""
    return (
        f"{json_line}{lines}import adapters\nimport torch\n"
        f"from safetensors.torch import load_file\nfrom transformers import {auto}\n\n"
        f"encoder = {loaded}\n"
        "bare = [name for name, module in encoder.named_modules()\n"
        "        if isinstance(module, torch.nn.Linear) and module.bias is None]\n"
        f"{init}"
        "for name in bare:  # adapters 1.3 draws a random bias for some\n"
        "    encoder.get_submodule(name).bias = None\n"
        f"encoder.load_adapter({folder}, use_safetensors=True, set_active=True)\n"
        f'head = load_file({folder} + "/model_head.safetensors")  # linear layers, tanh between\n'
    )


def answering_code(manifest: Manifest, base: str, model: str = "model") -> str:
    """Lines that answer a text with ``model``; empty where one line of code cannot say it.

    For classification, regression and multi-label tasks of one text or a pair. What the texts are
    made of (the task's templates) stands in a comment.

    Args:
        base: arguments of ``from_pretrained``, for the tokenizer; :data:`OURS` for the one that was
            written beside the model.
    """
    spec = manifest.task.get("spec")
    if manifest.kind == "joint" or not isinstance(spec, Mapping) or spec.get("prepare"):
        return ""
    kind, inputs = manifest.task.get("kind"), spec.get("inputs")
    if not isinstance(inputs, list) or len(inputs) not in (1, 2):
        return ""
    read = _reading(str(kind), manifest.task.get("labels"))
    length = spec.get("max_length")
    arch, template, fills = find_arch(str(manifest.base.get("type"))), spec.get("pair"), ""
    decoder = arch is not None and arch.decoder and base != OURS
    # Its own tokenizer joins pairs otherwise than ours did.
    if len(inputs) == 2 and base != OURS and (template or decoder):
        return (
            "# A pair is one text here: the first, a separator, the second, tokenised apart,\n"
            f"# as mtl.predict does{f': {_code(template)}' if template else ''}.\n"
            + (
                "# Pad behind it and set model.config.pad_token_id: the head reads the token\n"
                "# before the padding.\n"
                if decoder
                else ""
            )
        )
    if decoder:  # the heads of adapters find the last token by the padding behind it
        fills = (
            "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token\n"
            'tokenizer.padding_side = "right"\n'
            f"{model}.config.pad_token_id = tokenizer.pad_token_id\n"
        )
    if not read or not isinstance(length, int) or isinstance(length, bool):
        return ""
    texts = ", ".join(f'["text {number}"]' for number, _ in enumerate(inputs, start=1))
    cut = "only_first" if spec.get("truncate") == "first" and len(inputs) == 2 else "True"
    cut = json.dumps(cut) if cut != "True" else cut
    comment = ", ".join(_code(template) for template in inputs)
    return (
        f"tokenizer = AutoTokenizer.from_pretrained({base})\n{fills}"
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
