"""Many entries that answer side by side: on one encoder in one pass where they can."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.backbone import load_backbone
from mtl.compose.stored import find_parents
from mtl.data.batches import cut
from mtl.data.new_rows import NEW, new_rows
from mtl.engine import EvalSet, open_device
from mtl.engine.evaluation import answer, stacked
from mtl.engine.feed import joined, to_device
from mtl.engine.passes import piece_overhead, usual_passes
from mtl.engine.progress import progress as showing
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.export.folding import UnfoldableError
from mtl.predict.answers import Answers, of_logits, unseen_text
from mtl.predict.mixed import Mixed
from mtl.predict.model import Model
from mtl.predict.naming import find_ref, short_ref
from mtl.predict.parts import (
    Parts,
    SourceParts,
    composed_parts,
    is_plain_sum,
    read_parts,
    why_alone,
)
from mtl.predict.shared_base import SharedBase
from mtl.predict.tables import to_table
from mtl.runs.loading import (
    answer_passes,
    base_of,
    check_base,
    held_for,
    held_in,
    load,
    precision_of,
)

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import Encoded
    from mtl.engine import Device
    from mtl.runs import Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry

MOST_ROWS = 256
"""Sequences in one pass: each has its entry's scaled sources beside its activations."""

_log = logging.getLogger("mtl")


@dataclass(frozen=True)
class Asked:
    """Rows for one entry, read and tokenised.

    Attributes:
        ref: of the entry.
        unseen: rows of groups that training did not know, which pooled gates answer.
    """

    ref: str
    spec: TaskSpec
    encoded: Encoded
    unseen: int = 0


