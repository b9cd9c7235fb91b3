"""How much a composition uses its sources: what is stored of it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from zoo_bench import composition, manifest, store, task

from mtl.errors import RequestError, ZooError
from mtl.graph.collect import reliance
from mtl.report import draw_heatmap, heatmap
from mtl.zoo import Entry, Zoo, check_foreign, open_zoo
from mtl.zoo.check import file_table
from mtl.zoo.composition import FILE, source_weights, used_weights, weigh, write_shares
from mtl.zoo.diff import distances
from mtl.zoo.names import SHARES, is_derived, predictions_file, predictions_of
from mtl.zoo.summary import summarise

OMEGA = np.array([[[1, -1, 1, -1], [3, 3, -3, -1]], [[2, 2, 2, 2], [0, 0, 0, 0]]], np.float32)
"""(L,K,D): at layer 0 what the first source adds cancels, its magnitude does not."""


@pytest.fixture
def made(zoo: Zoo) -> Entry:
    """A composition of before there were shares."""
    sources = [store(zoo, manifest(task=task(name), runhash="11" * 8)) for name in ("a", "b")]
    return composition(zoo, sources, OMEGA, runhash="22" * 8)


def sealed(zoo: Zoo, entry: Entry, **changes: Any) -> Entry:
    """The entry with what lies in its folder now, all hashes right."""
    from mtl.zoo.commit import _write
    from mtl.zoo.manifest import record

    _write(entry.folder, record(replace(entry.manifest, **changes), file_table(entry.folder, "x")))
    return open_zoo(zoo.root).get(entry.ref)


def with_shares(zoo: Zoo, entry: Entry) -> Entry:
    used = used_weights(entry)
    assert used is not None
    write_shares(entry.folder, weigh("omega", used))
    return sealed(zoo, entry)


def test_shares_are_the_definition(zoo: Zoo, made: Entry) -> None:
    before = source_weights(made)
    entry = with_shares(zoo, made)
    stored = load_file(entry.folder / SHARES)
    assert {name: (value.dtype, value.shape) for name, value in stored.items()} == {
        "omega.0": (np.float32, (3, 2)),
        "omega.1": (np.float32, (3, 2)),
    }
    np.testing.assert_allclose(
        stored["omega.0"], np.array([[1 / 3.5, 2.5 / 3.5], [0, 0.5], [1, 2.5]])
    )
    np.testing.assert_allclose(stored["omega.1"], np.array([[1.0, 0], [2, 0], [2, 0]]))
    found = source_weights(entry)
    assert found is not None
    assert before is not None
    assert found.cancels
    assert (found.kind, found.rows, found.sites) == ("omega", "", ("0", "1"))
    for key in ("share", "mean", "magnitude"):  # an entry of before says the same
        np.testing.assert_allclose(getattr(found, key), getattr(before, key), atol=1e-7)
    assert check_foreign(entry.folder) == []
    assert zoo.fsck() == []
    assert reliance(entry)[:2] == ("omega", ["0", "1"])  # type: ignore[index]


def test_shares_are_no_weights(zoo: Zoo, made: Entry) -> None:
    alone, settings = summarise(made.ref, recorded(made)), made.manifest.method_settings
    entry = with_shares(zoo, made)
    assert entry.digest == made.digest, "a run of before, made again, is the same entry"
    assert entry.files.keys() - made.files.keys() == {SHARES}
    assert entry.manifest.method_settings == settings
    assert summarise(entry.ref, recorded(entry)).weights == alone.weights
    assert not distances(made, entry).only


def recorded(entry: Entry) -> Any:
    from mtl.zoo.manifest import Recorded

    return Recorded(entry.manifest, entry.digest, entry.files, entry.schema_version)


def test_two_maps_where_scales_cancel(
    zoo: Zoo, made: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[Any, str]] = []
    real = heatmap._draw

    def spy(figure: Any, axes: Any, each: Any) -> None:
        drawn.append((each.matrix, each.what))
        real(figure, axes, each)

    monkeypatch.setattr(heatmap, "_draw", spy)
    draw_heatmap([with_shares(zoo, made)], tmp_path / "a.png")
    assert [what for _, what in drawn] == [
        "omega, mean over D (signed)",
        "|omega|, mean over D",
    ]
    np.testing.assert_allclose(drawn[0][0], np.array([[0, 2], [0.5, 0]]))
    np.testing.assert_allclose(drawn[1][0], np.array([[1, 2], [2.5, 0]]))
    drawn.clear()
    save_file({"omega.shared": np.ones((2, 1), np.float32)}, made.folder / FILE)
    (made.folder / SHARES).unlink()
    plain = sealed(zoo, made)
    draw_heatmap([plain], tmp_path / "b.png")
    assert [what for _, what in drawn] == ["omega, mean over D"]
    other = composition(zoo, zoo.entries(kind="adapter"), OMEGA, runhash="33" * 8)
    with pytest.raises(RequestError, match="other sites"):
        draw_heatmap([plain, other], tmp_path / "c.png")


def test_attention_of_dev_and_of_before(zoo: Zoo, made: Entry) -> None:
    """New fusions hold a mean over dev; those of before one over test, beside their weights."""
    values = {"attention.0": np.array([0.6, 0.4], np.float32)}
    weights = {"fusion.0.value.weight": np.eye(4, dtype=np.float32)}
    save_file(weights | values, made.folder / FILE)
    before = source_weights(sealed(zoo, made))
    assert before is not None
    assert (before.kind, before.rows) == ("attention", "test")
    assert used_weights(made) is None
    save_file(weights, made.folder / FILE)
    assert source_weights(sealed(zoo, made)) is None
    write_shares(made.folder, weigh("attention", {"0": values["attention.0"]}, "dev"))
    entry = sealed(zoo, made)
    found = source_weights(entry)
    assert found is not None
    assert (found.kind, found.rows) == ("attention", "dev")
    for key in ("share", "mean", "magnitude"):
        np.testing.assert_allclose(getattr(found, key), [[0.6], [0.4]], atol=1e-7)
    assert check_foreign(entry.folder) == []


def table(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


GOOD = table([0.5, 0.5], [1, 1], [1, 1])
HOSTILE: dict[str, tuple[str, Callable[[], dict[str, np.ndarray]], str]] = {
    "three sources": ("fit", lambda: {"omega.0": np.full((3, 3), 1 / 3, np.float32)}, r"\(3, 2\)"),
    "no table": ("fit", lambda: {"omega.0": np.ones(2, np.float32)}, r"\(3, 2\)"),
    "huge": ("fit", lambda: {"omega.0": np.ones((3, 1_000_000), np.float32)}, r"\(3, 2\)"),
    "doubles": ("fit", lambda: {"omega.0": GOOD.astype(np.float64)}, "F64"),
    "a layer that is not there": ("fit", lambda: {"omega.2": GOOD}, "base with 2 layers"),
    "a group that is not there": ("fit", lambda: {"omega.0-9": GOOD}, "base with 2 layers"),
    "no site": ("fit", lambda: {"omega": GOOD}, "base with 2 layers"),
    "a name to be drawn": ("fit", lambda: {"omega.0.a b<br>": GOOD}, "base with 2 layers"),
    "two kinds": ("fit", lambda: {"omega.0": GOOD, "attention.1": GOOD}, "2 kinds"),
    "nothing": ("fit", dict, "0 kinds"),
    "many sites": ("fit", lambda: {f"x.0.m{n}": GOOD for n in range(65)}, "65 sites"),
    "NaN": ("values", lambda: {"omega.0": GOOD * np.float32("nan")}, "not finite|NaN"),
    "infinite": ("values", lambda: {"omega.0": GOOD * np.float32("inf")}, "not finite|NaN"),
    "no shares": ("values", lambda: {"x.0": table([0.5, 0.7], [1, 1], [1, 1])}, "contradicts"),
    "negative": ("values", lambda: {"x.0": table([2, -1], [2, -1], [2, -1])}, "contradicts"),
    "a mean too large": ("values", lambda: {"x.0": table([0.5, 0.5], [3, 1], [1, 1])}, "contradic"),
    "another omega": ("values", lambda: {"omega.0": GOOD, "omega.1": GOOD}, "something else"),
    "another kind": ("values", lambda: {"attention.0": GOOD}, "something else"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_shares_that_mean_nothing_are_refused(name: str, zoo: Zoo, made: Entry) -> None:
    kind, tensors, message = HOSTILE[name]
    save_file(tensors(), made.folder / SHARES)
    entry = sealed(zoo, made)
    problems = check_foreign(entry.folder)
    assert kind in {problem.kind for problem in problems}
    assert any(problem.path == SHARES for problem in problems)
    assert [p for p in zoo.fsck() if p.path.endswith(SHARES)]
    if "something else" not in message:  # what reads them alone cannot know that
        with pytest.raises(ZooError, match=message) as caught:
            source_weights(entry)
        assert str(caught.value).startswith(entry.ref)
        assert str(caught.value).isprintable()
    else:
        assert any(message in problem.message for problem in problems)


def test_shares_that_are_missing_or_no_tensors(zoo: Zoo, made: Entry) -> None:
    entry = with_shares(zoo, made)
    (entry.folder / SHARES).write_bytes(b"\x80\x04 no")
    with pytest.raises(ZooError, match=SHARES):
        source_weights(entry)
    (entry.folder / SHARES).unlink()
    with pytest.raises(ZooError, match=f"{SHARES} is missing"):
        source_weights(entry)


def test_only_compositions_have_shares(zoo: Zoo) -> None:
    entry = store(zoo, manifest(task=task("a")))
    save_file({"omega.0": GOOD}, entry.folder / SHARES)
    (problem,) = check_foreign(sealed(zoo, entry).folder)
    assert "belongs to compositions" in problem.message


def test_an_omega_without_end_is_no_picture(zoo: Zoo, made: Entry) -> None:
    names = [f"omega.0.m{number}" for number in range(65)]
    save_file({name: np.ones((2, 1), np.float32) for name in names}, made.folder / FILE)
    with pytest.raises(ZooError, match="65 sites"):
        source_weights(made)


def test_names_of_predictions() -> None:
    for split in ("test", "dev", "test_mismatched"):
        for of in ("", "glue/mnli"):
            name = predictions_file(split, of)
            assert predictions_of(name) == (split, of)
            assert is_derived(name)
    assert predictions_file() == "predictions.safetensors"
    assert predictions_file(task="glue/mnli") == "predictions/glue/mnli.safetensors"
    assert predictions_file("dev", "glue/mnli") == "predictions-dev/glue/mnli.safetensors"
    for name in ("adapter.safetensors", "predictions.json", "heads/predictions.safetensors"):
        assert not is_derived(name)
