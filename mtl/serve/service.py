"""The entries that a server answers with: found, loaded, let go; requests read and bounded."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mtl.errors import MtlError, RequestError
from mtl.predict.many import Asked, Models
from mtl.predict.naming import find_ref, short_ref
from mtl.serve.batcher import Batcher, Job, StoppingError
from mtl.serve.metrics import Metrics
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.predict.answers import Answers
    from mtl.runs import Workspace
    from mtl.serve.bounds import Bounds
    from mtl.zoo import Entry

_log = logging.getLogger("mtl")
_NAME = re.compile(r"[A-Za-z0-9_.+\-]+(/[A-Za-z0-9_.+\-]+)*")


class UnknownEntryError(RequestError):
    """No entry of this name is served."""


class FullError(MtlError):
    """Memory is taken by entries that are being asked."""


@dataclass(frozen=True)
class Wanted:
    """One request of an HTTP body: rows for an entry, and how its answers are wanted."""

    entry: str
    inputs: Sequence[Any]
    task: str | None = None
    scores: bool = False


@dataclass
class Flight:
    """A request on its way; ``job`` once it is read."""

    job: Job | None = None

    @property
    def started(self) -> bool:
        """Whether it is being computed."""
        return self.job is not None and self.job.started

    def drop(self) -> None:
        """Nobody waits for it any more."""
        if self.job is not None:
            self.job.dropped = True


class Answering(Protocol):
    """What the HTTP application needs of what answers: here, or on the replicas of a cluster."""

    bounds: Bounds
    metrics: Metrics

    @property
    def served(self) -> Mapping[str, Entry]: ...

    @property
    def alive(self) -> bool: ...

    def check(self) -> None:
        """Raises BusyError or StoppingError where nothing more is taken now."""

    async def answers(self, wanted: Sequence[Wanted], flight: Flight) -> list[dict[str, Any]]:
        """Answers to each request, as JSON."""

    def listed(self) -> list[dict[str, Any]]: ...

    def take(self, name: str) -> str: ...

    def drop(self, name: str) -> str: ...

    def close(self) -> None: ...


class Service:
    """Models, the queue before them, and who may stay in memory.

    Everything that changes or runs models is done by the worker of :attr:`batcher`. Requests are
    read (templates, tokens) by one further thread, since tokenizers are not for several.

    Attributes:
        served: reference → entry, of all that is answered; loaded or not.

    Args:
        model: the base of all entries; None: as each of them says.
    """

    def __init__(self, workspace: Workspace, bounds: Bounds, model: str | None = None) -> None:
        self.bounds, self.workspace = bounds, workspace
        self.served: dict[str, Entry] = {}
        self.models = Models(workspace, model)
        self.metrics = Metrics()
        self._lock = threading.Lock()
        self._pins: dict[str, int] = {}
        self._used: dict[str, int] = {}  # when each was asked last, by a count
        self._clock = 0
        self._reader = ThreadPoolExecutor(1, "mtl-read")
        self.batcher = Batcher(self.models.answer, bounds, self._sweep, self.metrics.batch)
        self.metrics.watch(self)

    def serve(self, entries: Sequence[Entry]) -> None:
        """Answer for these entries, too, and load as many of them as memory allows.

        Raises:
            RequestError, ZooError: as :meth:`mtl.predict.Models.add`.
        """

        def load() -> None:
            for entry in entries:
                self.models.add([entry])
                with self._lock:
                    self.served[entry.ref] = entry
                if self._evict(keep=entry.ref):
                    break  # full: the others come when they are asked for

        self.batcher.call(load).result()
        with self._lock:
            self.served |= {entry.ref: entry for entry in entries}

    @property
    def alive(self) -> bool:
        """Whether the worker takes requests."""
        return self.batcher.alive

    def check(self) -> None:
        """Raises BusyError or StoppingError where nothing more is taken now."""
        self.batcher.check()

    async def answers(self, wanted: Sequence[Wanted], flight: Flight) -> list[dict[str, Any]]:
        """Answers to each request, as JSON: read, queued, waited for.

        Raises:
            UnknownEntryError, RequestError, BusyError, StoppingError, FullError.
        """
        refs = self.pin([item.entry for item in wanted])
        try:
            loading = self.ready(refs)
            if loading is not None:
                await asyncio.wrap_future(loading)
            job: Job = await asyncio.wrap_future(self.read(wanted, refs))
            flight.job = job
            self.batcher.put(job)
            found = await asyncio.wrap_future(job.answers)
        finally:
            self.unpin(refs)
        return [
            spoken(ref, item, asked, answers)
            for ref, item, asked, answers in zip(refs, wanted, job.asked, found, strict=True)
        ]

    def find(self, name: str) -> str:
        """The reference of a served entry. Raises UnknownEntryError."""
        with self._lock:
            return find_served(name, list(self.served))

    def drop(self, name: str) -> str:
        """Answer for an entry no more; it leaves memory when what is in flight is answered.

        Raises:
            UnknownEntryError: it is not served.
        """
        ref = self.find(name)
        with self._lock:
            del self.served[ref]
        self.batcher.call(lambda: None)  # the worker sweeps after it
        return ref

    def take(self, name: str) -> str:
        """Serve a further entry of the zoo, by its reference or the last parts of it.

        Raises:
            RequestError: no such name, or one that cannot be loaded.
            ZooError: its files are damaged.
        """
        if len(name) > 400 or not _NAME.fullmatch(name) or ".." in name:
            raise RequestError(
                f"{name[:60]!r} is no reference of an entry: parts of ASCII letters, digits and "
                "_ - . + joined by '/'."
            )
        entry = self.workspace.zoo.get(name)
        if entry.manifest.control:
            raise RequestError(f"{entry.ref} is a control, which knows nothing; it is not served.")
        self.serve([entry])
        return entry.ref

    def pin(self, names: Sequence[str]) -> list[str]:
        """The references of ``names``, which stay loaded until :meth:`unpin`.

        Raises:
            UnknownEntryError: one of them is not served.
        """
        refs = [self.find(name) for name in names]
        with self._lock:
            for ref in refs:
                self._clock += 1
                self._used[ref] = self._clock
                self._pins[ref] = self._pins.get(ref, 0) + 1
        return refs

    def unpin(self, refs: Sequence[str]) -> None:
        """What :meth:`pin` gave is not needed any more."""
        with self._lock:
            for ref in refs:
                self._pins[ref] -= 1
                if not self._pins[ref]:
                    del self._pins[ref]
            late = any(ref not in self.served and ref not in self._pins for ref in refs)
        if late:  # the worker swept while this was in flight, and may have nothing else to do
            with suppress(StoppingError):
                self.batcher.call(lambda: None)

    def ready(self, refs: Sequence[str]) -> Any:
        """A future of having pinned entries in memory; None where they are there.

        It raises FullError where they do not fit, ZooError where one is damaged.
        """
        if all(ref in self.models.entries for ref in refs):
            return None

        def load() -> None:
            for ref in refs:
                if ref not in self.models.entries:
                    entry = self.served.get(ref)
                    if entry is None:
                        raise UnknownEntryError(f"{short_ref(ref)} was unloaded just now.")
                    self.models.add([entry])
                    self._evict(keep=ref)

        return self.batcher.call(load)

    def read(self, wanted: Sequence[Wanted], refs: Sequence[str]) -> Any:
        """A future of the :class:`Job` that requests for pinned, loaded entries make.

        It raises RequestError for rows that are too many, too long, or not those of the task.
        """
        return self._reader.submit(self._read, wanted, refs)

    def _read(self, wanted: Sequence[Wanted], refs: Sequence[str]) -> Job:
        bounds, asked = self.bounds, []
        total = sum(len(item.inputs) for item in wanted)
        if total > bounds.rows:
            raise RequestError(
                f"The request has {total} rows; at most {bounds.rows} are taken at once: send "
                "several requests."
            )
        for place, (item, ref) in enumerate(zip(wanted, refs, strict=True)):
            where = f"request {place}, " if len(wanted) > 1 else ""
            for number, row in enumerate(item.inputs):
                length = _characters(row)
                if length > bounds.characters:
                    raise RequestError(
                        f"{where}row {number} has {length:,} characters; at most "
                        f"{bounds.characters:,} are taken. Cut it: the model reads "
                        f"{self.models.longest(ref)} tokens."
                    )
            try:
                asked.append(self.models.read(ref, item.inputs, task=item.task))
            except RequestError as error:
                raise RequestError(f"{where}{error}" if where else str(error)) from error
        job = Job(asked)
        if job.rows > bounds.queue:
            raise RequestError(
                f"The request's rows make {job.rows} encoded ones; at most {bounds.queue} are "
                "taken: send several requests."
            )
        return job

    def listed(self) -> list[dict[str, Any]]:
        """What ``GET /v1/entries`` says of every entry."""
        with self._lock:
            served = dict(self.served)
        return [
            {
                **told,
                "loaded": told["entry"] in self.models.entries,
                "alone": self.models.alone.get(told["entry"]),
            }
            for told in described(served)
        ]

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self.batcher.stop()
        self._reader.shutdown()

    def _evict(self, keep: str) -> bool:
        """Let go who was asked least recently until memory suffices; by the worker alone.

        Returns:
            Whether any entry had to go.

        Raises:
            FullError: it does not, and all others are being asked; then ``keep`` goes, too.
        """
        most, evicted = self.bounds.memory, False
        while most and self.models.bytes > most and len(self.models.entries) > 1:
            with self._lock:
                free = [ref for ref in self.models.entries if ref != keep and ref not in self._pins]
            if not free:
                self.models.remove(keep)
                raise FullError(
                    f"Memory for entries ({most:,} bytes) is taken by those that are being asked; "
                    "ask again, or start the server with more --memory."
                )
            gone = min(free, key=lambda ref: self._used.get(ref, 0))
            self.models.remove(gone)
            evicted = True
            _log.info("unloaded %s: memory is limited", short_ref(gone))
        return evicted

    def _sweep(self) -> None:
        """Let go what is served no more and not in flight; by the worker alone."""
        with self._lock:
            gone = [
                ref
                for ref in self.models.entries
                if ref not in self.served and ref not in self._pins
            ]
        for ref in gone:
            self.models.remove(ref)
            self._used.pop(ref, None)


def find_served(name: str, refs: Sequence[str]) -> str:
    """The one of ``refs`` that is meant. Raises UnknownEntryError."""
    try:
        return find_ref(name, refs)
    except RequestError as error:
        text = str(error).replace("loaded. ", "served. ").replace("Loaded:", "Served:")
        raise UnknownEntryError(f"{text} GET /v1/entries lists them.") from error


def described(served: Mapping[str, Entry]) -> list[dict[str, Any]]:
    """What manifests tell of served entries, for ``GET /v1/entries``."""
    names = Counter(short_ref(ref) for ref in served)
    found: list[dict[str, Any]] = []
    for ref, entry in served.items():
        short, manifest = short_ref(ref), entry.manifest
        test = manifest.headline()
        found.append(
            {
                "entry": ref,
                "name": short if names[short] == 1 else ref,
                "kind": manifest.kind,
                "task": str(manifest.task["id"]),
                "method": manifest.method,
                "test": None if test is None else test["value"],
            }
        )
    return found


def _characters(row: Any) -> int:
    """Of all texts in a row, whatever its form."""
    if isinstance(row, str):
        return len(row)
    if isinstance(row, Mapping):
        return sum(_characters(value) for value in row.values())
    if isinstance(row, list | tuple):
        return sum(_characters(value) for value in row)
    return 1


def spoken(ref: str, wanted: Wanted, asked: Asked, answers: Answers) -> dict[str, Any]:
    """Answers to one request as JSON."""
    found: dict[str, Any] = {
        "entry": ref,
        "task": asked.spec.id,
        "predictions": list(answers.labels),
    }
    if wanted.scores:
        found["scores"] = [row["scores"] for row in answers.rows()]
    if asked.unseen:
        found["note"] = (
            f"{counted(asked.unseen, 'row')} of groups that training did not know: answered by "
            "the pooled gates"
        )
    return found
