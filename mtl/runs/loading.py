"""Entries of the zoo back into encoders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mtl.backbone.head_designs import HEADS, reads_pooler
from mtl.backbone.identity import base_differences, knows_function
from mtl.backbone.reference import DEMO
from mtl.data import Passes
from mtl.data.task_data import grouping_of
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.methods import find_method
from mtl.methods import load as attach_stored
from mtl.methods.method import make_settings
from mtl.registry import Registry
from mtl.runs.recorded import OPTION, change_text, task_of
from mtl.runs.versions import made_with
from mtl.runs.workspace import load_task_data
from mtl.zoo.composition import gate_column
from mtl.zoo.place import option_of

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Base
    from mtl.data import TaskData
    from mtl.engine import Attached
    from mtl.methods import Tuned
    from mtl.methods.low_rank import Factors
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry, Zoo
    from mtl.zoo.composition import SourceWeights


MAX_ROWS, MAX_TOKENS = 4096, 1 << 20
"""A stranger's entry does not make a pass of more examples, or of more tokens, than this."""
OLD_ROWS = 128
"""Examples per pass of entries of before that was recorded."""


def check_base(entry: Entry, base: Base, *, head: bool = False) -> None:
    """Refuse an entry of another base: its adapter would read features it never saw.

    An entry of before schema version 3 is compared by what it knows of its base: the weights and
    the tokenizer (see :func:`unknown_function`).

    Args:
        head: whether the entry's head is used, too, so that the pooler counts where it reads it.

    Raises:
        RequestError: says in what the two differ.
    """
    stored, current = entry.manifest.base, base.to_dict()
    differing = base_differences(stored, current)
    if head and _reads_pooler(entry) and stored.get("pooler", base.pooler) != base.pooler:
        differing.append(f"pooler {str(stored['pooler'])[:8]} and {str(base.pooler)[:8]}")
    if not differing:
        return
    raise RequestError(
        f"Cannot use {entry.ref} here: it was trained on {stored['id']!r} "
        f"({stored['fingerprint'][:8]}), this run uses {base.id!r} ({base.fingerprint[:8]}), and "
        f"they differ in {'; '.join(differing)}. List what fits with "
        f"python -m mtl.zoo ls --base {base.fingerprint[:8]}{option_of(entry)}, or pass the model "
        "of the entry with --model."
    )


def _reads_pooler(entry: Entry) -> bool:
    own = entry.manifest.head.get("designs")  # of a joint run's tasks that have another one
    designs = [entry.manifest.head.get("design")]
    designs += own.values() if isinstance(own, dict) else ()
    return any(isinstance(name, str) and name in HEADS and reads_pooler(name) for name in designs)


def unknown_function(entries: Iterable[Entry]) -> str:
    """What to say of entries that do not know the function of their base; empty where all do."""
    old = [entry.ref for entry in entries if not knows_function(entry.manifest.base)]
    if not old:
        return ""
    what = f"{old[0]} was" if len(old) == 1 else f"{len(old)} entries ({old[0]}, …) were"
    return (
        f"{what} stored before mtl recorded the config of the base: compared by weights and "
        "tokenizer alone, so give the model that it was trained on"
    )


def base_of(entry: Entry, model: str | None) -> str:
    """What to load as the base of an entry: ``model``, ``MTL_MODEL``, or what the entry names.

    Raises:
        RequestError: nobody says, and the entry names a folder of whoever trained it.
    """
    chosen = model or os.environ.get("MTL_MODEL")
    if chosen:
        return chosen
    base = entry.manifest.base
    if base["revision"]:
        return f"{base['id']}@{base['revision']}"
    if base["id"] == DEMO:
        return DEMO
    raise RequestError(
        f"{entry.ref} was trained on a local folder called {base['id']!r} (weights "
        f"{base['fingerprint'][:8]}); say where it is: --model FOLDER."
    )


