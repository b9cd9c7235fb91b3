"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mtl import files
from mtl.errors import RequestError, RunError, ZooError


def test_canonical_json_has_one_spelling() -> None:
    assert files.canonical_json({"b": 1, "a": [1.5, None]}) == '{"a":[1.5,null],"b":1}'
    assert files.sha256_json({"b": 1, "a": 2}) == files.sha256_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="float"):
        files.canonical_json({"a": float("nan")})
    assert files.finite({"a": [float("inf"), 1.0], "b": float("nan")}) == {
        "a": [None, 1.0],
        "b": None,
    }


def test_writes_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "ü.json"
    files.write_json(path, {"ä": [1, 2]})
    assert files.read_json(path) == {"ä": [1, 2]}
    files.write_json(path, {"b": 1})
    assert files.read_json(path) == {"b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["ü.json"]
    assert files.sha256_file(path) == files.sha256_bytes(path.read_bytes())
    assert path.stat().st_mode & 0o777 == 0o666 & ~files._umask()


def test_tensors_are_written_alike(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 2).t(), "a": torch.zeros((), dtype=torch.int64)}
    files.write_safetensors(tmp_path / "1", tensors, {"k": "v"})
    files.write_safetensors(tmp_path / "2", dict(reversed(tensors.items())), {"k": "v"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    found, metadata = files.read_safetensors(tmp_path / "1")
    assert metadata == {"k": "v"}
    assert torch.equal(found["b"], tensors["b"])
    assert found["a"].shape == ()
    one = torch.ones(2)
    files.write_safetensors(tmp_path / "3", {"x": one, "y": one, "z": one[:1]})
    assert torch.equal(files.read_safetensors(tmp_path / "3")[0]["y"], one)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2"])
def test_damaged_files_say_their_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ZooError, match="file is damaged"):
        files.read_json(path)
    with pytest.raises(ZooError, match="file is damaged"):
        files.read_safetensors(path)
    path.unlink()
    for read in (files.read_json, files.read_safetensors):
        with pytest.raises(ZooError, match="missing"):
            read(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_keeps_the_old_content(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    files.write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RunError, match=r"file .*No space left on device\. Nothing was changed"):
        files.write_text(path, "new content")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Cannot write"):
        files.write_text(tmp_path / "file" / "x", "new")


WRITER = """
import sys
from pathlib import Path
from mtl.files import write_text
path = Path(sys.argv[1])
print("on", flush=True)
while True:
    for letter in "ab":
        write_text(path, letter * 200_000)
"""


def test_killed_while_writing_leaves_one_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for pause in (0.02, 0.05, 0.09):
        worker = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "on\n"
        while not path.exists():
            time.sleep(0.001)
        time.sleep(pause)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        content = path.read_text()
        assert len(content) == 200_000
        assert len(set(content)) == 1
        assert all(
            p.name == "file" or p.name.startswith(files.TEMPORARY) for p in tmp_path.iterdir()
        )


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "ü", "x" * 200, "-x"]
)
def test_unsafe_parts_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="The task"):
        files.safe_part(name, "The task")


def test_safe_parts_and_slugs() -> None:
    for name in ("rte", "sst-2", "hyperformer++", "v1.0", "_joint"):
        assert files.safe_part(name, "x") == name
    assert files.slug("FacebookAI/roberta-base") == "facebookai-roberta-base"
    assert files.slug("../..") == "unnamed"
    assert files.slug("Ünï cöde") == "n-c-de"


def test_a_lock_is_held_by_one_and_released(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.locked(path, "a"):
        code = (
            "from pathlib import Path; from mtl.files import locked\n"
            f"with locked(Path({str(path)!r}), 'b'): pass"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert "Cannot start b" in done.stderr
        assert str(os.getpid()) in done.stderr
    with pytest.raises(KeyError), files.locked(path, "c"):
        raise KeyError
    with files.locked(path, "d"):
        pass
