"""The same service on several replicas, which Ray Serve starts, watches and routes to.

Each replica is a :class:`~mtl.serve.service.Service` of its own, with its queue and its worker; the
HTTP application with its bounds stays in the process that was started. Requests are multiplexed by
entry: Ray sends those for an entry to replicas that have it loaded, so that entries are shared out
by demand, and requests that meet on a replica share its batches.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mtl.engine.ray_start import start_ray
from mtl.errors import RequestError
from mtl.serve.batcher import BusyError, StoppingError
from mtl.serve.metrics import Metrics
from mtl.serve.service import Flight, FullError, UnknownEntryError, Wanted, described, find_served

if TYPE_CHECKING:
    from mtl.runs import Workspace
    from mtl.serve.bounds import Bounds
    from mtl.zoo import Entry

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
PASSED = ("MTL_CACHE", "MTL_MODEL", "HF_HUB_OFFLINE", "ACCELERATE_USE_CPU")
_RAISED = {kind.__name__: kind for kind in (UnknownEntryError, FullError, StoppingError)}


class Replica:
    """A service in a process of its own; entries are loaded when they are first asked for."""

    def __init__(self, zoo: str, refs: Sequence[str], bounds: Bounds, model: str | None) -> None:
        from mtl.runs.workspace import open_workspace
        from mtl.serve.service import Service

        workspace = open_workspace(zoo=zoo)
        self.service = Service(workspace, bounds, model)
        self.service.served = {ref: workspace.zoo.get(ref) for ref in refs}

    async def hold(self, ref: str) -> str:
        """Ray remembers for whom this was called, and prefers this replica for them."""
        loading = self.service.ready([ref])
        if loading is not None:
            await asyncio.wrap_future(loading)
        return ref

    async def answer(self, ref: str, wanted: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Answers, or what was raised, by name: Ray would wrap it."""
        asked = [Wanted(**item) for item in wanted]
        try:
            await self.hold(ref)
            return {"answers": await self.service.answers(asked, Flight())}
        except BusyError as error:
            return {"raised": "BusyError", "text": str(error), "seconds": error.seconds}
        except (RequestError, FullError, StoppingError) as error:
            return {"raised": type(error).__name__, "text": str(error)}

    def check_health(self) -> None:
        """Ray replaces a replica whose worker died."""
        if not self.service.alive:
            raise RuntimeError("the worker of this replica is gone")


class RayService:
    """What :class:`~mtl.serve.service.Answering` promises, by replicas.

    Args:
        entries: what is served.
        replicas: how many, each with a core.
        address: of a cluster that is there; None: Ray on this machine, for this server alone.

    Raises:
        RequestError: Ray Serve is not installed, or Ray does not answer.
    """

    def __init__(
        self,
        workspace: Workspace,
        bounds: Bounds,
        entries: Sequence[Entry],
        *,
        model: str | None,
        replicas: int,
        address: str | None = None,
    ) -> None:
        self.bounds, self.metrics = bounds, Metrics()
        self.served = {entry.ref: entry for entry in entries}
        self._open = True
        self._ray = _connect(replicas, address)
        from ray import serve

        class Multiplexed(Replica):
            hold = serve.multiplexed(max_num_models_per_replica=len(entries))(Replica.hold)

        deployed = serve.deployment(
            name="mtl", num_replicas=replicas, max_ongoing_requests=bounds.queue
        )(Multiplexed)
        serve.start(proxy_location="Disabled")
        root = str(workspace.zoo.root)
        app = deployed.bind(root, list(self.served), bounds, model)
        self._handle = serve.run(app, name="mtl", route_prefix=None)

    @property
    def alive(self) -> bool:
        """Whether requests are taken."""
        return self._open

    def check(self) -> None:
        """Raises StoppingError at the end; how much waits is known to the replicas."""
        if not self._open:
            raise StoppingError("This server is about to end; ask another one, or again later.")

    async def answers(self, wanted: Sequence[Wanted], flight: Flight) -> list[dict[str, Any]]:
        """Answers to each request; those for one entry go to one replica."""
        refs = [find_served(item.entry, list(self.served)) for item in wanted]
        places: dict[str, list[int]] = {}
        for place, ref in enumerate(refs):
            places.setdefault(ref, []).append(place)

        async def ask(ref: str) -> list[dict[str, Any]]:
            handle = self._handle.options(multiplexed_model_id=ref)
            asked = [asdict(wanted[place]) | {"entry": ref} for place in places[ref]]
            return _unpacked(await handle.answer.remote(ref, asked))

        found = await asyncio.gather(*(ask(ref) for ref in places))
        by_place = {
            place: answer
            for ref, answers in zip(places, found, strict=True)
            for place, answer in zip(places[ref], answers, strict=True)
        }
        return [by_place[place] for place in range(len(wanted))]

    def listed(self) -> list[dict[str, Any]]:
        """What manifests tell; which replicas have an entry loaded is Ray's to know."""
        return described(self.served)

    def take(self, name: str) -> str:
        """Refused: the entries of replicas are those that they were started with."""
        raise RequestError("With --engine ray entries are those that the server was started with.")

    drop = take

    def close(self) -> None:
        """End the replicas, and Ray where it was started for them."""
        from ray import serve

        self._open = False
        serve.delete("mtl")
        self._ray.shutdown()


def _unpacked(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "answers" in told:
        return list(told["answers"])
    if told["raised"] == "BusyError":
        busy = BusyError(0, 0, told["seconds"])
        busy.args = (told["text"],)
        raise busy
    raise _RAISED.get(told["raised"], RequestError)(told["text"])


def _connect(replicas: int, address: str | None) -> Any:
    environment = dict.fromkeys(THREADS, "1") | {"TOKENIZERS_PARALLELISM": "false"}
    environment |= {name: os.environ[name] for name in PASSED if name in os.environ}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return start_ray(address, cores=replicas, environment=environment, who="server", serve=True)
