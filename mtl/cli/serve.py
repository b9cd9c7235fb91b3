"""``mtl.serve``: answer requests over HTTP with many entries of a zoo on one encoder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mtl.cli.options import Parser

if TYPE_CHECKING:
    from mtl.serve.bounds import Bounds
    from mtl.zoo import Entry, Zoo

TOKEN = "MTL_SERVE_TOKEN"


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.serve", description=__doc__)
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="references, or last parts")
    parser.add_argument("--all", action="store_true", help="all entries of the zoo but controls")
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--model", help="the entries' base: Hub name, folder, 'demo' [MTL_MODEL]")
    parser.add_argument("--base", help="of --all those of this base: id, or start of a fingerprint")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on [127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one [8000]")
    parser.add_argument("--dry-run", action="store_true", help="list what would be served")
    parser.add_argument("--json", action="store_true", help="what is served as one line of JSON")
    group = parser.add_argument_group("replicas")
    group.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="this process, or Ray Serve"
    )
    group.add_argument("--replicas", type=int, metavar="N", help="with --engine ray [1]")
    group.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster that is there")
    group = parser.add_argument_group("batches and bounds")
    group.add_argument(
        "--latency", type=float, metavar="MS", help="wait for others at most so long [5]"
    )
    group.add_argument("--batch", type=int, metavar="ROWS", help="rows answered together [64]")
    group.add_argument("--queue", type=int, metavar="ROWS", help="rows that wait, then 429 [1024]")
    group.add_argument("--timeout", type=float, metavar="S", help="per request, then 503, 504 [30]")
    group.add_argument("--rows", type=int, metavar="N", help="per request [256]")
    group.add_argument("--characters", type=int, metavar="N", help="per row [20000]")
    group.add_argument("--body", type=int, metavar="BYTES", help="per request [1048576]")
    group.add_argument(
        "--reading", type=float, metavar="S", help="for a client to send or to read [10]"
    )
    group.add_argument("--connections", type=int, metavar="N", help="at the same time [512]")
    group.add_argument(
        "--memory",
        type=int,
        metavar="MB",
        help="of entries beside the encoder; who was asked least recently goes [no limit]",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"who shows the token in it may load and unload entries [{TOKEN}: the token itself]",
    )
    options = parser.parse_args(list(argv))

    from mtl.errors import RequestError
    from mtl.serve.bounds import Bounds
    from mtl.zoo import open_zoo

    given = {
        name: getattr(options, name)
        for name in Bounds.__dataclass_fields__
        if getattr(options, name) is not None
    }
    if "latency" in given:
        given["latency"] /= 1000
    if "memory" in given:
        given["memory"] *= 1_000_000
    bounds = Bounds(**given)
    if not 0 <= options.port < 1 << 16:  # the system would take it modulo that
        raise RequestError(f"--port {options.port} must be from 0 (a free one) to 65535.")
    for name in ("replicas", "address"):
        if getattr(options, name) is not None and options.engine != "ray":
            raise RequestError(f"--{name} belongs to --engine ray.")
    if options.replicas is not None and options.replicas < 1:
        raise RequestError(f"--replicas {options.replicas} must be at least 1.")
    token = _token(options.token_file)
    if token and options.engine == "ray":
        raise RequestError(
            "With --engine ray entries are those that the server is started with: leave the token "
            "away, or start --engine local behind a balancer."
        )
    zoo = open_zoo(options.zoo)
    chosen = _chosen(zoo, options.entries, options.all, options.base)
    if options.dry_run:
        return _listed(chosen, as_json=options.json)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise RequestError(
            f"mtl.serve needs {error.name}, which is not installed: pip install "
            "fastapi uvicorn prometheus-client."
        ) from error
    return _serve(options, bounds, chosen, zoo, token)


def _chosen(zoo: Zoo, named: Sequence[str], every: bool, base: str | None) -> list[Entry]:
    """The entries to serve.

    Raises:
        RequestError: none, an unknown one, or bases of which nobody says which.
    """
    from mtl.errors import RequestError

    if every == bool(named):
        raise RequestError("Name the entries to serve, or all of a zoo with --all; one of the two.")
    if base and not every:
        raise RequestError("--base belongs to --all: it says which of a zoo's entries are served.")
    if named:
        return [zoo.get(name) for name in named]
    found = [entry for entry in zoo.entries(base=base) if not entry.manifest.control]
    if not found:
        of = f" of base {base}" if base else ""
        raise RequestError(f"The zoo {zoo.root} holds no entry{of} that can be served.")
    bases = {entry.manifest.base["fingerprint"]: entry.manifest.base["id"] for entry in found}
    if len(bases) > 1:
        listed = ", ".join(f"{key[:8]} ({name})" for key, name in bases.items())
        raise RequestError(
            f"The entries of {zoo.root} are of {len(bases)} bases: {listed}. Say which with --base."
        )
    return found


def _listed(chosen: Sequence[Entry], *, as_json: bool) -> int:
    refs = [entry.ref for entry in chosen]
    if as_json:
        print(json.dumps({"command": "serve", "entries": refs}))
    else:
        print("\n".join(refs))
    return 0


def _token(file: str | None) -> str:
    """The token of those who may load entries; empty where nobody may.

    Raises:
        RequestError: the file cannot be read, or holds no token of 16 characters.
    """
    from mtl.errors import RequestError
    from mtl.files import user_path

    value = os.environ.get(TOKEN, "")
    if file is not None:
        try:
            value = user_path(file, "--token-file").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(f"--token-file {file} cannot be read: {error}.") from error
    if (file is not None or value) and (len(value) < 16 or not value.isascii() or " " in value):
        raise RequestError(
            "The token must be at least 16 ASCII characters without spaces: for example that of "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return value


def _serve(options: Any, bounds: Bounds, chosen: Sequence[Entry], zoo: Zoo, token: str) -> int:
    from mtl.cli.common import note_unknown, quieten
    from mtl.cli.leaving import Told
    from mtl.runs.workspace import open_workspace
    from mtl.serve.app import build_app
    from mtl.serve.running import is_loopback, listen, run
    from mtl.serve.service import Answering, Service
    from mtl.words import counted

    quieten()
    note_unknown(chosen)
    sock = listen(options.host, options.port)
    workspace = open_workspace(zoo=zoo.root)
    service: Answering
    if options.engine == "ray":
        from mtl.serve.ray_engine import RayService

        service = RayService(
            workspace,
            bounds,
            chosen,
            model=options.model,
            replicas=options.replicas or 1,
            address=options.address,
        )
    else:
        service = own = Service(workspace, bounds, options.model)
        try:
            own.serve(chosen)
        except BaseException:
            own.close()
            raise
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    local = is_loopback(options.host)
    hosts = ["localhost", "127.0.0.1", "::1"] if local else None

    def begun() -> None:
        alone = {told["entry"]: told["alone"] for told in service.listed() if told.get("alone")}
        if options.json:
            told = {"command": "serve", "url": f"http://{shown}:{port}", "alone": alone}
            print(json.dumps({**told, "entries": list(service.served)}), flush=True)
        for ref, why in alone.items():
            print(f"answered one by one: {ref}: {why}", file=sys.stderr)
        if not local:
            print(
                f"whoever reaches {options.host} may ask: put a proxy that knows whom before it",
                file=sys.stderr,
            )
        print(
            f"{counted(len(service.served), 'entry', 'entries')} on http://{shown}:{port} "
            f"(/docs, /metrics); Ctrl-C ends when all is answered",
            file=sys.stderr,
            flush=True,
        )

    app = build_app(service, token=token, hosts=hosts)
    with suppress(KeyboardInterrupt, Told):  # uvicorn raises the signal again when it is done
        run(app, service.bounds, sock, begun)
    print("all requests were answered", file=sys.stderr)
    return 0
