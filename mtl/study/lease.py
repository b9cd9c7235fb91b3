"""A lease of a run: who on which machine is at it, in files of a folder that machines share.

``flock`` is freed by the system when its process dies, but not every shared filesystem carries it
from machine to machine. A lease needs a hard link, a rename and the filesystem's own clock::

    runs/<runhash>/lease.<n>    host, process and a secret of the holder; touched while it lives

The file with the highest number is the lease. It is linked into place whole, so of two that want
the same number one has it. A holder that falls silent, or whose process is gone from this machine,
is not waited for: the next one takes the next number. One that only slept sees the higher number
at its next beat and ends itself, so that no two go on with one run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtl.errors import HeldError, RunError
from mtl.files import TEMPORARY, writing

SECONDS = 60.0
"""Without a beat after which a holder is taken for dead."""
BEATS = 8
"""In that time, when all is well."""
LOST = 75
"""Exit code of a process whose lease another one has taken."""

_NAME = re.compile(r"lease\.(\d{1,9})")


@dataclass(frozen=True)
class Holder:
    """What a lease file says, and how long ago its holder last touched it."""

    number: int
    host: str
    space: str
    pid: int
    born: str
    secret: str
    silent: float

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}"

    def lives(self, seconds: float) -> bool:
        """Whether it is to be waited for."""
        here = self.host == os.uname().nodename and self.space and self.space == _space()
        return self.silent < seconds and not (here and _born(self.pid) != self.born)


@contextlib.contextmanager
def leased(
    folder: Path, doing: str, *, seconds: float = SECONDS, lost: Callable[[], Any] | None = None
) -> Iterator[None]:
    """Hold the lease of ``folder`` for the block.

    Args:
        doing: what is to be done, for messages.
        seconds: of silence after which another holder is taken for dead.
        lost: is called when another process has taken the lease; else this process ends at once.

    Raises:
        HeldError: a holder that lives has it.
        RunError: the system refuses.
    """
    own = take(folder, doing, seconds)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds / BEATS):
            try:
                if newest(folder) != own:
                    raise FileNotFoundError
                os.utime(own)  # without a time: the filesystem's own clock
            except FileNotFoundError:
                if not over.is_set():
                    (lost or _end)()
                return
            except OSError:  # a server that is away for a moment; the next beat asks again
                continue

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError):  # it falls silent then
            own.unlink(missing_ok=True)


def _end() -> None:
    os._exit(LOST)


def take(folder: Path, doing: str, seconds: float = SECONDS) -> Path:
    """Take the lease of ``folder``, and return its file. Raises as :func:`leased`."""
    with writing(f"the lease of {doing} in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        last = newest(folder)
        holder = read_holder(last, folder) if last is not None else None
        if holder is not None and holder.lives(seconds):
            raise _held(doing, holder.who)
        own = folder / f"lease.{_number(last) + 1}"
        if not _linked(own, folder):
            raise _held(doing, "another process")
    if newest(folder) != own:  # a look at the folder that was out of date
        own.unlink(missing_ok=True)
        raise _held(doing, "another process")
    for path in leases(folder):
        if path != own:
            path.unlink(missing_ok=True)
    return own


def _held(doing: str, who: str) -> HeldError:
    return HeldError(f"Cannot start {doing}: {who} is at it already.", who)


def leases(folder: Path) -> list[Path]:
    """Lease files of a folder, the lowest number first."""
    return sorted((p for p in folder.iterdir() if _NAME.fullmatch(p.name)), key=_number)


def newest(folder: Path) -> Path | None:
    """The lease file that counts."""
    found = leases(folder)
    return found[-1] if found else None


def _number(path: Path | None) -> int:
    return int(path.name.partition(".")[2]) if path is not None else 0


def read_holder(path: Path, folder: Path) -> Holder | None:
    """Who holds a lease; None where the file is gone or says nothing."""
    try:
        with path.open("rb") as stream:  # opening asks the server, where attributes are kept
            said = json.loads(stream.read(4096))
            touched = os.fstat(stream.fileno()).st_mtime
        return Holder(
            number=_number(path),
            host=str(said["host"]),
            space=str(said["space"]),
            pid=int(said["pid"]),
            born=str(said["born"]),
            secret=str(said["secret"]),
            silent=_now(folder) - touched,
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _now(folder: Path) -> float:
    """The time as the filesystem of ``folder`` counts it: machines' clocks differ."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{TEMPORARY}clock-") as stream:
        stream.write(b"0")
        stream.flush()
        return os.fstat(stream.fileno()).st_mtime


def _linked(own: Path, folder: Path) -> bool:
    """Whether ``own`` is now ours, whole from its first moment on."""
    said = {
        "host": os.uname().nodename,
        "space": _space(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "secret": secrets.token_hex(16),
    }
    handle, temporary = tempfile.mkstemp(dir=folder, prefix=f"{TEMPORARY}lease-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(said))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, own)
        # NFS may say that it was there when our own first asking has made it
        return os.stat(temporary).st_nlink == 2
    finally:
        os.unlink(temporary)


def _space() -> str:
    """The space in which process numbers of this process mean something; empty: nobody can say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str:
    """When a process of this machine began, in ticks; empty: it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in {"Z", "X"} else fields[19]


def lease_seconds() -> float:
    """``MTL_LEASE_SECONDS``, else :data:`SECONDS`. Raises RunError."""
    said = os.environ.get("MTL_LEASE_SECONDS") or str(SECONDS)
    try:
        found = float(said)
    except ValueError:
        found = 0.0
    if not 1 <= found < float("inf"):
        raise RunError(f"MTL_LEASE_SECONDS must be a number of seconds from 1 on, not {said!r}.")
    return found
