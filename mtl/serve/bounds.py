"""What a server takes from whoever asks, so that memory and time stay bounded; no heavy import."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mtl.errors import RequestError

MIB = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """Limits of a server; every one is above 0.

    Attributes:
        latency: seconds that a request waits for others to share its pass, at most.
        batch: encoded rows that are answered together (a row of a multiple choice counts once
            per choice, a long text of a span extraction once per window).
        queue: encoded rows that wait; further requests are told to come again (429).
        timeout: seconds until a request is given up (503 where it still waits, else 504).
        rows: rows per HTTP request.
        characters: per row, all its columns together.
        body: bytes of a request's body.
        reading: seconds that a client may take to send a request, or not to read its answer.
        connections: at the same time.
        memory: bytes that entries may take beside the encoder; 0 for no limit. The entry that was
            asked for least recently goes first, and comes back when it is asked for.
    """

    latency: float = 0.005
    batch: int = 64
    queue: int = 1024
    timeout: float = 30.0
    rows: int = 256
    characters: int = 20_000
    body: int = MIB
    reading: float = 10.0
    connections: int = 512
    memory: int = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least_zero = item.name in {"memory", "latency"}
            if not (0 <= value < float("inf")) or (value == 0 and not least_zero):
                raise RequestError(f"{item.name}={value} must be above 0.")
        if self.batch > self.queue:
            raise RequestError(f"batch={self.batch} is more than queue={self.queue} can hold.")
