"""What is on the loopback Hub, what goes wrong there, and what it was asked."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LFS = (".safetensors", ".bin")
TOKENS = {"hf_ada": ("ada", "write"), "hf_bob": ("bob", "write"), "hf_read": ("ada", "read")}
PAGE = 7
"""Files per page of a tree: small, so that every listing has pages."""


@dataclass
class Fault:
    """What goes wrong with requests whose ``"METHOD /path"`` matches ``where`` (a regex).

    Attributes:
        kind: ``cut`` (the connection closes in the middle), ``status`` (of ``status``), ``slow``
            (an answer after ``seconds``), ``wrong`` (another body of the same size), ``truncated``
            (half a body, declared as such),
            ``lost`` (the request is carried out, its answer is cut).
        times: how often; -1 for always.
        skip: requests that pass before the first fault.
    """

    kind: str
    where: str
    times: int = 1
    skip: int = 0
    status: int = 503
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Repo:
    """One repository: commits as (id, files), branches by name.

    ``gated``: everybody sees that it is there; files go to who is logged in (and has consented).
    """

    private: bool
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        seed = repr((sorted(self.commits), sorted((n, sha256(d)) for n, d in files.items())))
        oid = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blob_id(data: bytes) -> str:
    """The id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str) -> bool:
    return path.endswith(LFS)


class Hub:
    """The state, and the server while it runs (see :func:`serving`).

    Attributes:
        log: ``(method, path, status)`` of every request, in order.
        faults: what is to go wrong; used up as it does.
        part_size: uploads above this many bytes go in parts of it; None for never.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.log: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.part_size: int | None = None
        self.url = ""
        self.lock = threading.RLock()
        self.received: list[bytes] = []
        """Headers and body of every request, as they came."""
        self.tokens: list[str] = []
        """The ``Authorization`` of every request that was answered."""
        self.twist: Callable[[str, int, dict[str, str], bytes], Any] = lambda *answer: answer[1:]
        """(request, status, headers, body) → what is answered instead."""

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What is in a repository."""
        found = self.repos[repo]
        return found.commits[found.branches.get(revision, revision)]

    def put(self, repo: str, files: dict[str, bytes], private: bool = False) -> str:
        """Files into a repository by another way than the client."""
        found = self.repos.setdefault(repo, Repo(private))
        head = found.branches.get("main")
        return found.commit("main", {**(found.commits[head] if head else {}), **files})

    def sent(self, pattern: str = r"PUT /lfs/") -> list[str]:
        """Successful requests whose ``"METHOD /path"`` matches."""
        return [
            f"{method} {path}"
            for method, path, status in self.log
            if re.search(pattern, f"{method} {path}") and status < 400
        ]

    def fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if not re.search(fault.where, request) or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code
