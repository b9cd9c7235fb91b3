"""From an entry of the zoo to a folder that stock ``adapters`` loads, with its proof."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mtl.backbone import Network
from mtl.backbone.head_designs import STOCK_REFUSAL, is_stock
from mtl.backbone.heads import CONFIG_FILE as HEAD_CONFIG
from mtl.backbone.heads import WEIGHTS_FILE as HEAD_WEIGHTS
from mtl.errors import RequestError, unknown
from mtl.export import proof
from mtl.export.card import write_card
from mtl.export.curve import NAME, Narrowing, narrowest
from mtl.export.data import EntryData, change, scores
from mtl.export.distill import Distilling, distil
from mtl.export.folder import check_free, filling
from mtl.export.folding import Folded, check_base_unchanged, fold
from mtl.export.low_rank import (
    FoldedLowRank,
    fold_low_rank,
    load_peft,
    write_peft_lora,
    write_stock_lora,
)
from mtl.export.omega import is_soup, near_zero
from mtl.export.stock import (
    check_stock_head,
    check_stock_norms,
    install,
    stock_network,
    write_adapter,
    write_interface,
)
from mtl.export.telling import chosen_sizes, gates_record, gates_text, source_rows
from mtl.export.whole import WHOLE, export_whole
from mtl.files import read_json
from mtl.hub import write_stock_copies
from mtl.methods import find_method
from mtl.methods.low_rank import Factors
from mtl.methods.modules.low_rank import install as install_low_rank
from mtl.runs import Loaded, load
from mtl.runs.loading import held_for
from mtl.runs.versions import versions

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.runs import Workspace
    from mtl.zoo import Entry


FORMS = ("adapters", "peft", *WHOLE)


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        form: ``adapters`` or ``peft``: the library that is to load it beside the base; ``onnx`` or
            ``transformers``: the whole model (:mod:`mtl.export.whole`).
        prune: drop sources whose omega is at most this share of the largest; None keeps all.
        narrow: fewer units, None keeps all.
        distil: train an adapter that comes close, in place of folding.
        evaluate: score the exported files on every split that is no training data.
        group: of a composition with gates by group, whose gates are folded in; None for the pooled
            ones.
        int8: of ``onnx``: a second file with weights in int8, its change measured.
    """

    form: str = "adapters"
    prune: float | None = None
    narrow: Narrowing | None = None
    distil: Distilling | None = None
    evaluate: bool = False
    group: str | None = None
    int8: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise unknown("library to export to", self.form, FORMS)
        if self.prune is not None and not 0 <= self.prune < 1:
            raise RequestError(f"--prune {self.prune} must be at least 0 and below 1.")
        if self.int8 and self.form != "onnx":
            raise RequestError(f"--int8 is for --to onnx; --to {self.form} has floats.")
        if self.distil is not None and (self.prune is not None or self.narrow is not None):
            raise RequestError(
                "--distill trains an adapter of --width units from all sources; it goes with "
                "neither --prune nor --tolerance."
            )

    @property
    def exact(self) -> bool:
        """Whether the same function comes out."""
        return self.prune is None and self.narrow is None and self.distil is None


@dataclass(frozen=True)
class Shaped:
    """What is written: a folded adapter, or the entry's own as it is.

    Attributes:
        folded: None for a stock adapter that is no bottleneck.
        changes: kind → split → what the approximation changed.
        further: more for the record.
    """

    folded: Folded | FoldedLowRank | None
    changes: Mapping[str, Any]
    further: Mapping[str, Any]


