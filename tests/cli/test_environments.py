"""Bad environments: a zoo that is read-only, a disk that is full, two runs at once, half a mirror.

The first two are real mounts in a private namespace where the system lets us make one; the same
answers of the system are also given by hand, so that every machine tests the messages.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, Said, digests, entries, leftovers, mtl, process, refused

LINES = {
    "train": ["--suite", "mini", "--task", "mood", "same", "--seeds", "11", "--epochs", "2"],
    "compose": ["--target", "same", "--seeds", "11", "--method", "scalearn", "--epochs", "2"],
}


def can_mount() -> bool:
    try:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k none /mnt"],
            capture_output=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="no user namespaces on this machine")


def mounted(mounts: str, command: str, *argv: object) -> Said:
    """``python -m mtl.COMMAND`` in a namespace of its own, after the shell line ``mounts``."""
    python = [sys.executable, "-m", f"mtl.{command}", *map(str, argv)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mounts} && exec "$@"', "sh", *python],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def one_message(said: Said, *parts: str) -> None:
    """Exit code 1 and one error, however many runs were asked for."""
    assert said.code == 1, said
    assert [line[:7] for line in said.err.splitlines()].count("error: ") == 1, said.err
    assert "Traceback" not in said.err
    for part in parts:
        assert part in said.err, (part, said.err)


@needs_mounts
@pytest.mark.parametrize("command", ["train", "compose"])
def test_a_read_only_zoo_is_named_before_anything_trains(
    command: str, stocked: Path, tmp_path: Path
) -> None:
    before = digests(stocked)
    said = mounted(
        f"mount --bind {stocked} {stocked} && mount -o remount,ro,bind {stocked}",
        command,
        *LINES[command],
    )
    one_message(said, "Cannot write into the zoo", "Read-only file system", "--zoo")
    assert not list((tmp_path / "runs").glob("*/events.jsonl"))
    assert digests(stocked) == before
    said = mtl(command, *LINES[command])
    assert said.code == 0, said


@needs_mounts
def test_a_read_only_zoo_can_be_read(stocked: Path) -> None:
    mounts = f"mount --bind {stocked} {stocked} && mount -o remount,ro,bind {stocked}"
    for argv in (["ls"], ["fsck"], ["show", "mini/mood/pfeiffer/seed0"]):
        said = mounted(mounts, "zoo", *argv)
        assert said.code == 0, said


@pytest.mark.parametrize("command", ["train", "compose"])
def test_a_folder_that_refuses_is_one_message(
    command: str, stocked: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = os.mkdir

    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        if str(path).startswith(str(stocked)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        real(path, *args, **kwargs)

    before = digests(stocked)
    monkeypatch.setattr(os, "mkdir", mkdir)
    said = mtl(command, *LINES[command])
    one_message(said, "Cannot write into the zoo", "Read-only file system", "--zoo")
    assert not list((tmp_path / "runs").glob("*/events.jsonl"))
    monkeypatch.undo()
    assert {entry.name for entry in entries(stocked)} == {ref.split("/")[-1] for ref in before}


@needs_mounts
@pytest.mark.parametrize("place", ["zoo", "runs"])
@pytest.mark.parametrize("command", ["train", "compose"])
def test_a_full_disk(command: str, place: str, stocked: Path, tmp_path: Path) -> None:
    """A file system with a few KiB left, under the zoo or under the run folders."""
    folder, kept = (tmp_path / place), tmp_path / "kept"
    folder.mkdir(exist_ok=True)
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    size = sum(path.stat().st_size for path in folder.rglob("*")) // 1024
    # tmpfs counts pages, a file of 10 bytes is 4 KiB, so the room left is what fill leaves.
    mounts = (
        f"mount -t tmpfs -o size={size + 4096}k none {folder} && cp -a {copied}/. {folder} "
        f"&& {{ dd if=/dev/zero of={folder}/.filler bs=1k 2>/dev/null; "
        f"truncate -s -6k {folder}/.filler; }} && mkdir {kept}"
    )
    one = [*LINES[command]]
    if command == "train":
        one.remove("mood")
    said = mounted(mounts, command, *one)
    one_message(said, "No space left on device", "run the same command again")
    before = digests(stocked)
    said = mtl(command, *one, "--json")
    assert said.code == 0, said
    assert len(digests(stocked)) == len(before) + 1
    assert not leftovers(stocked)


def test_two_of_the_same_at_once(mini: Path, tmp_path: Path) -> None:
    """One does the work; the other one says so, or finds it done. Then there is one entry."""
    line = ["--suite", "mini", "--task", "mood", "--epochs", "8"]
    workers = [process("train", *line) for _ in range(3)]
    said = [(worker.communicate(timeout=120), worker.returncode) for worker in workers]
    codes = sorted(code for _, code in said)
    assert codes[0] == 0, said
    for (_, err), code in said:
        assert "Traceback" not in err
        if code:
            assert code == 1
            assert err.count("error: ") == 1
            assert "is at it already" in err
            assert "run the same command again" in err
    assert len(entries(mini)) == 1
    assert not leftovers(mini)


def test_half_a_mirror_and_half_a_model(mini: Path, tmp_path: Path, tiny: Any) -> None:
    mirror = tmp_path / "data" / "nyu-mll" / "glue" / "rte"
    mirror.mkdir(parents=True)
    line = ["--suite", "glue", "--task", "rte", "--data-root", tmp_path / "data"]
    said = mtl("train", *line)
    refused(said, "glue/rte", str(mirror.parent))
    import pandas

    rows = {"sentence1": ["a b"] * 40, "sentence2": ["c"] * 40, "label": [0, 1] * 20}
    pandas.DataFrame({**rows, "idx": range(40)}).to_parquet(mirror / "train-00000-of-00001.parquet")
    refused(mtl("train", *line), "validation", "rte", str(tmp_path / "data"))

    model = tmp_path / "model"
    shutil.copytree(tiny("roberta"), model)
    for path in model.glob("*token*"):
        path.unlink()
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):
        (model / name).unlink(missing_ok=True)
    said = mtl("train", "--suite", "mini", "--task", "mood", "--model", model)
    refused(said, "tokenizer", str(model))
    assert not entries(mini)
