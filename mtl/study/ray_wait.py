"""``python -m mtl.study.ray_wait HOST:PORT N``: return when a Ray cluster has N machines.

Ray's workers come one after the other; a study that begins with all of them checks all of them.
What has not come in time is left out with a note: it takes runs when it does.
"""

from __future__ import annotations

import os
import socket
import sys
import time

PATIENCE = 300.0
"""Seconds for all machines to come."""


def wait_for(address: str, machines: int, patience: float = PATIENCE) -> int:
    """How many machines are there, at the latest after ``patience`` seconds; 0: no head."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    deadline = time.monotonic() + patience
    host, _, port = address.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                return 0
            time.sleep(1)
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    found = 0
    while found < machines and time.monotonic() < deadline:
        found = sum(1 for node in ray.nodes() if node["Alive"])
        time.sleep(1)
    ray.shutdown()
    return found


if __name__ == "__main__":
    there = wait_for(sys.argv[1], int(sys.argv[2]))
    if there < int(sys.argv[2]):
        print(f"note: {there} of {sys.argv[2]} machines have come to Ray", file=sys.stderr)
    sys.exit(0 if there else 1)