def export_entry(
    entry: Entry, folder: Path, *, workspace: Workspace, backbone: Backbone, options: ExportOptions
) -> dict[str, Any]:
    """Write ``entry`` as one stock adapter with its head into ``folder``; returns the record.

    Raises:
        RequestError: it does not fold (with the nearest alternative), or the place is taken.
        RunError: stock ``adapters`` does not answer as the entry does; nothing is left behind.
        ZooError: damaged files, missing sources.
    """
    check_free(folder)
    if entry.manifest.kind == "joint":
        raise RequestError(
            f"Cannot export {entry.ref}: a joint model is for several tasks. Compositions and "
            "single adapters can be exported."
        )
    if entry.manifest.control:
        raise RequestError(
            f"Cannot export {entry.ref}: it is a control ({entry.manifest.control}), a measurement "
            "beside a composition, whose sources are twins that know nothing. Export the "
            "composition itself."
        )
    if options.form in WHOLE:
        return export_whole(entry, folder, workspace=workspace, backbone=backbone, options=options)
    if not is_stock(entry.manifest.head):
        raise RequestError(
            f"Cannot export {entry.ref}: {STOCK_REFUSAL}, and answers would be others. Nearest: "
            "train it with --head two_layer or --head linear; mtl itself answers with this one."
        )
    backbone = held_for(entry, backbone)
    loaded = load(entry, workspace.zoo, backbone)
    data = EntryData(entry, backbone, workspace, options.group)
    sizes = chosen_sizes(loaded, options.group)
    shaped = shape(loaded, data, sizes, options)
    name = str(entry.manifest.head["name"])
    with filling(folder) as temporary:
        for file in (HEAD_CONFIG, HEAD_WEIGHTS):
            shutil.copyfile(entry.folder / file, temporary / file)
        if options.form == "adapters":
            check_stock_head(temporary, backbone, entry.ref)
        stock = write_form(temporary, shaped.folded, loaded, backbone, options.form)
        reference: nn.Module = loaded.network
        if not options.exact and shaped.folded is not None:
            reference = folded_network(shaped.folded, loaded, backbone)
        choices = read_json(temporary / HEAD_CONFIG)["config"].get("num_choices", 1)
        batch = proof.proof_batch(backbone, choices=choices)
        plain = Network(backbone.encoder(), loaded.network.head).eval()
        proven = proof.compare(reference, stock, batch, plain)
        proof.check(proven, "What stock adapters makes of the exported files")
        proven["reference"] = "the entry" if options.exact else "the approximation of the entry"
        proven["reference"] += gates_text(loaded, options.group)
        proven["other"] = f"{options.form} {version(options.form)}"
        measured = {}
        if options.evaluate:
            measured = {split: data.score(stock, split) for split in data.tests()}
        record = {
            "form": options.form,
            "name": name,
            "entry": entry.ref,
            "digest": entry.digest,
            "exact": options.exact,
            "gates": gates_record(loaded, options.group),
            "width": shaped.folded.width if shaped.folded else None,
            "sources": source_rows(loaded, sizes, options.prune),
            "proof": proven,
            "scores": scores(measured),
            "changes": shaped.changes,
            "late_dropout": isinstance(shaped.folded, Folded)
            and bool(shaped.folded.placement.get("late_dropout")),
            "command": workspace.command,
            "versions": versions(),
            **shaped.further,
        }
        write_card(temporary, entry, record)
    return record


def write_form(
    folder: Path,
    folded: Folded | FoldedLowRank | None,
    loaded: Loaded,
    backbone: Backbone,
    form: str,
) -> nn.Module:
    """Write adapter and ``.bin`` twins beside the head; the files as stock libraries run them."""
    name = str(loaded.entry.manifest.head["name"])
    if form == "peft":
        assert isinstance(folded, FoldedLowRank)
        write_peft_lora(folder, folded, backbone)
        return Network(load_peft(backbone, folder), loaded.network.head).eval()
    if folded is None:
        assert loaded.tuned is not None
        loaded.tuned.save(folder, backbone.base.id)
    elif isinstance(folded, FoldedLowRank):
        write_stock_lora(folder, folded, backbone, name)
    else:
        check_stock_norms(folded, backbone)
        write_adapter(folder, folded, backbone, name)
    write_stock_copies(folder, folder)
    write_interface(folder, backbone)
    return stock_network(backbone, folder)


