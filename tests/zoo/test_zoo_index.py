"""`zoo ls`, and the index that saves it reading."""

from __future__ import annotations

from pathlib import Path

import pytest
from care_bench import layers, put, run, said
from zoo_bench import MARK, manifest, task

from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.summary import WORTH_WRITING, index_folder


def test_ls_filters_and_sorts(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (name, value) in enumerate([("b", 0.3), ("a", 0.5), ("a", 0.9), ("a", None)]):
        score = {"test": {"accuracy": {"value": value, "stderr": 0.1, "n": 4}}}
        put(
            zoo, layers(number + 1.0), task=task(name), seed=number, runhash=f"{number:016x}",
            metrics=score, created=f"2026-01-0{9 - number}T00:00:00+00:00",
        )  # fmt: skip
    at = ["--zoo", str(zoo.root)]

    def seeds(*options: str) -> list[int]:
        return [row["seed"] for row in said(capsys, "ls", *at, *options)["entries"]]

    assert seeds() == [1, 2, 3, 0]
    assert seeds("--sort", "metric") == [2, 1, 3, 0]
    assert seeds("--sort", "created") == [3, 2, 1, 0]
    assert seeds("--task", "a", "--sort", "metric", "--limit", "1") == [2]
    assert seeds("--task", "toy/b") == [0]
    assert seeds("--seed", "3") == [3]
    assert seeds("--base", MARK, "--method", "pfeiffer", "--suite", "toy") == [1, 2, 3, 0]
    assert seeds("--base", "cdcdcdcd") == []
    assert run("ls", *at, "--method", "pfeifer") == 0
    assert "none has --method pfeifer. Did you mean 'pfeiffer'?" in capsys.readouterr().out
    assert run("ls", *at, "--limit", "0") == 2


def test_a_strangers_text_cannot_move_the_cursor(
    zoo: Zoo, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {**manifest().task, "id": "toy/\x1b[2J\x9b\u202eevil"}
    entry = put(zoo, layers(1.0), task=spec, command="a\x1b]0;b\x07")
    for command in (["ls"], ["show", entry.ref], ["diff", entry.ref, entry.ref], ["fsck"]):
        run(*command, "--zoo", str(zoo.root))
        out = capsys.readouterr().out
        assert all(letter.isprintable() or letter == "\n" for letter in out)


def many(zoo: Zoo, count: int) -> list[Entry]:
    return [put(zoo, layers(n + 1.0), seed=n, runhash=f"{n:016x}") for n in range(count)]


def test_the_index_saves_reading_and_is_never_believed_over_a_file(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 3)
    entries = many(zoo, 4)
    fresh = open_zoo(zoo.root)
    before = fresh.summaries()
    folder = index_folder()
    assert folder is not None
    (index,) = folder.iterdir()
    assert zoo.root not in index.parents

    read: list[str] = []
    real = Zoo._recorded
    monkeypatch.setattr(
        Zoo,
        "_recorded",
        lambda self, path, mark: (read.append(path.name), real(self, path, mark))[1],
    )
    assert open_zoo(zoo.root).summaries() == before
    assert read == []
    # A manifest that was touched is read again; one that is damaged is named, whatever was known.
    path = entries[0].folder / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    again = open_zoo(zoo.root)
    assert [summary.seed for summary in again.summaries()] == [1, 2, 3]
    assert [problem.kind for problem in again.problems] == ["manifest"]
    assert read == [entries[0].folder.name]
    # What was removed is gone; what another process stores is there.
    zoo.remove(entries[1].ref)
    put(open_zoo(zoo.root), layers(9.0), seed=9, runhash="9" * 16)
    assert [summary.seed for summary in open_zoo(zoo.root).summaries()] == [2, 3, 9]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 1, "fields": [], "rows": 3}']
)
def test_a_damaged_index_costs_only_time(
    content: bytes, zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 1)
    many(zoo, 2)
    before = open_zoo(zoo.root).summaries()
    folder = index_folder()
    assert folder is not None
    for path in folder.iterdir():
        path.write_bytes(content)
    assert open_zoo(zoo.root).summaries() == before


def test_a_cache_that_cannot_be_written(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert WORTH_WRITING > 1
    monkeypatch.setattr("mtl.zoo.summary.WORTH_WRITING", 1)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "file"))
    many(zoo, 2)
    assert len(open_zoo(zoo.root).summaries()) == 2