def stored_settings(entry: Entry) -> RunSettings:
    """The run settings that an entry was made with, as its manifest tells them.

    Raises:
        RequestError: they cannot be used.
    """
    values = entry.manifest.run_settings
    # None where nobody knows it, as of adapters from elsewhere.
    fields = RunSettings.__dataclass_fields__
    known = {key: values[key] for key in fields if values.get(key) is not None}
    try:
        return RunSettings(**known)
    except TypeError as error:
        raise RequestError(f"{entry.ref}: its run settings cannot be used: {error}.") from error


def precision_of(entry: Entry) -> str:
    """That of its answers; fp32 where nobody knows it, as of adapters from elsewhere."""
    precision = str(entry.manifest.training.get("precision"))
    return precision if precision in {"fp32", "bf16"} else "fp32"


def answer_passes(entry: Entry) -> Passes:
    """How much went through the network at once when an entry's answers were made.

    Entries of before it was recorded, and numbers that make no sense, give what was usual then.
    """

    def told(key: str, most: int) -> int:
        value = entry.manifest.training.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most:
            return value
        return 0

    found = Passes(told("eval_tokens", MAX_TOKENS), told("eval_batch_size", MAX_ROWS))
    return found if found.tokens or found.rows else Passes(rows=OLD_ROWS)


def data_of_entry(entry: Entry, workspace: Workspace, *, option: str = OPTION) -> TaskData:
    """The data an entry was trained and tested on, read again.

    Args:
        option: see :func:`mtl.runs.recorded.task_of`.

    Raises:
        RequestError: the task is not known here, or its data are others than then.
    """
    manifest = entry.manifest
    spec = task_of(entry, workspace, option=option)
    settings = stored_settings(entry)
    protocol = str(manifest.data["protocol"])
    gate = gate_column(manifest.method_settings)
    data = load_task_data(spec, workspace, protocol, settings, gate)
    if data.fingerprint != manifest.data["fingerprint"] and protocol == "holdout":
        # an entry of before the protocol saw to rare classes
        data = load_task_data(spec, workspace, "holdout-1", settings, gate)
    if data.fingerprint != manifest.data["fingerprint"]:
        raise RequestError(
            f"The data of {spec.id} are not those that {entry.ref} was made with (fingerprint "
            f"{data.fingerprint[:12]}…, then {manifest.data['fingerprint'][:12]}…)."
            f"{change_text(spec, entry)} {where_text(spec, option)}"
        )
    check_groups(entry, data, option)
    return data


def check_groups(entry: Entry, data: TaskData, option: str = OPTION) -> None:
    """Refuse rows in other groups than the entry's were, where its answers depend on them.

    Raises:
        RequestError: says by which column.
    """
    settings = entry.manifest.method_settings
    column = gate_column(settings)
    if column and grouping_of(data) != settings["grouping"]:
        raise RequestError(
            f"The rows of {data.spec.id} have other values in the column {column!r} than when "
            f"{entry.ref} was made, whose answers depend on them. {where_text(data.spec, option)}"
        )


def where_text(spec: TaskSpec, option: str = OPTION) -> str:
    """How to name the data that an entry was made with, where those found are others."""
    if "files" in spec.data:
        return f"Name the task file that reads those of then: {option}."
    return "Name the mirror that holds those of then: --data-root DIR."


def load_adapter_entry(encoder: Any, entry: Entry, zoo: Zoo, name: str) -> None:
    """Load a stage-one entry into ``encoder`` as the frozen source ``name``.

    The entry's files are checked against their hashes first.

    Raises:
        ZooError: damaged files, or weights that do not fit.
        RequestError: a method this version does not know.
    """
    from mtl.backbone.bounded import bounded

    zoo.load_check(entry)
    manifest = entry.manifest
    method = find_method(manifest.method, made_with(manifest))
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    with zoo.reading(entry), bounded(entry.ref):
        if method.load_source is not None:
            method.load_source(encoder, settings, name, entry.folder)
            return
        attach_stored(encoder, method, settings, name, entry.folder)
        if method.as_source is not None:
            method.as_source(encoder, settings, name)


