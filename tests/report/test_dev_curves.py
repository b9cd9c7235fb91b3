"""``mtl.report --curves``: what is drawn is what the events say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mtl.errors import RequestError
from mtl.report import dev_curves as module
from mtl.report.dev_curves import dev_curves, draw_dev_curves


def entry(method: str, seed: int, kind: str = "adapter") -> Any:
    task: dict[str, Any] = {"id": "mini/mood", "headline": "accuracy"}
    if kind == "joint":
        parts = [{"id": f"mini/{name}", "headline": "accuracy"} for name in ("mood", "same")]
        task = {"id": "mini/_joint", "headline": "average", "tasks": parts}
    manifest = SimpleNamespace(
        kind=kind,
        task=task,
        method=method,
        seed=seed,
        runhash=f"{method}{seed}",
        training={"best_step": 4},
        parents=[],
        control="",
    )
    return SimpleNamespace(manifest=manifest, ref=f"{method}/seed{seed}")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "group_of", lambda found: found.manifest.method)
    monkeypatch.setattr(module, "settings_apart", lambda manifests: [{} for _ in manifests])


def write(runs: Path, name: str, values: list[dict[str, float]]) -> None:
    folder = runs / name
    folder.mkdir(parents=True)
    events = [{"step": 2 * n, "metrics": found} for n, found in enumerate(values, start=1)]
    (folder / "events.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))


def test_lines_means_and_what_is_lost(tmp_path: Path) -> None:
    write(tmp_path, "lora0", [{"accuracy": 0.5}, {"accuracy": 0.7}, {"accuracy": 0.6}])
    write(tmp_path, "lora1", [{"accuracy": 0.6}, {"accuracy": 0.9}])  # it stopped earlier
    write(tmp_path, "m0", [{"mini/mood/accuracy": 0.4, "mini/same/accuracy": 0.3}])
    entries = [entry("lora", 0), entry("lora", 1), entry("m", 0, "joint"), entry("bitfit", 0)]
    found, lost = dev_curves(entries, tmp_path)
    assert lost == ["bitfit/seed0"]
    assert [*found] == [("mini/mood", "accuracy"), ("mini/same", "accuracy")]
    lora, joint = found["mini/mood", "accuracy"]
    assert (lora.label, joint.label) == ("lora", "m")
    assert lora.seeds[0] == [(2, 0.5), (4, 0.7), (6, 0.6)]
    assert lora.mean() == [(2, pytest.approx(0.55)), (4, pytest.approx(0.8))]
    assert joint.mean() == [(2, 0.4)]
    pytest.importorskip("matplotlib")
    path = tmp_path / "dev.png"
    draw_dev_curves(found, path)
    picture = path.read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert b"mini/mood lora (2 seeds): dev accuracy 0.8000 at 4" in picture


def test_more_panels_than_a_picture_shows(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--target"):
        draw_dev_curves({(f"t/{n}", "accuracy"): [] for n in range(25)}, tmp_path / "x.png")


def test_a_label_has_one_colour_in_all_panels() -> None:
    """The same settings were blue for one task and red for the next."""
    from mtl.report.dev_curves import LOOKS, Line, places_of

    known = {"a": 0, "b": 1, "c": 2}
    one = places_of([Line("c"), Line("a")], known)
    two = places_of([Line("b"), Line("c"), Line("c")], known)
    assert [(line.label, place) for line, place in one] == [("a", 0), ("c", 2)]
    assert [(line.label, place) for line, place in two] == [("b", 1), ("c", 2), ("c", 5)]
    many = {str(n): n for n in range(LOOKS + 1)}
    assert [place for _, place in places_of([Line("7"), Line("3")], many)] == [0, 1]


def test_the_page_colours_labels_alike_in_all_drawings() -> None:
    import re

    from mtl.report.dev_curves import Line
    from mtl.report.page_figures import all_curves

    lines = {name: Line(name, {0: [(1, 0.5), (2, 0.6)]}, {0: 2}) for name in ("a", "b", "c")}
    drawn = all_curves(
        {("t/x", "f1"): [lines["c"], lines["a"]], ("t/y", "f1"): [lines["b"], lines["c"]]}
    )
    both = [*["s0", "s2"] * 2, *["s1", "s2"] * 2]  # lines, and the key below them
    assert re.findall(r'class="line (s\d)', drawn) == both
