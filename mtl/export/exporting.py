"""From an entry of the zoo to a folder that stock ``adapters`` loads, with its proof."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mtl.backbone import Network
from mtl.backbone.heads import CONFIG_FILE as HEAD_CONFIG
from mtl.backbone.heads import WEIGHTS_FILE as HEAD_WEIGHTS
from mtl.backbone.network import INPUTS
from mtl.errors import RequestError
from mtl.export import proof
from mtl.export.card import write_card
from mtl.export.curve import NAME, Narrowing, narrowest
from mtl.export.data import EntryData, change, scores
from mtl.export.distill import Distilling, distil
from mtl.export.folder import check_free, filling
from mtl.export.folding import Folded, check_base_unchanged, fold
from mtl.export.load import Loaded, load_entry
from mtl.export.omega import NEAR_ZERO, near_zero, omega_sizes
from mtl.export.stock import install, load_stock, stock_logits, write_adapter, write_pickled
from mtl.files import read_json
from mtl.methods import find_method
from mtl.train.store import versions

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.train import Workspace
    from mtl.zoo import Entry


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
        prune: drop sources whose omega is at most this share of the largest; None keeps all.
        narrow: fewer units, None keeps all.
        distil: train an adapter that comes close, in place of folding.
        evaluate: score the exported files on every split that is no training data.
    """

    prune: float | None = None
    narrow: Narrowing | None = None
    distil: Distilling | None = None
    evaluate: bool = False

    def __post_init__(self) -> None:
        if self.prune is not None and not 0 <= self.prune < 1:
            raise RequestError(f"--prune {self.prune} must be at least 0 and below 1.")
        if self.distil is not None and (self.prune is not None or self.narrow is not None):
            raise RequestError(
                "--distill trains an adapter of --width units from all sources; it goes with "
                "neither --prune nor --tolerance."
            )

    @property
    def exact(self) -> bool:
        """Whether the same function comes out."""
        return self.prune is None and self.narrow is None and self.distil is None


class StockNetwork(nn.Module):
    """A model of stock ``adapters`` as batch → logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        return stock_logits(self.model, {name: batch[name] for name in INPUTS if name in batch})


@dataclass(frozen=True)
class Shaped:
    """What is written: a folded adapter, or the entry's own as it is.

    Attributes:
        folded: None for a stock adapter that is no bottleneck.
        changes: kind → split → what the approximation changed.
        further: more for the record.
    """

    folded: Folded | None
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
    loaded = load_entry(entry, workspace.zoo, backbone)
    data = EntryData(entry, backbone, workspace)
    sizes = omega_sizes(loaded)
    shaped = shape(loaded, data, sizes, options)
    name = str(entry.manifest.head["name"])
    with filling(folder) as temporary:
        if shaped.folded is None:
            assert loaded.save is not None
            loaded.save(temporary, backbone.base.id)
        else:
            write_adapter(temporary, shaped.folded, backbone, name)
        for file in (HEAD_CONFIG, HEAD_WEIGHTS):
            shutil.copyfile(entry.folder / file, temporary / file)
        write_pickled(temporary)
        stock = StockNetwork(load_stock(backbone, temporary))
        reference: nn.Module = loaded.network
        if not options.exact and shaped.folded is not None:
            reference = folded_network(shaped.folded, loaded, backbone)
        proven = proof.compare(reference, stock, proof.proof_batch(backbone))
        proof.check(proven, "What stock adapters makes of the exported files")
        proven["reference"] = "the entry" if options.exact else "the approximation of the entry"
        proven["other"] = f"adapters {versions()['adapters']}"
        measured = {}
        if options.evaluate:
            measured = {split: data.score(stock, split) for split in data.tests()}
        record = {
            "form": "adapters",
            "name": name,
            "entry": entry.ref,
            "digest": entry.digest,
            "exact": options.exact,
            "width": shaped.folded.width if shaped.folded else None,
            "sources": source_rows(loaded, sizes, options),
            "proof": proven,
            "scores": scores(measured),
            "changes": shaped.changes,
            "late_dropout": bool(shaped.folded and shaped.folded.placement.get("late_dropout")),
            "command": workspace.command,
            "versions": versions(),
            **shaped.further,
        }
        write_card(temporary, entry, record)
    return record


def shape(
    loaded: Loaded, data: EntryData, sizes: Sequence[float] | None, options: ExportOptions
) -> Shaped:
    """Fold, and then whatever approximation is asked for, each with its measured change."""
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


def measured_change(loaded: Loaded, network: nn.Module, data: EntryData) -> dict[str, Any]:
    """Split → what ``network`` changes against the entry, on every split that is not trained on."""
    return {
        split: change(data.score(loaded.attached, split), data.score(network, split))
        for split in data.tests()
    }


def folded_network(folded: Folded, loaded: Loaded, backbone: Backbone) -> Network:
    """The folded adapter and the entry's head on a fresh encoder."""
    encoder = backbone.encoder()
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
    if manifest.weights == "adapters":
        config = read_json(loaded.entry.folder / "adapter_config.json")["config"]
        if not str(config.get("architecture") or "").startswith("mtl_"):
            return True
    raise RequestError(
        f"Cannot export {loaded.entry.ref} to adapters: {manifest.method} is nothing that stock "
        f"adapters knows ({manifest.weights} weights). Nearest: train the task with a bottleneck "
        "(mtl.train --method pfeiffer), which exports as it is."
    )


def source_rows(
    loaded: Loaded, sizes: Sequence[float] | None, options: ExportOptions
) -> list[dict[str, Any]]:
    """Sources as the record lists them: where from, size of omega, near zero, dropped."""
    small = near_zero(list(sizes), NEAR_ZERO) if sizes else []
    gone = near_zero(list(sizes), options.prune) if sizes and options.prune is not None else []
    return [
        {
            "ref": entry.ref,
            "digest": entry.digest,
            "task": entry.manifest.task["id"],
            "method": entry.manifest.method,
            "seed": entry.manifest.seed,
            "omega": sizes[k] if sizes else None,
            "near_zero": k in small,
            "dropped": k in gone,
        }
        for k, entry in enumerate(loaded.sources)
    ]