@dataclass(frozen=True)
class Loaded:
    """A stored entry as a frozen network, in evaluation, in an encoder of its own.

    Attributes:
        entry: what was loaded.
        sources: entries of the frozen adapters in the encoder, in the order of omega; of a single
            adapter itself, of a joint model none.
        names: their names in the encoder, in the same order.
        network: encoder and head; of a joint model a head per task.
        attached: ``logits(batch)`` answers as stored.
        composed: what attaching a composition gave; None for others.
        tuned: the method of a single adapter or a joint model as loaded; None for a composition.
        densify: makes a single adapter readable as a source; None where it is.
        factors: of a single low-rank adapter by site; None for others.
        shares: of a composition, how much it uses each source: over the rows that were answered
            last, where that depends on them; None for others.
    """

    entry: Entry
    sources: Sequence[Entry]
    names: Sequence[str]
    network: Any
    attached: Attached
    composed: Composed | None = None
    tuned: Tuned | None = None
    densify: Callable[[], None] | None = None
    factors: Callable[[], Mapping[str, Factors]] | None = None
    shares: Callable[[], SourceWeights | None] | None = None

    @property
    def low_rank(self) -> bool:
        """Whether it consists of deltas of linear modules."""
        return find_method(self.sources[0].manifest.method).composes == "low_rank"


class Composed(Protocol):
    """What :class:`Loaded` promises of an attached composition (:mod:`mtl.compose`)."""

    def tensors(self) -> Mapping[str, Any]: ...


LOADERS: Registry[Callable[[Entry, Zoo, Backbone], Loaded]] = Registry("kind of entry")
"""Kind of an entry → what loads it. The rooms of the kinds come later in the order of imports, so
they stand here by name, and are imported when an entry of theirs is loaded."""


def load(entry: Entry, zoo: Zoo, backbone: Backbone) -> Loaded:
    """A stored entry of any kind in a fresh encoder. Files are checked against their hashes first.

    Raises:
        RequestError: an entry of another base, or of a method that this version does not know.
        ZooError: damaged files, missing sources, or weights that do not fit.
    """
    check_base(entry, backbone.base, head=True)
    zoo.load_check(entry)
    return LOADERS.get(entry.manifest.kind)(entry, zoo, held_for(entry, backbone))


def held_in(entry: Entry) -> str:
    """The precision in which the run of ``entry`` held its base."""
    return str(entry.manifest.run_settings.get("base_precision", "fp32"))


def held_for(entry: Entry, backbone: Backbone) -> Backbone:
    """``backbone`` in the precision in which the run of ``entry`` held it.

    Raises:
        RequestError: it cannot be here.
    """
    precision = held_in(entry)
    if precision == backbone.held_in:
        return backbone
    from mtl.backbone.held import hold

    return hold(backbone, precision)


def load_adapter(entry: Entry, zoo: Zoo, backbone: Backbone) -> Loaded:
    """A stage-one entry with its head; see :func:`load`."""
    from mtl.backbone import Network, load_head
    from mtl.backbone.bounded import bounded
    from mtl.backbone.injection import freeze
    from mtl.engine import Attached

    manifest = entry.manifest
    method = find_method(manifest.method, made_with(manifest))
    settings = make_settings(manifest.method, method.settings, dict(manifest.method_settings))
    encoder, name = backbone.encoder(), str(manifest.head["name"])
    with zoo.reading(entry), bounded(entry.ref):
        tuned = attach_stored(encoder, method, settings, name, entry.folder, active=True)
        head = load_head(entry.folder, encoder.config, pooler=backbone.pooler)
    freeze(head)
    network = Network(encoder, head).eval()
    densify = method.as_source and partial(method.as_source, encoder, settings, name)
    factors = None
    if method.composes == "low_rank" and method.load_source is not None:
        load_source = method.load_source

        def factors() -> Mapping[str, Factors]:
            from mtl.methods.modules.low_rank import low_rank_sources

            own = backbone.encoder()
            load_source(own, settings, name, entry.folder)
            return low_rank_sources(own)[name]

    attached = Attached(network, {}, [], caches=tuned.caches)
    return Loaded(entry, [entry], [name], network, attached, None, tuned, densify, factors)


LOADERS.add("adapter", load_adapter)
LOADERS.add("composition", "mtl.compose.stored:load_composition")
LOADERS.add("joint", "mtl.joint.training:load_joint")
