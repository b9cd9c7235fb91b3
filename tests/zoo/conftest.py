"""Empty zoos for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl.zoo import Zoo, open_zoo


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


@pytest.fixture
def other(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "other")
