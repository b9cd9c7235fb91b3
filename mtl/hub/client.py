"""How we speak to the Hub: names of repositories, the right to write, errors in words, patience."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from mtl.errors import MtlError, RequestError, RunError
from mtl.words import printable

T = TypeVar("T")
WAITS = (1.0, 4.0, 15.0)
"""Seconds before each further attempt after a passing failure."""
MAX_WAIT = 90.0
"""A rate limit that asks for a longer pause than this is told to the user instead."""
TIMEOUT = 60.0
"""Seconds without an answer after which a request has failed, where the client sets no limit."""

_LOG = logging.getLogger("mtl.hub")
_MARK = re.compile(r"[A-Za-z0-9_+=:-][A-Za-z0-9_.+=:-]{0,199}")
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]*(/[A-Za-z0-9_][A-Za-z0-9_.+\-]*)*")


class UnreachableError(RunError):
    """A failure that may pass: the network, the Hub itself, a rate limit, another writer.

    Attributes:
        wait: seconds that the Hub asks to wait, 0 where it does not say.
        final: that enough attempts were made.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait
        self.final = False


class NotThereError(RequestError):
    """No such repository or revision, or none that the token may see."""


@dataclass(frozen=True)
class RepoName:
    """``user/name`` and, if one was given, a branch, tag or commit."""

    id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id


def parse_repo(text: str) -> RepoName:
    """Read ``user/name`` or ``user/name@revision``.

    Raises:
        RequestError: anything else.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    name, at, revision = text.partition("@")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise RequestError(f"{printable(text)!r} names no repository of the Hub: {error}") from None
    if name.count("/") != 1:
        raise RequestError(
            f"{printable(text)!r} names no repository of the Hub: write user/name, the user or "
            "organisation first."
        )
    if at and not (_REVISION.fullmatch(revision) and ".." not in revision):
        raise RequestError(
            f"{printable(revision)!r} is no revision: name a branch, a tag or a commit after '@'."
        )
    return RepoName(name, revision or None)


def offline() -> bool:
    """Whether the user has forbidden network access (``HF_HUB_OFFLINE``)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def need_network(doing: str) -> None:
    """Refuse what cannot be done offline.

    Raises:
        RequestError: ``HF_HUB_OFFLINE`` is set.
    """
    if offline():
        raise RequestError(
            f"Cannot {doing}: HF_HUB_OFFLINE is set, and this needs the Hub. Unset it and run the "
            "same command again."
        )


def need_token(doing: str) -> None:
    """Refuse early what the Hub would refuse without a token.

    Raises:
        RequestError: no token is saved or set.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise RequestError(
            f"Cannot {doing}: there is no token. Log in once with 'hf auth login', or set HF_TOKEN "
            "to a token with write access (https://huggingface.co/settings/tokens)."
        )


def api() -> Any:
    """The client, with the user's endpoint and token."""
    from huggingface_hub import HfApi

    from mtl import __version__

    return HfApi(library_name="mtl", library_version=__version__)


