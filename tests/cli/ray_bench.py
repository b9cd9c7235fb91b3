"""A Ray cluster of two machines on loopback, in a process of its own that a test may order about.

``python ray_bench.py`` prints the address, and removes its second machine when it reads a line.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STORE = 80 * 2**20


def alone(folder: str) -> dict[str, str]:
    """An environment in which Ray leaves nothing outside ``folder`` and listens on loopback."""
    return {
        "RAY_TMPDIR": folder,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


@contextmanager
def two_machines(
    monkeypatch: pytest.MonkeyPatch, **environment: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster of two machines with a core each, and the process that holds it."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        for name, value in {**alone(folder), **environment}.items():
            monkeypatch.setenv(name, value)
        holder = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            text=True,
        )
        assert holder.stdout is not None
        try:
            address = holder.stdout.readline().strip()
            assert address.startswith("127.0.0.1:"), address
            yield address, holder
        finally:
            holder.communicate("\n\n", timeout=60)


def order(holder: subprocess.Popen[str]) -> None:
    """Have the second machine removed, and return when it is gone."""
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline().strip() == "removed"


def hold() -> None:
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **size})
    second = cluster.add_node(**size)
    print(cluster.address, flush=True)
    sys.stdin.readline()
    cluster.remove_node(second, allow_graceful=False)
    print("removed", flush=True)
    sys.stdin.readline()
    cluster.shutdown()


if __name__ == "__main__":
    hold()