def shape(
    loaded: Loaded, data: EntryData, sizes: Sequence[float] | None, options: ExportOptions
) -> Shaped:
    """Fold, and then whatever approximation is asked for, each with its measured change."""
    check_prunable(loaded, options)
    if loaded.low_rank:
        return _shape_low_rank(loaded, data, sizes, options)
    if options.form == "peft":
        raise RequestError(
            f"Cannot export {loaded.entry.ref} to peft: only low-rank adapters go there, and "
            f"{loaded.sources[0].manifest.method} is none. Use --to adapters."
        )
    if stays_as_it_is(loaded):
        if not options.exact:
            raise RequestError(
                f"{loaded.entry.ref} is {loaded.entry.manifest.method}, no bottleneck: it is "
                "exported as it is, and cannot be pruned or narrowed."
            )
        return Shaped(None, {}, {})
    check_base_unchanged(loaded)
    if options.distil is not None:
        student, record = distil(loaded, data, options.distil)
        network = folded_network(student, loaded, data.backbone)
        change = measured_change(loaded, network, data)
        return Shaped(student, {"distilling": change}, {"distilled": record})
    folded = fold(loaded)
    changes: dict[str, Any] = {}
    if options.prune is not None:
        drop = near_zero(list(sizes or [1.0]), options.prune)
        folded = fold(loaded, drop=drop)
        network = folded_network(folded, loaded, data.backbone)
        changes["pruning"] = measured_change(loaded, network, data)
    further: dict[str, Any] = {}
    if options.narrow is not None:

        def build(found: Folded) -> Network:
            return folded_network(found, loaded, data.backbone)

        folded, further["curve"] = narrowest(folded, data, options.narrow, build)
        changes["narrowing"] = measured_change(loaded, build(folded), data)
    return Shaped(folded, changes, further)


def check_prunable(loaded: Loaded, options: ExportOptions) -> None:
    """Refuse ``--prune`` where there are no sources to drop. Raises RequestError."""
    if options.prune is None:
        return
    if loaded.composed is None:
        raise RequestError(
            f"--prune drops sources of a composition; {loaded.entry.ref} is a single adapter. "
            "--width drops units of it."
        )
    if is_soup(loaded):
        raise RequestError(
            f"--prune: {loaded.entry.ref} is one adapter of averaged weights, in which a source of "
            "weight 0 takes no place. --width drops units of it."
        )


def _shape_low_rank(
    loaded: Loaded, data: EntryData, sizes: Sequence[float] | None, options: ExportOptions
) -> Shaped:
    if options.narrow is not None or options.distil is not None:
        raise RequestError(
            f"--width and --distill are for bottlenecks; {loaded.entry.ref} is low-rank, and "
            "folds exactly."
        )
    folded = fold_low_rank(loaded)
    if options.prune is None:
        return Shaped(folded, {}, {})
    folded = fold_low_rank(loaded, near_zero(list(sizes or [1.0]), options.prune))
    network = folded_network(folded, loaded, data.backbone)
    return Shaped(folded, {"pruning": measured_change(loaded, network, data)}, {})


def measured_change(loaded: Loaded, network: nn.Module, data: EntryData) -> dict[str, Any]:
    """Split → what ``network`` changes against the entry, on every split that is not trained on."""
    return {
        split: change(data.score(loaded.attached, split), data.score(network, split))
        for split in data.tests()
    }


def folded_network(folded: Folded | FoldedLowRank, loaded: Loaded, backbone: Backbone) -> Network:
    """The folded adapter and the entry's head on a fresh encoder."""
    encoder = backbone.encoder()
    if isinstance(folded, FoldedLowRank):
        single = {
            site: Factors(found.down.float(), found.up.float())
            for site, found in folded.sites.items()
        }
        install_low_rank(encoder, NAME, single)
    else:
        install(encoder, folded, NAME)
    return Network(encoder, loaded.network.head).eval()


def stays_as_it_is(loaded: Loaded) -> bool:
    """Whether the entry is a single adapter that stock ``adapters`` has and that is no bottleneck.

    Raises:
        RequestError: a method of ours that is neither a bottleneck nor in stock ``adapters``.
    """
    manifest = loaded.entry.manifest
    if manifest.kind != "adapter" or find_method(manifest.method).composes == "bottleneck":
        return False
    if manifest.method_settings.get("gate_padding") is False:
        raise RequestError(
            f"Cannot export {loaded.entry.ref} to adapters: stock adapters takes the mean of its "
            "gates over padding, too, and answers in a padded batch would be others. Nearest: --to "
            "onnx, or train it as stock adapters would (--set gate_padding=true)."
        )
    if manifest.weights == "adapters":
        config = read_json(loaded.entry.folder / "adapter_config.json")["config"]
        if not str(config.get("architecture") or "").startswith("mtl_"):
            return True
    raise RequestError(
        f"Cannot export {loaded.entry.ref} to adapters: {manifest.method} is nothing that stock "
        f"adapters knows ({manifest.weights} weights). Nearest: train the task with a bottleneck "
        "(mtl.train --method pfeiffer), which exports as it is."
    )
