"""What machines that run one study must share, and what shows that they do.

Zoo, runs and cache are folders that all of them see. In the folder of the runs the driver leaves a
file (:func:`leave_token`); on every machine :func:`look` reads it, writes beside it, and says what
is missing there and which versions it has. :func:`check_folder` asks of a filesystem what atomic
writing and leases rest on. None of it loads torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mtl.errors import RequestError, RunError
from mtl.files import TEMPORARY, sha256_bytes, writing

PACKAGES = ("torch", "transformers", "adapters", "datasets", "safetensors", "numpy", "ray")
"""Whose versions may decide what a run computes, or whether it can."""


@dataclass(frozen=True)
class Token:
    """What the driver left: a file in the folder of the runs, what it says, and its versions.

    Attributes:
        locked: whether the filesystem let the driver lock the file.
        driver: name of its machine.
    """

    file: str
    content: str
    locked: bool
    driver: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Seen:
    """What a machine found.

    Attributes:
        problems: why it cannot be used, each a whole sentence.
        flock: whether it sees the driver's lock; None where that is no question (same machine).
        answer: a file that it left for the driver to see.
    """

    host: str
    problems: tuple[str, ...] = ()
    flock: bool | None = None
    answer: str = ""


def check_folder(folder: Path, what: str) -> None:
    """Try what is asked of a shared filesystem, on this machine.

    Args:
        what: the folder is, for messages.

    Raises:
        RequestError: it lacks one of them; says which.
        RunError: it cannot be written.
    """
    with writing(f"into {what} {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{TEMPORARY}check-") as name:
            place = Path(name)
            (place / "old").write_text("old", encoding="utf-8")
            (place / "new").write_text("new", encoding="utf-8")
            lacks = _lacks(place)
    if lacks:
        raise RequestError(
            f"{what} {folder}: this filesystem has no {', '.join(lacks)}, by which workers keep "
            "out of each other's way. Choose a folder on one that has: NFS, Lustre, GPFS and "
            "CephFS do, stores of objects do not."
        )


def _lacks(place: Path) -> list[str]:
    lacks = []
    old, new = place / "old", place / "new"
    try:
        os.link(old, place / "link")
        with contextlib.suppress(FileExistsError):
            os.link(new, place / "link")
            lacks.append("link that refuses a name that is taken")
    except OSError:
        lacks.append("hard links")
    try:
        with old.open("rb") as stream:
            os.replace(new, old)
            if stream.read() != b"old" or old.read_bytes() != b"new":
                lacks.append("rename that leaves readers the old file")
        (place / "a").mkdir()
        (place / "b").mkdir()
        (place / "b" / "file").touch()
        with contextlib.suppress(OSError):
            os.rename(place / "a", place / "b")
            lacks.append("rename that refuses a folder that is filled")
    except OSError:
        lacks.append("rename over a file that is there")
    before = old.stat().st_mtime
    os.utime(old, (before - 100, before - 100))
    os.utime(old)
    if abs(old.stat().st_mtime - before) > 50:
        lacks.append("times of files that follow a clock")
    return lacks


@contextlib.contextmanager
def leave_token(runs: Path) -> Iterator[Token]:
    """A file in the folder of the runs that holds a secret, locked for the block."""
    with writing(f"into the runs folder {runs}"):
        runs.mkdir(parents=True, exist_ok=True)
        content = secrets.token_hex(16)
        # closed, and so removed, at the end of the block below
        stream = tempfile.NamedTemporaryFile(dir=runs, prefix=f"{TEMPORARY}token-")  # noqa: SIM115
        stream.write(content.encode())
        stream.flush()
        os.fsync(stream.fileno())
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locks = True
        except OSError:
            locks = False
        yield Token(stream.name, content, locks, os.uname().nodename, versions())


def look(token: Token, needed: Sequence[str]) -> Seen:
    """What this machine has of what a study needs.

    Args:
        needed: absolute paths that must be there.
    """
    host = os.uname().nodename
    problems = []
    flock = None
    answer = ""
    file = Path(token.file)
    try:
        if file.read_text(encoding="utf-8") != token.content:
            raise FileNotFoundError
    except OSError:
        problems.append(
            f"does not see the runs folder {file.parent} of {token.driver} (--runs, MTL_RUNS): it "
            "must be on a filesystem that all machines share, at the same path"
        )
    else:
        flock = None if host == token.driver or not token.locked else _sees_lock(file)
        try:
            handle, answer = tempfile.mkstemp(dir=file.parent, prefix=f"{TEMPORARY}answer-")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(token.content)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            problems.append(f"cannot write into {file.parent} ({error.strerror or error})")
    absent = [path for path in needed if not os.path.exists(path)]
    if absent:
        problems.append(f"does not have {', '.join(absent)}")
    other = [
        f"{name} {own} (not {token.versions[name]})"
        for name, own in versions().items()
        if own != token.versions[name]
    ]
    if other:
        problems.append(f"differs from {token.driver} in {', '.join(other)}")
    return Seen(host, tuple(problems), flock, answer)


def _sees_lock(file: Path) -> bool:
    with file.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """What a run is computed with on this machine; ``mtl`` is the hash of its sources."""
    found = {"python": platform.python_version(), "mtl": _sources()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def _sources() -> str:
    """Hash of the Python files of ``mtl``: two checkouts of one version may differ."""
    root = Path(__file__).parents[1]
    parts = [
        path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes()
        for path in sorted(root.rglob("*.py"))
    ]
    return sha256_bytes(b"\0".join(parts))[:12]


def judge(seen: Sequence[Seen], token: Token) -> list[str]:
    """Remarks on machines that can be used all the same; takes the files they left away.

    Raises:
        RequestError: one cannot be used: one message that names all, with what is wrong there.
    """
    wrong = []
    for found in seen:
        problems = list(found.problems)
        if found.answer:
            try:
                answered = Path(found.answer).read_text(encoding="utf-8") == token.content
                Path(found.answer).unlink(missing_ok=True)
            except OSError:
                answered = False
            if not answered:
                problems.append(f"wrote {found.answer}, and {token.driver} does not see it")
        wrong += [f"{found.host} {problem}." for problem in problems]
    if wrong:
        raise RequestError("Nothing was run. " + " ".join(dict.fromkeys(wrong)))
    blind = sorted({found.host for found in seen if found.flock is False})
    if blind or not token.locked:
        where = ", ".join(blind) or token.driver
        return [
            f"locks of files (flock) are not seen from machine to machine ({where}); leases guard "
            "the runs of this study. Remove nothing from the zoo, and start no other command on "
            "these folders, while it runs."
        ]
    return []


def check_token(token: Token, needed: Sequence[str]) -> None:
    """What a worker asks of its machine before its first run. Raises RunError."""
    seen = look(token, needed)
    if seen.answer:
        Path(seen.answer).unlink(missing_ok=True)
    if seen.problems:
        raise RunError(f"{seen.host} {'; it '.join(seen.problems)}.")
