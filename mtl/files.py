"""Files that are whole or absent: atomic writes, canonical JSON, hashes, safe names.

A file is written to a temporary sibling, synced to disk and renamed, so a reader (or a later run
after ``kill -9`` or a full disk) sees the old content or the new one, never a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from mtl.errors import HeldError, RequestError, RunError, ZooError

if TYPE_CHECKING:  # torch is heavy; only the two safetensors helpers need it
    import torch

DATA_ROOT = "--data-root or MTL_DATA_ROOT"
"""What says where data lie, in messages."""

TEMPORARY = ".tmp-"
"""Prefix of temporary siblings; whoever lists a folder skips names that start with it."""


def canonical_json(value: Any) -> str:
    """One spelling per value: sorted keys, no spaces, no NaN. What digests are made of.

    Raises:
        ValueError: the value holds NaN or infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def pretty_json(value: Any) -> str:
    """Readable JSON for files that people open; key order kept, newline at the end."""
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of ``value``."""
    return sha256_bytes(canonical_json(value).encode())


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn what the system or a library's writer refuses in the block into one :class:`RunError`.

    ``what`` ends the sentence "Cannot write …". Libraries that write safetensors themselves raise
    an error of their own for a full disk.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RunError(
            f"Cannot write {what}: {reason}. Nothing was changed; free the space or choose a "
            "folder that can be written, then run the same command again."
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically, making the folders above it.

    Raises:
        RunError: the system refused (read-only folder, full disk); nothing was left behind.
    """
    temporary = None
    try:
        with writing(f"{path} ({len(data)} bytes)"):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{TEMPORARY}{path.name}-")
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            temporary = None
            sync_folder(path.parent)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _umask() -> int:
    # There is no call that only reads the mask; it is set back at once.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, atomically. Raises as :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON, atomically. Raises as :func:`write_bytes`."""
    write_text(path, pretty_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file, within the limits for files of strangers (:mod:`mtl.untrusted`).

    Raises:
        ZooError: missing, unreadable or no JSON; the message names the file and the place.
    """
    from mtl.untrusted import load_json

    try:
        return load_json(path, path.name, follow=True)
    except FileNotFoundError as error:
        raise ZooError(f"{path} is missing.") from error
    except ZooError as error:
        raise ZooError(f"{path} is damaged and cannot be read as JSON: {error}") from error


def write_safetensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors by name, sorted, in the safetensors format, atomically.

    The bytes depend only on names, values and metadata. Raises as :func:`write_bytes`.
    """
    from safetensors.torch import save

    ready: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        # safetensors refuses tensors that share memory; each name gets its values all the same.
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    write_bytes(path, save(ready, metadata=dict(metadata or {}) or None))


def read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read all tensors of a file and its metadata; its header is checked by ourselves first.

    Raises:
        ZooError: missing, truncated or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    from mtl.untrusted import read_header

    if not path.is_file():
        raise ZooError(f"{path} is missing.")
    try:
        read_header(path, path.name, follow=True)
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return tensors, dict(stream.metadata() or {})
    except (SafetensorError, OSError, ValueError, ZooError) as error:
        raise ZooError(f"{path} is damaged and cannot be read as safetensors: {error}") from error


def finite(value: Any) -> Any:
    """``value`` with every non-finite float replaced by None: what JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def slug(text: str) -> str:
    """A lower-case file name for any text: letters, digits, dot, dash; never empty or hidden."""
    cleaned = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
    return cleaned[:80] or "unnamed"


def user_path(given: str | os.PathLike[str], what: str) -> Path:
    """A path that a person typed or the environment holds, its ``~`` resolved.

    Whether something is there is for the caller to ask; asking raises nothing afterwards but what
    permissions forbid.

    Args:
        what: the option or variable that says so, for the message.

    Raises:
        RequestError: it can be no path here: an unknown user's home, too long, a NUL in it.
    """
    try:
        path = Path(given).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        shown = str(given) if len(str(given)) <= 80 else f"{str(given)[:60]}…"
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise RequestError(
            f"{what}: {shown!r} ({len(str(given))} characters) is no path that can be here: "
            f"{reason}."
        ) from error
    return path


_SAFE_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]{0,120}")


def cache_folder() -> Path | None:
    """``$MTL_CACHE``, else the user's; None where there is no home for it."""
    named = os.environ.get("MTL_CACHE")
    if named:
        return user_path(named, "MTL_CACHE")
    try:
        return Path.home() / ".cache" / "mtl"
    except RuntimeError:  # a user without a home
        return None


def path_name(path: str) -> str:
    """The last part of a path of any system; what is none is returned as it is."""
    return _pure(path).name or path


def _pure(path: str) -> PurePath:
    windows = "\\" in path or re.match(r"[A-Za-z]:", path)
    return PureWindowsPath(path) if windows else PurePosixPath(path)


_SAYS_NOTHING = frozenset({"model", "models", "encoder", "checkpoint", "weights", "snapshot"})


def model_name(folder: str) -> str:
    """What a model's folder is called: its last part, or where that says nothing, the one above.

    ``/models/minilm/model`` is ``minilm``. The name of a user's home is never taken.
    """
    name, above = path_name(folder), _pure(folder).parent
    whose = above.parent.name in {"home", "Users"} or _is_home(above) or above.name in {"", "~"}
    return name if whose or name.lower() not in _SAYS_NOTHING else model_name(str(above))


def _is_home(path: PurePath) -> bool:
    with contextlib.suppress(RuntimeError):  # a user without a home
        return path == Path.home()
    return False


def safe_part(name: str, what: str) -> str:
    """Return ``name`` if it may be one part of a path of ours.

    Raises:
        RequestError: empty, hidden, with a separator, ``..`` or odd characters.
    """
    if not _SAFE_PART.fullmatch(name):
        raise RequestError(
            f"{what} {name!r} cannot be used as a folder name: use letters, digits, '_', '-', "
            "'.' and '+', starting with a letter or digit."
        )
    return name


@contextlib.contextmanager
def locked(path: Path, doing: str, *, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock file for the block; the system frees those of a process that died.

    Args:
        wait: for another process that holds it, instead of failing at once.

    Raises:
        HeldError: another process holds the lock; says which, when it left its name there.
        RunError: the system refuses.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        owner = path.with_suffix(".owner")
        who = owner.read_text(encoding="utf-8").strip() if owner.is_file() else "another process"
        raise HeldError(
            f"Cannot start {doing}: {who} is at it already ({path}). Wait for it and run the same "
            "command again; what it finished is then skipped.",
            who,
        ) from error
    except OSError as error:
        raise RunError(f"Cannot lock {path} for {doing}: {error.strerror or error}.") from error
    try:
        with contextlib.suppress(OSError):
            path.with_suffix(".owner").write_text(
                f"process {os.getpid()} on {os.uname().nodename}", encoding="utf-8"
            )
        yield
    finally:
        lock.release()
