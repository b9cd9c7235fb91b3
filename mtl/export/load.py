"""What is to be exported: a composition or a single adapter, loaded with its sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.backbone import Network, load_head
from mtl.backbone.injection import freeze
from mtl.compose.stored import load_composition
from mtl.engine import Attached
from mtl.errors import RequestError
from mtl.methods import find_method, load
from mtl.methods.low_rank import Factors
from mtl.methods.method import make_settings
from mtl.methods.modules.low_rank import low_rank_sources
from mtl.runs.loading import check_base

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.compose import Composed
    from mtl.zoo import Entry, Zoo


@dataclass(frozen=True)
class Loaded:
    """An entry as a frozen network with what it is made of.

    Attributes:
        sources: entries of the adapters in the encoder; of a single adapter, itself.
        names: their names in the encoder, in the same order.
        composed: None for a single adapter.
        save: writes a single adapter as its method stores it; None for a composition.
        densify: makes a single adapter readable as a source; None where it is.
        factors: of a single low-rank adapter by site; None for others and compositions.
    """

    entry: Entry
    sources: Sequence[Entry]
    names: Sequence[str]
    network: Network
    attached: Attached
    composed: Composed | None
    save: Callable[[Path, str], None] | None = None
    densify: Callable[[], None] | None = None
    factors: Callable[[], Mapping[str, Factors]] | None = None

    @property
    def low_rank(self) -> bool:
        """Whether it consists of deltas of linear modules."""
        return find_method(self.sources[0].manifest.method).composes == "low_rank"


def load_entry(entry: Entry, zoo: Zoo, backbone: Backbone) -> Loaded:
    """Load ``entry`` for export, in evaluation mode. Files are checked against their hashes.

    Raises:
        RequestError: an entry of another base, or of a kind that is no single network.
        ZooError: damaged files, missing sources.
    """
    manifest = entry.manifest
    if manifest.kind == "composition":
        found = load_composition(entry, zoo, backbone)
        return Loaded(
            entry, found.parents, found.names, found.network, found.attached, found.composed
        )
    if manifest.kind != "adapter":
        raise RequestError(
            f"Cannot export {entry.ref}: a {manifest.kind} model is for several tasks. "
            "Compositions and single adapters can be exported."
        )
    check_base(entry, backbone.base, head=True)
    zoo.load_check(entry)
    method = find_method(manifest.method)
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    encoder = backbone.encoder()
    name = str(manifest.head["name"])
    with zoo.reading(entry):
        tuned = load(encoder, method, settings, name, entry.folder, active=True)
        head = load_head(entry.folder, encoder.config, pooler=backbone.pooler)
    freeze(head)
    network = Network(encoder, head).eval()
    attached = Attached(network, {}, [], caches=tuned.caches)
    ready = None
    if method.as_source is not None:
        ready = partial(method.as_source, encoder, settings, name)
    factors = None
    if method.composes == "low_rank" and method.load_source is not None:
        load_source = method.load_source

        def factors() -> Mapping[str, Factors]:
            own = backbone.encoder()
            load_source(own, settings, name, entry.folder)
            return low_rank_sources(own)[name]

    return Loaded(entry, [entry], [name], network, attached, None, tuned.save, ready, factors)
