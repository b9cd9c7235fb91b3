"""The loopback Hub as the client of this process sees it, and entries that may be pushed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback_hub import serving
from loopback_state import Hub
from zoo_bench import composition, digests, manifest, store, task

from mtl.hub import parse_repo
from mtl.hub.index import INDEX
from mtl.zoo import Entry, Zoo

REPO = parse_repo("ada/zoo")
VERIFIED = {"split": "test", "n": 4, "max_logit_difference": 0.0, "equal_predictions": 1.0}


class Hurried:
    """The module ``time`` for a client whose pauses between attempts are not waited for."""

    time = staticmethod(time.time)

    @staticmethod
    def sleep(seconds: float) -> None: ...


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub; the client of this process is online, logged in as ada, and waits for nothing."""
    from huggingface_hub import constants, file_download
    from huggingface_hub.utils import _http, disable_progress_bars, enable_progress_bars

    from mtl.hub import client

    with serving() as found:
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": found.url,
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "hf"),
            "HF_TOKEN_PATH": str(tmp_path / "no token"),
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", "hf_ada")
        monkeypatch.setattr(client, "WAITS", (0.0, 0.0))
        monkeypatch.setattr(client, "time", Hurried)
        monkeypatch.setattr(_http, "time", Hurried)
        monkeypatch.setattr(file_download, "time", Hurried)
        _http.reset_sessions()
        disable_progress_bars()
        yield found
        enable_progress_bars()
    _http.reset_sessions()


def proven(zoo: Zoo, value: float = 1.0, **changes: Any) -> Entry:
    """A stored entry with a record of verification."""
    return store(zoo, manifest(verified=VERIFIED, **changes), value)


def composed(zoo: Zoo) -> tuple[Entry, list[Entry]]:
    """A composition of two sources, all verified."""
    sources = [proven(zoo, index, task=task(f"part{index}")) for index in range(2)]
    omega = np.ones((2, 2, 8), np.float32)
    return composition(zoo, sources, omega, verified=VERIFIED), sources


def same(hub: Hub, zoo: Zoo, repo: str = "ada/zoo") -> None:
    """Remote and local are equal: manifest and every file of the table, of every entry."""
    there = hub.files(repo)
    index = json.loads(there[INDEX])["entries"]
    assert {row["ref"]: row["digest"] for row in index.values()} == digests(zoo)
    for path, row in index.items():
        entry = zoo.get(row["ref"])
        for name in ("manifest.json", *entry.files):
            remote = there[name if path == "." else f"{path}/{name}"]
            assert remote == (entry.folder / name).read_bytes(), (path, name)
    assert zoo.fsck() == []