class Models:
    """Entries of a zoo, loaded side by side.

    All that are sums of plain sources on one base (single bottleneck and low-rank adapters, and
    compositions of the ScaLearn family of them, with gates by group or without) share one frozen
    encoder, those that were trained on a base held in bf16 another one, and sources that are the
    same lie in memory once: such an entry is its scales and its head. Rows of any of them go
    through their encoder together (:mod:`mtl.predict.mixed`), with the answers that each entry
    gives alone, to rounding. Others are loaded whole, and answered one by one: :attr:`alone`.

    Attributes:
        entries: reference → entry, in the order in which they were added.
        alone: reference → why this entry shares no pass with others.

    Args:
        model: the base of all entries; None: as each of them says.
    """

    def __init__(self, workspace: Workspace, model: str | None = None) -> None:
        self.workspace = workspace
        self.entries: dict[str, Entry] = {}
        self.alone: dict[str, str] = {}
        self._model = model
        self._names: dict[str, str] = {}
        self._whole: dict[str, Model] = {}
        self._readers: dict[str, Model] = {}
        self._mixed: dict[str, Mixed] = {}  # by the precision in which its encoder is held
        self._first: Backbone | None = None  # the base of those that share passes
        self._shared: SharedBase | None = None
        self._devices: dict[str, Device] = {}
        self._seen: dict[str, Parts] = {}  # digest of a source → its parts without tensors

    def add(self, entries: Sequence[Entry | str]) -> None:
        """Load further entries; those that are there stay as they are.

        Raises:
            RequestError: no such entry, or several; nobody says where its base is.
            ZooError: files of one are damaged.
        """
        try:
            for item in entries:
                entry = self.workspace.zoo.get(item) if isinstance(item, str) else item
                if isinstance(item, str):
                    self._names[item] = entry.ref
                if entry.ref not in self.entries:
                    self._load(entry)
                    self.entries[entry.ref] = entry
        finally:
            for mixed in self._mixed.values():
                mixed.seal()

    def remove(self, name: str) -> None:
        """Let an entry go, and the memory that it alone used. Raises RequestError."""
        ref = self.find(name)
        held = held_in(self.entries[ref])
        del self.entries[ref], self._readers[ref]
        self._names = {name: known for name, known in self._names.items() if known != ref}
        if self.alone.pop(ref, None) is not None:
            del self._whole[ref]
            return
        self._mixed[held].remove(ref)
        self._mixed[held].seal()
        if not self._mixed[held].groups:
            del self._mixed[held]

    def find(self, name: str) -> str:
        """The reference of a loaded entry by what it was loaded as, or the last parts of it.

        Raises:
            RequestError: none or several of those loaded; says which there are.
        """
        if name in self.entries:
            return name
        return self._names.get(name) or find_ref(name, list(self.entries))

    def predict(
        self,
        inputs: Mapping[str, Any],
        *,
        scores: bool = False,
        task: str | None = None,
        progress: bool | None = None,
    ) -> dict[str, Any]:
        """Answer new rows of several entries, those that can share passes in the same ones.

        Args:
            inputs: entry → its rows, in any form that :meth:`Model.predict` takes.
            scores: give :class:`Answers`, with scores and logits, instead of labels alone.
            task: which of the tasks of a joint model.
            progress: show a bar; None: where a terminal watches.

        Returns:
            For each name given, what :meth:`Model.predict` of its entry gives.

        Raises:
            RequestError: an entry that is not loaded, or rows that its task cannot read.
        """
        with showing(progress):
            asked = [self.read(name, rows, task=task) for name, rows in inputs.items()]
            found = self.answer(asked)
        for name, item, answers in zip(inputs, asked, found, strict=True):
            if item.unseen:
                gate = self._readers[item.ref].gate
                _log.warning("%s: %s", name, unseen_text(gate, item.unseen, len(answers)))
        return {
            name: answers if scores else list(answers.labels)
            for name, answers in zip(inputs, found, strict=True)
        }

    def read(self, name: str, rows: Any, *, task: str | None = None) -> Asked:
        """Rows as a task's templates render them, tokenised: what :meth:`answer` takes.

        Raises:
            RequestError: an entry that is not loaded, or rows that its task cannot read.
        """
        ref = self.find(name)
        reader = self._readers[ref]
        spec = reader.spec(task)
        data = new_rows(spec, to_table(spec, rows), gate=reader.gate)
        unseen = reader.unseen(data) if reader.gate else 0
        return Asked(ref, spec, reader.backbone.encode(data, NEW), unseen)

    def longest(self, name: str) -> int:
        """Tokens that an entry reads of a text, or of a pair."""
        reader = self._readers[self.find(name)]
        lengths = [reader.spec(task).max_length for task in reader.tasks]
        return min(max(lengths), reader.backbone.tokens)

    def answer(self, asked: Sequence[Asked]) -> list[Answers]:
        """Answers to each of ``asked``, in their order; see :meth:`predict`."""
        found: list[Answers | None] = [None] * len(asked)
        together: dict[tuple[str, str], list[int]] = {}
        for place, item in enumerate(asked):
            if item.ref in self.alone:
                whole = self._whole[item.ref]
                data = EvalSet(item.spec, item.encoded)
                passes = answer_passes(whole.entry)
                _, logits = answer(whole.loaded.attached, data, whole.device, passes)
                found[place] = of_logits(item.spec, logits, item.encoded)
            else:
                key = held_in(self.entries[item.ref]), self._precision(item.ref)
                together.setdefault(key, []).append(place)
        for (held, precision), places in together.items():
            logits_of = self._pass([asked[place] for place in places], held, precision)
            for place, logits in zip(places, logits_of, strict=True):
                item = asked[place]
                found[place] = of_logits(item.spec, logits, item.encoded)
        return [answers for answers in found if answers is not None]

    @property
    def bytes(self) -> int:
        """What the entries take in memory beside the one encoder."""
        own = sum(mixed.bytes for mixed in self._mixed.values())
        for held, mixed in self._mixed.items():
            if held != "fp32":  # an encoder of its own
                own += sum(t.nbytes for t in mixed.encoder.parameters())
        for whole in self._whole.values():
            shared = {id(tensor) for tensor in whole.backbone.pristine.parameters()}
            network = whole.loaded.network
            tensors = {id(t): t for t in (*network.parameters(), *network.buffers())}
            own += sum(t.nbytes for key, t in tensors.items() if key not in shared)
        return own

    def _pass(self, asked: Sequence[Asked], held: str, precision: str) -> list[np.ndarray]:
        """Logits (n,·) of each of ``asked``, from as few passes as the rows' lengths allow."""
        mixed, device = self._mixed[held], self._device(precision)
        owner = np.concatenate([np.full(len(item.encoded), i) for i, item in enumerate(asked)])
        row = np.concatenate([np.arange(len(item.encoded)) for item in asked])
        tokens = np.concatenate([item.encoded.tokens_per_row for item in asked])
        wide = np.array([item.encoded.choices for item in asked])
        limit = usual_passes(device.torch_device).tokens
        most = max(1, MOST_ROWS // int(wide.max()))
        hidden = mixed.encoder.config.hidden_size
        overhead = piece_overhead(RunSettings(), device.torch_device, hidden)
        turn = np.empty(len(asked), dtype=np.int64)  # of each in the order of a mixed batch
        ranks = [mixed.rank(item.ref) for item in asked]
        turn[sorted(range(len(asked)), key=ranks.__getitem__)] = np.arange(len(asked))
        parts: list[list[np.ndarray | None]] = [[None] * len(item.encoded) for item in asked]
        for piece in cut(tokens, overhead, most, limit):
            placed = piece[np.argsort(turn[owner[piece]], kind="stable")]
            batches, names, groups = [], [], []
            for i, group in groupby(placed, key=lambda at: owner[at]):
                rows = row[list(group)]
                batches.append(asked[i].encoded.collate(rows))
                names += [asked[i].ref] * (len(rows) * int(wide[i]))
                each = batches[-1].get("group") or [""] * len(rows)
                groups += [name for name in each for _ in range(int(wide[i]))]
            batch = to_device(joined(batches, asked[0].encoded.pad_id), device.torch_device)
            with device.autocast():
                logits = mixed(batch, names, groups)
            start = 0
            for at in placed:
                stop = start + int(wide[owner[at]])
                own = torch.stack(logits[start:stop]).float().reshape(-1)
                parts[owner[at]][row[at]], start = own.cpu().numpy()[None], stop
        return [stacked([part for part in own if part is not None]) for own in parts]

    def _load(self, entry: Entry) -> None:
        zoo = self.workspace.zoo
        reason, changed = why_alone(entry, zoo)
        backbone, own = self._base(entry)
        if own is not None:
            reason = reason or own
        shared = backbone if changed or self._on_gpu else SharedBase(backbone)
        if not reason:
            try:
                parts = self._parts(entry)
            except UnfoldableError as error:
                reason = error.reason
            else:
                held = held_in(entry)
                if held not in self._mixed:
                    device = self._device("fp32").torch_device
                    self._mixed[held] = Mixed(held_for(entry, shared), device)
                self._mixed[held].add(entry.ref, parts)
                self._readers[entry.ref] = Model(entry, self.workspace, backbone)
                return
        whole = Model(entry, self.workspace, shared)
        _ = whole.loaded
        self.alone[entry.ref] = reason
        self._whole[entry.ref] = self._readers[entry.ref] = whole

    def _parts(self, entry: Entry) -> Parts:
        """The parts of an entry on the shared base. Raises UnfoldableError."""
        zoo, shared = self.workspace.zoo, self._shared
        assert shared is not None
        if entry.manifest.kind == "composition" and is_plain_sum(entry):
            held = held_in(entry)
            parents = [self._source(parent, held) for parent in find_parents(entry, zoo)]
            found = composed_parts(entry, parents, shared, zoo)
            if found is not None:
                return found
        return read_parts(load(entry, zoo, shared))

    def _source(self, entry: Entry, held: str) -> Parts:
        """The parts of a source; its tensors are those that other entries hold, if they do."""
        known = self._seen.get(entry.digest)
        if known is not None and held in self._mixed:
            source = self._mixed[held].source(known.sources[0].key)
            if source is not None:
                return replace(known, sources=[source])
        assert self._shared is not None
        found = read_parts(load(entry, self.workspace.zoo, self._shared))
        bare = [SourceParts(source.key, {}) for source in found.sources]
        self._seen[entry.digest] = replace(found, sources=bare, head=None)
        return found

    def _base(self, entry: Entry) -> tuple[Backbone, str | None]:
        """The base of an entry, and why it cannot be the one of the others, if it is not.

        It is the base itself, of which an entry that changes its tensors takes copies.
        """
        if self._first is not None:
            try:
                check_base(entry, self._first.base, head=True)
            except RequestError:
                if self._model is not None:
                    raise
            else:
                return self._first, None
        backbone = load_backbone(base_of(entry, self._model))
        check_base(entry, backbone.base, head=True)
        if self._first is None:
            self._first, self._shared = backbone, SharedBase(backbone)
            return backbone, None
        return backbone, f"its base is another one than that of the others, {backbone.base.id}"

    @property
    def _on_gpu(self) -> bool:
        return self._device("fp32").torch_device.type != "cpu"

    def _device(self, precision: str) -> Device:
        if precision not in self._devices:
            hidden = self._shared.base.hidden_size if self._shared is not None else None
            self._devices[precision] = open_device(precision, hidden_size=hidden)
        return self._devices[precision]

    def _precision(self, ref: str) -> str:
        """That of the entry's own answers: rows of two precisions share no pass."""
        return precision_of(self.entries[ref])


def open_models(
    entries: Sequence[Entry | str], workspace: Workspace, model: str | None = None
) -> Models:
    """Load ``entries`` side by side; who is answered alone, and why, is logged.

    Raises:
        RequestError, ZooError: as :meth:`Models.add`; no entry at all.
    """
    if not entries:
        raise RequestError("There is no entry to load; name at least one.")
    found = Models(workspace, model)
    found.add(entries)
    if found.alone and len(found.entries) > 1:
        said = "; ".join(f"{short_ref(ref)}: {why}" for ref, why in found.alone.items())
        _log.warning(
            "%s of %s entries answered one by one: %s", len(found.alone), len(found.entries), said
        )
    return found
