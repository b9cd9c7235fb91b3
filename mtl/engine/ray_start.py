"""Ray, started on this machine or joined: for studies and servers alike.

Secure by default: a token, no dashboard, and on this machine alone nothing but loopback.
"""

from __future__ import annotations

import importlib
import os
import secrets
import signal
import socket
from collections.abc import Mapping
from typing import Any

from mtl.errors import RequestError

ANSWERS = 5.0
"""Seconds in which an address has to answer."""
STORE = 80 * 2**20
"""Bytes of Ray's store of objects, where we start it: what we send is small."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def start_ray(
    address: str | None,
    *,
    cores: int,
    environment: Mapping[str, str],
    who: str,
    serve: bool = False,
) -> Any:
    """Ray, connected; whoever called this shuts it down.

    Args:
        address: ``HOST:PORT`` of a cluster's head, or ``auto``; None: Ray on this machine alone,
            with so many ``cores``.
        environment: of the workers.
        who: what runs here, for messages: ``driver``, ``server``.
        serve: whether Ray Serve is needed.

    Raises:
        RequestError: it is not installed, does not answer, or does not let us in.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    host, _, port = (address or "127.0.0.1").rpartition(":")
    if address and address != "auto":
        _answers(address, host, port, who)
    if host in LOOPBACK or not address:
        # else Ray takes loopback for the machine's address in the network, and listens there
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    if not address and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # for this process alone
    try:
        ray = importlib.import_module("ray")
        if serve:
            importlib.import_module("ray.serve")
    except ImportError as error:
        needs, package = ("Ray Serve", "'ray[serve]'") if serve else ("Ray", "ray")
        raise RequestError(
            f"--engine ray needs {needs}, which cannot be loaded here ({error}): "
            f"pip install {package}."
        ) from error
    own: dict[str, Any] = {"address": address}
    if not address:
        own = {"address": "local", "num_cpus": cores, "include_dashboard": False}
        own["object_store_memory"] = STORE
    leave = signal.getsignal(signal.SIGTERM)  # Ray sets one of its own
    try:
        ray.init(
            **own,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": dict(environment)},
        )
    except Exception as error:  # Ray has one class or another for each
        ray.shutdown()
        raise RequestError(
            f"Ray at {address or 'this machine'} cannot be used: {short_error(error)} The {who} "
            "runs on a machine of the cluster, with the cluster's token (docs/clusters.md)."
        ) from error
    signal.signal(signal.SIGTERM, leave)
    return ray


def _answers(address: str, host: str, port: str, who: str) -> None:
    """Raises RequestError where nobody listens."""
    if "://" in address or not host or not port.isdigit():
        raise RequestError(
            f"--address must be HOST:PORT of the cluster's head, or auto, not {address!r}. The "
            f"{who} runs on a machine of the cluster; there is no client connection."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS).close()
    except (OSError, OverflowError) as error:
        raise RequestError(
            f"No Ray answers at {address} ({getattr(error, 'strerror', None) or error}). Start "
            "its head (docs/clusters.md), or leave --address away to use this machine alone."
        ) from error


def short_error(error: BaseException) -> str:
    """The last line that says something: Ray puts a traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if text.endswith((".", "!")) else f"{text}."