@contextlib.contextmanager
def time_limits() -> Iterator[None]:
    """For the block, no request of the client waits for ever, and no answer names a place.

    Two things that the client leaves open, closed in the session that it takes from us: uploads and
    commits have no time limit, and an ``ETag`` with ``/`` in it is a file that it writes outside of
    its cache. The session is that of the whole process, so this is for command lines.

    Raises:
        RunError: an answer whose headers would lead out of the cache.
    """
    from huggingface_hub import configure_http_backend
    from requests import Session
    from requests.adapters import HTTPAdapter

    class Limited(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Any:
            options["timeout"] = options.get("timeout") or TIMEOUT
            return super().send(request, *args, **options)

    def session() -> Session:
        made = Session()
        made.hooks["response"].append(_check_marks)
        made.mount("http://", Limited())
        made.mount("https://", Limited())
        return made

    if not offline():  # the client's own session refuses then
        configure_http_backend(session)
    try:
        yield
    finally:
        configure_http_backend()


def _check_marks(answer: Any, **_: Any) -> None:
    """The client calls a file in its cache by the ETag, and its folder by the commit."""
    if answer.request.method != "HEAD":  # what the client asks for a file's marks
        return
    for name in ("ETag", "X-Linked-Etag", "X-Repo-Commit"):
        mark = str(answer.headers.get(name) or "").removeprefix("W/").strip('"')
        if mark and not _MARK.fullmatch(mark):
            raise RunError(
                f"The Hub's answer has the {name} {printable(mark)!r:.80}, which is no mark of a "
                "file or a commit: nothing of it was used. Is HF_ENDPOINT a Hub?"
            )


def patiently(action: Callable[[], T]) -> T:
    """Call ``action`` until it succeeds or its failure is not one that passes.

    Raises:
        MtlError: what the last attempt raised.
    """
    for wait in (*WAITS, None):
        try:
            return action()
        except UnreachableError as error:
            if wait is None or error.wait > MAX_WAIT or error.final:
                error.final = True  # whoever called us is not to begin again
                raise
            pause = max(wait, error.wait)
            _LOG.warning("%s Trying again in %.0f s.", error, pause)
            time.sleep(pause)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def speaking(doing: str, repo: RepoName) -> Iterator[None]:
    """Turn what the client raises in the block into one of our errors.

    ``doing`` completes "Cannot …". Errors that are no failure of Hub, network or disk pass.

    Raises:
        RequestError: no token, no right, no such repository or revision, offline.
        UnreachableError: network, Hub, rate limit, another writer.
        RunError: the disk is full.
    """
    try:
        yield
    except MtlError:
        raise
    except Exception as error:
        said = _explain(error, doing, repo)
        if said is None:
            raise
        raise said from error


@contextlib.contextmanager
def making_sense(doing: str) -> Iterator[None]:
    """Around :func:`speaking`, for a block that only reads what the Hub answers.

    Raises:
        RunError: the client, or we, cannot read it.
    """
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise RunError(
            f"Cannot {doing}: the Hub answers something that makes no sense here "
            f"({type(error).__name__}: {_short(error)}). Is HF_ENDPOINT a Hub?"
        ) from error


def _explain(error: BaseException, doing: str, repo: RepoName) -> MtlError | None:
    """The first error of the chain of causes that says something; the client wraps some."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    for found in chain:
        said = found if isinstance(found, MtlError) else _one(found, f"Cannot {doing}", repo)
        if said is not None:
            return said
    return None


def _one(error: BaseException, cannot: str, repo: RepoName) -> MtlError | None:
    import requests
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return RequestError(f"{cannot}: HF_HUB_OFFLINE is set. Unset it to reach the Hub.")
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return None  # the cause says why
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return _status(error, cannot, repo)
    if isinstance(error, errors.LocalEntryNotFoundError):
        return RequestError(
            f"{cannot}: the local cache does not hold it. Run the same command with the network."
        )
    if isinstance(error, requests.RequestException):
        return UnreachableError(
            f"{cannot}: the connection failed ({_short(error)}). Nothing half-done is left; run "
            "the same command again, and what has arrived is not sent twice."
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return UnreachableError(
            f"{cannot}: a file arrived incomplete. Run the same command again to go on."
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return RunError(
            f"{cannot}: the disk is full. Nothing was stored; free some space (also where HF_HOME "
            "lies) and run the same command again."
        )
    return None


def _status(error: Any, cannot: str, repo: RepoName) -> MtlError:
    from huggingface_hub import errors, get_token

    code = error.response.status_code
    message = getattr(error, "server_message", None)
    told = f" The Hub says: {_short(message)}." if message else ""
    if isinstance(error, errors.GatedRepoError):
        return RequestError(
            f"{cannot}: access to {repo.id} has to be asked for on its page, with the account of "
            "your token."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NotThereError(
            f"{cannot}: {repo.id} has no branch, tag or commit {repo.revision or 'main'!r}."
        )
    if code == 401 and "credentials" in str(message):
        return RequestError(
            f"{cannot}: the Hub does not accept the token. Get a new one with 'hf auth login', or "
            "set HF_TOKEN (it goes before the saved one)."
        )
    if isinstance(error, errors.RepositoryNotFoundError) or code == 401:
        secret = (
            "your token has no access to it"
            if get_token()
            else "it is private, and there is no token (log in with 'hf auth login', or set "
            "HF_TOKEN)"
        )
        return NotThereError(f"{cannot}: there is no repository {repo.id}, or {secret}.{told}")
    if code == 403:
        return RequestError(
            f"{cannot}: your token has no right to write to {repo.id}. Use a token with write "
            "access (https://huggingface.co/settings/tokens) of an account that owns "
            f"{repo.id.partition('/')[0]!r}, or another --repo.{told}"
        )
    if code == 429:
        wait = _asked_wait(error.response.headers)
        pause = f"It asks for {wait:.0f} seconds." if wait else "It does not say how long."
        return UnreachableError(
            f"{cannot}: the Hub limits the rate of your requests (429). {pause} Wait, then run the "
            "same command again: finished files are not sent twice.",
            wait,
        )
    if code in {409, 412}:
        return UnreachableError(
            f"{cannot}: somebody else changed {repo.id} at the same time.{told}"
        )
    if code >= 500:
        return UnreachableError(
            f"{cannot}: the Hub fails ({code}). Run the same command again later; finished files "
            f"are not sent twice.{told}"
        )
    return RunError(f"{cannot}: the Hub answers {code}.{told}")


def _asked_wait(headers: Any) -> float:
    """Seconds until the next request is allowed, 0 where the answer does not say."""
    after = re.fullmatch(r"\s*(\d{1,6})\s*", headers.get("Retry-After") or "")
    window = re.search(r"\bt=(\d{1,6})\b", headers.get("RateLimit") or "")
    found = after or window
    return float(found[1]) if found else 0.0


def _short(text: object) -> str:
    return printable(" ".join(str(text).split()))[:300].rstrip(".")
