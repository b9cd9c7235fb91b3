"""Joint, low-rank and composed low-rank entries through everything that a zoo does with entries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from cli_bench import digests, mtl, refused
from hub_bench import hub
from loopback_state import Hub

from mtl.zoo import open_zoo

__all__ = ["hub"]  # the fixture
RUN = ["--epochs", "1", "--max-steps", "4", "--json"]
LOW_RANK = {
    "lora": [],
    "adalora": ["modules=q,v", "rank=3", "target_rank=1", "interval=1", "initial_warmup=1"],
    "sora": ["xi=100"],  # every gate closes: all ranks are 0
    "vera": [],
}


def fill(methods: Sequence[str], sources: Sequence[str], seeds: Sequence[int]) -> None:
    """Entries of low-rank methods, a composition of some of them, and joint entries."""
    for method in methods:
        task = {"lora": "same", "vera": "shared"}.get(method, "mood")
        line = ["--suite", "mini", "--task", task, "--method", method, *RUN]
        settings = LOW_RANK[method]
        said = mtl("train", *line, *(["--set", *settings] if settings else []))
        assert said.code == 0, said
    said = mtl("compose", "--target", "same", "--sources", *sources, *RUN)
    assert said.code == 0, said
    said = mtl("joint", "--suite", "mini", "--method", "adapter-m", "--seeds", *seeds, *RUN)
    assert said.code == 0, said


def test_a_source_a_composition_and_a_joint_entry_go_through_everything(
    mini: Path, hub: Hub, tmp_path: Path
) -> None:
    fill(["adalora"], ["mood:adalora"], [0])
    before = digests(mini)
    assert len(before) == 3
    there_and_back(before, tmp_path)


@pytest.mark.slow
def test_every_kind_is_checked_compared_shared_and_restored(
    mini: Path, hub: Hub, tmp_path: Path
) -> None:
    fill(list(LOW_RANK), ["mood:adalora", "shared:vera", "same:lora"], [0, 1])
    before = digests(mini)
    assert len(before) == len(LOW_RANK) + 1 + 2
    for ref in before:
        assert mtl("zoo", "show", ref).code == 0
    one, other = (ref for ref in before if "/_joint/" in ref)
    found = mtl("zoo", "diff", one, other, "--json").json
    assert found["predictions"]["n"] == 3 * 40
    assert "test.average" in found["metrics"]
    assert found["weights"]["only"] == {}
    sora = next(ref for ref in before if "/sora/" in ref)
    for ref in before:
        assert mtl("zoo", "diff", sora, ref).code == 0
    there_and_back(before, tmp_path)
    source = next(ref for ref in before if "/vera/" in ref)
    refused(mtl("zoo", "rm", source), "--force", code=2)
    assert mtl("zoo", "rm", one, sora).code == 0
    assert set(digests(mini)) == set(before) - {one, sora}
    assert mtl("zoo", "fsck").code == 0


def there_and_back(before: dict[str, str], tmp_path: Path) -> None:
    """Check and verify all entries, push them, pull them elsewhere, lock that, restore the lock."""
    assert mtl("zoo", "fsck", "--json").json["problems"] == []
    # Bit by bit: an entry stores what it answers itself.
    said = mtl("zoo", "verify", *before, "--tolerance", "0", "--json")
    assert said.code == 0, said
    said = mtl("zoo", "push", *before, "--repo", "ada/kinds", "--json")
    assert said.code == 0, said
    copy = tmp_path / "copy"
    said = mtl("zoo", "pull", "ada/kinds", "--zoo", copy, "--json")
    assert said.code == 0, said
    assert digests(copy) == before
    assert open_zoo(copy).fsck() == []
    lock = tmp_path / "mtl.lock"
    said = mtl("zoo", "lock", "--repo", "ada/kinds", "--file", lock, "--zoo", copy)
    assert said.code == 0, said
    again = tmp_path / "again"
    assert mtl("zoo", "pull", "--lock", lock, "--zoo", again).code == 0
    assert digests(again) == before
