"""From an entry to a folder that holds the whole model: base, adapter and head in one.

Two forms: ``onnx`` (:mod:`mtl.export.onnx`) takes every entry, since it writes down what the
network computes; ``transformers`` (:mod:`mtl.export.merged`) those whose change of the base is a
change of its weights, and whose head is that of its stock class. Both carry a tokenizer, and the
proof of every export: what the written files answer, beside what the entry answers.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from mtl.backbone import Network
from mtl.backbone.arch import arch_of
from mtl.data.pairs import paired
from mtl.errors import RequestError
from mtl.export import proof
from mtl.export.card import write_card
from mtl.export.data import EntryData, change, scores
from mtl.export.folder import filling
from mtl.export.folding import fold
from mtl.export.merged import load_merged, write_merged
from mtl.export.onnx import OnnxNetwork, quantise, require_onnx, write_onnx
from mtl.export.stock import install
from mtl.export.telling import chosen_sizes, gates_record, gates_text, source_rows
from mtl.files import read_json, write_json
from mtl.runs import load
from mtl.runs.loading import held_for
from mtl.runs.versions import versions

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.export.exporting import ExportOptions
    from mtl.runs import Loaded, Workspace
    from mtl.zoo import Entry

WHOLE = ("onnx", "transformers")
"""Forms that need no base beside them."""
ONNX_TOLERANCE = 1e-4
"""Largest logit difference of another runtime, whose sums have another order."""
SHAPES = ((16, 48), (3, 20), (1, 5))
"""Rows and tokens of the batches that are compared: lengths and numbers of rows are free."""


def export_whole(
    entry: Entry, folder: Path, *, workspace: Workspace, backbone: Backbone, options: ExportOptions
) -> dict[str, Any]:
    """Write ``entry`` with its base as one model into ``folder``; returns the record.

    Raises:
        RequestError: the form cannot say it (names what can), or the place is taken.
        RunError: the files do not answer as the entry does; nothing is left behind.
        ZooError: damaged files, missing sources.
    """
    _refuse(options)
    if options.form == "onnx":
        require_onnx()
    backbone = held_for(entry, backbone)
    loaded = load(entry, workspace.zoo, backbone)
    data = EntryData(entry, backbone, workspace, options.group)
    sizes = chosen_sizes(loaded, options.group)
    network = loaded.network.cpu().eval()
    plain = Network(backbone.encoder(), network.head).eval()
    choices = _choices(entry)
    batches = [
        proof.proof_batch(backbone, rows=rows, tokens=tokens, choices=choices)
        for rows, tokens in SHAPES
    ]
    measured, changes = {}, {}
    with filling(folder) as temporary:
        if options.form == "onnx":
            path = write_onnx(temporary, entry, _traceable(loaded, backbone), batches[0])
            other: nn.Module = OnnxNetwork(path)
            library, tolerance = "onnxruntime", ONNX_TOLERANCE
        else:
            write_merged(temporary, loaded, backbone)
            other = load_merged(temporary)
            library, tolerance = "transformers", proof.TOLERANCE
        _write_tokenizer(entry, backbone, temporary)
        proven = _worst(
            [proof.compare(network, other, batch, plain, tolerance) for batch in batches]
        )
        proof.check(proven, f"What {library} makes of the exported files")
        proven["reference"] = f"the entry{gates_text(loaded, options.group)}"
        proven["other"] = f"{library} {versions_of(library)}"
        if options.evaluate:
            measured = {split: data.score(other, split) for split in data.tests()}
        if options.int8:
            small = OnnxNetwork(quantise(path))
            changes["int8"] = {
                split: change(data.score(loaded.attached, split), data.score(small, split))
                for split in data.tests()
            }
        record = {
            "form": options.form,
            "name": str(entry.manifest.head["name"]),
            "entry": entry.ref,
            "digest": entry.digest,
            "exact": True,
            "gates": gates_record(loaded, options.group),
            "width": None,
            "files": {
                found.name: found.stat().st_size
                for found in sorted(temporary.iterdir())
                if found.suffix in {".onnx", ".data", ".safetensors"}
            },
            "sources": source_rows(loaded, sizes),
            "proof": proven,
            "scores": scores(measured),
            "changes": changes,
            "command": workspace.command,
            "versions": {**versions(), library: versions_of(library)},
        }
        write_card(temporary, entry, record)
    return record


def _traceable(loaded: Loaded, backbone: Backbone) -> Network:
    """The entry's network, with other modules for the same function where ONNX needs them.

    A Compacter becomes the plain bottleneck that it is: ``adapters`` computes its Kronecker
    products with sizes that are tensors. LoReFT's rotation becomes the matrix that it is, in place
    of the reflections that make it.
    """
    network: Network = loaded.network
    if loaded.composed is not None or len(loaded.names) != 1:
        return network
    name = loaded.names[0]
    if getattr(network.encoder.adapters_config.get(name), "phm_layer", False):  # type: ignore[union-attr, operator]
        encoder = backbone.encoder()
        install(encoder, fold(loaded), name)
        return Network(encoder, network.head).eval()
    if any(map(is_parametrized, network.modules())):
        network = copy.deepcopy(network)
        for parent in list(network.modules()):
            for key, module in list(parent.named_children()):
                if is_parametrized(module):
                    parent.register_module(key, _plain(module))
    return network


@torch.no_grad()
def _plain(module: Any) -> nn.Linear:
    """A linear module whose weight is made of others, as one that has it."""
    linear = nn.Linear(module.in_features, module.out_features, module.bias is not None)
    linear.weight.copy_(module.weight)
    if module.bias is not None:
        linear.bias.copy_(module.bias)
    return linear.to(module.weight.dtype).eval()


def _write_tokenizer(entry: Entry, backbone: Backbone, folder: Path) -> None:
    """Write the tokenizer that joins pairs as the entry's run did."""
    spec = entry.manifest.task.get("spec") or {}
    template = str(spec.get("pair") or "") if len(spec.get("inputs", ())) > 1 else ""
    words = paired(backbone.tokenizer, template) if template else backbone.tokenizer
    words.save_pretrained(str(folder))
    if template or arch_of(backbone.config).decoder:
        # Classes of some types (Llama's) make a format for pairs of their own when they are loaded.
        path = folder / "tokenizer_config.json"
        write_json(path, {**read_json(path), "tokenizer_class": "PreTrainedTokenizerFast"})


def versions_of(library: str) -> str:
    """The installed version of ``library``."""
    from importlib.metadata import version

    return version(library)


def _refuse(options: ExportOptions) -> None:
    if not options.exact:
        raise RequestError(
            f"--to {options.form} writes what the entry computes; --prune, --width and --distill "
            "make another adapter of it, which goes --to adapters."
        )


def _choices(entry: Entry) -> int:
    from mtl.backbone.heads import CONFIG_FILE
    from mtl.files import read_json

    if not (entry.folder / CONFIG_FILE).is_file():
        return 1
    return int(read_json(entry.folder / CONFIG_FILE)["config"].get("num_choices", 1))


def _worst(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several comparisons the one that is nearest to its limit, or beyond; all of their rows."""
    worst = max(found, key=lambda one: one["max_logit_difference"] / one["limit"])
    return {**worst, "rows": sum(one["rows"] for one in found)}
