"""Stored compositions back into encoders, with the sources that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtl.backbone import Network, load_head
from mtl.backbone.bounded import bounded
from mtl.backbone.injection import freeze
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.control import control_of, load_sources
from mtl.engine import Attached
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors
from mtl.methods import source_names
from mtl.methods.method import make_settings
from mtl.runs.loading import Loaded
from mtl.runs.versions import made_with
from mtl.zoo.composition import FILE as WEIGHTS_FILE
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.zoo import Entry, Zoo


def find_parents(entry: Entry, zoo: Zoo) -> list[Entry]:
    """The entries of a composition's sources: by their digests, wherever they lie in the zoo.

    Raises:
        RequestError: it is no composition.
        ZooError: one is not in the zoo, or another entry has taken its place.
    """
    if entry.manifest.kind != "composition":
        kind = {"adapter": "an adapter of one task"}.get(entry.manifest.kind, "a joint model")
        raise RequestError(
            f"{entry.ref} is {kind}; only compositions have sources. "
            f"python -m mtl.zoo ls --kind composition{zoo_option(zoo.root)} lists them."
        )
    digests = {parent["digest"] for parent in entry.manifest.parents}
    there = zoo.read(summary for summary in zoo.summaries() if summary.digest in digests)
    by_digest = {found.digest: found for found in there}
    parents = []
    for parent in entry.manifest.parents:
        found = by_digest.get(parent["digest"])
        if found is None:
            raise ZooError(
                f"{entry.ref} needs its source {parent['ref']} (digest {parent['digest'][:12]}), "
                f"which is not in the zoo {zoo.root}. Bring it back: mtl.train --task "
                f"{parent['task']} --method {parent['method']} --seeds {parent['seed']}, with the "
                "settings of its card."
            )
        parents.append(found)
    return parents


def load_composition(entry: Entry, zoo: Zoo, backbone: Backbone) -> Loaded:
    """A composition with its sources; see :func:`mtl.runs.load`.

    Raises:
        RequestError: a composition that this version does not know.
        ZooError: damaged files, a missing source, tensors that do not fit.
    """
    manifest = entry.manifest
    parents = find_parents(entry, zoo)
    composition = COMPOSITIONS.get(manifest.method, made_with(manifest))
    settings = make_settings(manifest.method, composition.settings, dict(manifest.method_settings))
    names = source_names(len(parents))
    encoder: Any = backbone.encoder()
    load_sources(
        encoder,
        names,
        parents,
        zoo,
        control=control_of(entry),
        target=manifest.task["id"],
        seed=manifest.seed,
    )
    with zoo.reading(entry), bounded(entry.ref):
        composed = composition.attach(encoder, names, settings)
        composed.load(read_safetensors(entry.folder / WEIGHTS_FILE)[0])
        freeze(encoder)
        head = load_head(entry.folder, encoder.config, pooler=backbone.pooler)
    freeze(head)
    groups = composed.groups
    network = Network(encoder, head, *([groups.around] if groups else [])).eval()
    attached = Attached(network, {}, [], caches=(composed.evaluating,))
    return Loaded(
        entry,
        parents,
        names,
        network,
        attached,
        composed,
        shares=lambda: composition.shares(composed, settings),
    )
