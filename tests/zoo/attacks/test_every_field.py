"""Every field of every stored file, replaced by values of other types: no reader ever breaks.

What a reader takes it uses; what it does not take is one message. All mutations of a kind of file
lie beside each other, so that a command reads hundreds of them at once.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_fuzzing import changed, places
from test_joint_attacks import WIDTHS, answers, head, section
from zoo_bench import composition, manifest, store, task

from mtl.cli.main import dispatch
from mtl.errors import MtlError, ZooError
from mtl.graph.calibrate import Calibration, Trust, read_calibration, trust_text, write_calibration
from mtl.graph.collect import record, stale_files
from mtl.graph.evidence import Evidence, evidence_file, graph_folder, read_file, write_evidence
from mtl.runs.loading import stored_settings
from mtl.runs.verify import parts_of
from mtl.zoo import Zoo, open_zoo
from mtl.zoo.card import card
from mtl.zoo.caveats import caveats, error_text
from mtl.zoo.manifest import IDENTITY_KEYS, check_recorded, counts
from mtl.zoo.schema import joint_sections

VALUES = [None, True, -7, 1e300, "x", [], ["x"], {}, {"x": 1}, ...]
BASE = "ab" * 32


def mutations(good: Any, values: list[Any] = VALUES) -> Iterator[tuple[str, Any]]:
    """Every place of ``good`` with every value; ``...`` takes the key away."""
    for path in places(good):
        for value in values:
            yield f"{path} = {value}", changed(good, path, value)


def run(command: str, *argv: object) -> None:
    """A command ends with an exit code of ours; what is no error of ours fails the test."""
    assert dispatch(command, [str(item) for item in argv]) in {0, 1, 2}


def test_a_million_wrong_values_are_one_error(zoo: Zoo) -> None:
    """pydantic collects errors: of each wrong item one, a kilobyte each, if it may."""
    good = json.loads((store(zoo, manifest()).folder / "manifest.json").read_text())
    many, named = [7.5] * 1000, {str(number): 7.5 for number in range(1000)}
    tensors = {"x.safetensors": {"sha256": "ab" * 32, "bytes": 1, "tensors": {"a": ["F32", many]}}}
    lists = [("parents",), ("task", "metrics"), ("task", "labels")]
    tables = [("metrics",), ("metrics", "test"), ("versions",), ("data", "sizes"), ("files",)]
    wrong = [changed(good, path, many) for path in lists]
    wrong += [changed(good, path, named) for path in tables]
    wrong += [changed(good, ("data", "splits"), named), changed(good, ("files",), tensors)]
    for value in (*wrong, {**good, **named}):
        with pytest.raises(ZooError) as error:
            check_recorded(value, "x")
        assert error.value.__cause__.error_count() < 5  # type: ignore[union-attr]
    with pytest.raises(ZooError) as error:
        joint_sections({"tasks": many}, {"tasks": {}}, "x")
    assert error.value.__cause__.error_count() == 1  # type: ignore[union-attr]


def findings() -> list[Evidence]:
    """One of each kind, with everything that can be said of it."""
    place = {"ref": "tiny/toy/own/pfeiffer/seed0-01234567", "digest": "cd" * 32}
    said = {
        "entry": place, "own": place, "source": place, "command": "python -m mtl.compose",
        "created": "2026-01-01T00:00:00+00:00", "settings": "0123456789abcdef", "sources": 3,
        "metric": "accuracy", "caveat": "all labels are 'no'", "composition": "scalearn",
        "split": "test", "layer_errors": {"0": 0.1}, "plain base": 0.5,
    }  # fmt: skip
    return [
        Evidence("toy/a", "toy/own", "measured", "scalearn", 0.1, -0.1, 0.3, 0.2, 4, (0,), BASE,
                 "ef" * 32, {}, said),
        Evidence("toy/a", "toy/own", "reliance", "omega", 0.4, seeds=(0,), base=BASE,
                 layers={"0": 0.4, "1": 0.4}, provenance=said),
        Evidence("toy/a", "toy/own", "attribution", "scalearn shapley", 0.1, dev=0.1, n=4,
                 seeds=(0,), base=BASE, layers={"0": 0.1}, provenance=said),
        Evidence("toy/a", "toy/own", "predicted", "logme", 0.3, n=4, base=BASE, provenance=said),
    ]  # fmt: skip


def test_evidence(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mtl.graph.collect.DRAWS", 2)
    source = store(zoo, manifest(task=task("a")))
    store(zoo, manifest())
    made = composition(zoo, [source], np.ones((1, 1, 4), np.float32), runhash="22" * 8)
    folder = graph_folder(zoo.root)
    count, taken = 0, 0
    for finding in findings():
        path = write_evidence(folder, "compose-good", [finding])
        good = json.loads(path.read_text())
        path.unlink()
        for _, value in mutations(good):
            count += 1
            path = folder / "evidence" / f"compose-{count}.json"
            path.write_text(json.dumps(value))
            try:
                read_file(path)
                taken += 1
            except ZooError:
                if count % 50:  # the commands below read what is taken, and some of the others
                    path.unlink()
    assert 100 < taken < 0.75 * count
    at = ["--zoo", zoo.root]
    run("graph", "build", "--out", tmp_path / "g.graphml", "--out", tmp_path / "g.dot", *at)
    run("graph", "show", *at)
    run("graph", "show", "--json", "--html", tmp_path / "g.html", *at)
    run("graph", "show", "--kind", "measured", "--matrix", tmp_path / "m.png", *at)
    run("graph", "calibrate", *at)
    run("graph", "build", "--prune", *at)
    capsys.readouterr()
    # what stands in the place of a composition of the zoo, and is looked at before it is replaced
    folder = tmp_path / "one"
    record(zoo, folder, [made])
    known = evidence_file(folder, f"compose-{made.manifest.runhash[:16]}")
    own = json.loads(known.read_text())
    assert own["evidence"][0]["kind"] == "measured"
    for _, value in mutations(own, [True, "x", ...]):
        known.write_text(json.dumps(value))
        stale_files(zoo, folder)
        record(zoo, folder, [made])
        assert len(read_file(known)) == 1  # left as it is, or made anew


def test_calibration(tmp_path: Path) -> None:
    trust = Trust(
        "logme", 3, 9, 0.5, 0.1, 0.9, {"1": (0.1, 0.0, 0.2), "3": (0.0, None, None)}, 1.0, 0.0,
        0.1, "targets",
    )  # fmt: skip
    scores, random = {"logme": trust}, {"1": 0.2, "3": 0.1}
    path = write_calibration(
        tmp_path, Calibration(BASE, "scalearn", scores, random, {"knn": "no"}, ["toy/own"])
    )
    good = json.loads(path.read_text())
    assert read_calibration(tmp_path, BASE) is not None
    taken, refused = 0, []
    for _, value in mutations(good):
        path.write_text(json.dumps(value))
        try:
            found = read_calibration(tmp_path, BASE)
        except ZooError as error:
            refused.append(str(error))
            continue
        assert found is not None
        taken += 1
        best = found.best()
        assert isinstance(trust_text(best), str)
        assert all(item.verdict for item in found.scores.values())
        from mtl.cli.graph_text import calibration_text

        assert calibration_text(found)
        assert json.dumps(found.to_dict())
    assert taken  # of numbers, other numbers
    assert all("Remove it and run 'python -m mtl.graph calibrate'" in said for said in refused)


def joint(zoo: Zoo) -> Path:
    """A joint entry that says all that a real one says."""
    datas = {name: {**manifest().data, "splits": {"test": "ab" * 32}} for name in WIDTHS}
    item = {"value": 0.5, "stderr": 0.25, "n": 4}
    metrics = {"test": {**{f"{name}/accuracy": item for name in WIDTHS}, "average": item}}
    described = manifest(
        kind="joint", method="adapter-m", task=section(), metrics=metrics, runhash="33" * 8,
        data={**manifest().data, "tasks": datas},
    )  # fmt: skip
    ref = zoo.location("tiny-abababab", "toy", "_joint", "adapter-m", 0, described.runhash)
    with zoo.stage(ref) as folder:
        for name, width in WIDTHS.items():
            head(folder, name, width)
            answers(folder, name, width)
        return zoo.commit(folder, ref, described).folder


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A manifest with its digest made right, whatever is in it."""
    from mtl.files import sha256_json

    identity = {}
    for key in IDENTITY_KEYS:
        part, _, name = key.partition(".")
        inner = value.get(part)
        identity[key] = (inner.get(name) if isinstance(inner, dict) else None) if name else inner
    files = value.get("files")
    hashes = {
        name: item["sha256"] if isinstance(item, dict) and "sha256" in item else item
        for name, item in (files.items() if isinstance(files, dict) else ())
        if counts(name)
    }
    return {**value, "digest": sha256_json({"manifest": identity, "files": hashes})}


COMMANDS: list[tuple[str, list[str]]] = [
    ("zoo", ["ls"]),
    ("zoo", ["ls", "--json", "--sort", "metric"]),
    ("zoo", ["fsck", "--jobs", "1"]),
    ("zoo", ["gc", "--what", "zoo"]),
    ("zoo", ["migrate"]),
    ("report", []),
    ("report", ["--json"]),
    ("report", ["--suite", "toy", "--target", "own"]),
    ("graph", ["build"]),
    ("graph", ["show"]),
    ("graph", ["show", "--json"]),
]


@pytest.mark.parametrize("kind", ["adapter", "composition", "joint"])
def test_manifests(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mtl.graph.collect as collect

    monkeypatch.setattr(collect, "DRAWS", 2)
    first = open_zoo(tmp_path / "good")
    splits = {"train": "ab" * 32, "dev": "ab" * 32, "test": "ab" * 32}
    data = {**manifest().data, "splits": splits}
    own = store(first, manifest(data=data))
    other = store(first, manifest(task=task("a"), data=data))
    make: dict[str, Callable[[], Path]] = {
        "adapter": lambda: own.folder,
        "composition": lambda: (
            composition(
                first, [own, other], np.ones((2, 2, 4), np.float32), data=data, runhash="22" * 8
            ).folder
        ),
        "joint": lambda: joint(first),
    }
    folder = make[kind]()
    good = json.loads((folder / "manifest.json").read_text())
    values = [None, True, {"x": 1}, ...]
    zoo = open_zoo(tmp_path / "zoo")
    shutil.copytree(first.root, zoo.root)
    for number, (_, value) in enumerate(mutations(good, values)):
        value = sealed(value)
        try:
            check_recorded(value, "x")
        except ZooError:
            if number % 100:  # the commands below read what is taken, and some of the others
                continue
        place = zoo.root / "b" / "s" / "t" / "m" / f"seed0-{number:08x}"
        place.mkdir(parents=True)
        for name in ("composition.safetensors", "predictions.safetensors", "predictions", "heads"):
            if (folder / name).exists():
                (place / name).symlink_to(folder / name)  # found by fsck, and read by the others
        (place / "manifest.json").write_text(json.dumps(value))
    for command, argv in COMMANDS:
        run(command, *argv, "--zoo", zoo.root)
        capsys.readouterr()
    listed = zoo.entries()
    assert len(listed) > len(first.entries()) + 20  # some are taken, and used as they are
    for entry in listed:
        assert card(entry.manifest)
        assert caveats(entry).keys() >= set()
        for reader in (parts_of, stored_settings):
            with contextlib.suppress(MtlError):
                reader(entry)
    for entry in listed[:: max(1, len(listed) // 12)]:
        run("zoo", "show", entry.ref, "--zoo", zoo.root)
        run("zoo", "diff", entry.ref, listed[0].ref, "--zoo", zoo.root)
        run("report", "--entry", entry.ref, "--heatmap", tmp_path / "x.png", "--zoo", zoo.root)
    capsys.readouterr()


def test_results_and_events_of_run_folders(
    zoo: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtl.engine.folder import RunFolder

    entry = store(zoo, manifest())
    runs = tmp_path / "runs"
    good = {"ref": entry.ref, "digest": entry.digest, "metrics": entry.manifest.metrics}
    texts = [json.dumps(value) for _, value in mutations(good)]
    texts += [json.dumps(value) for value in VALUES if value is not ...]
    texts += ["", "{", "[" * 100_000, '{"digest": NaN}', "\ud800".encode("utf-8", "surrogatepass")]  # type: ignore[list-item]
    for number, text in enumerate(texts):
        folder = runs / f"{number:064x}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    run("zoo", "gc", "--what", "runs", "--runs", runs, "--zoo", zoo.root)
    run("zoo", "gc", "--what", "runs", "--runs", runs, "--zoo", zoo.root, "--yes", "--json")
    left = {path.name for path in runs.iterdir()}
    assert f"{len(texts) - 1:064x}" in left  # damaged: for a person to look at
    folder = RunFolder(tmp_path / "one")
    folder.add_event({"step": 1, "metrics": {"accuracy": 0.5}})
    good_line = folder.read_events()[0]
    lines = [json.dumps(value) for _, value in mutations(good_line)]
    lines += [json.dumps(value) for value in VALUES if value is not ...] + ["{", "[" * 100_000]
    with folder.events.open("a") as stream:
        stream.write("\n".join(lines) + "\n")
    with folder.events.open("ab") as binary:
        binary.write(b"\xff\xfe\n")
    found = folder.read_events()
    assert found[0] == good_line
    assert all(type(event["step"]) is int for event in found)
    folder.keep_events(1)
    assert good_line in folder.read_events()
    capsys.readouterr()


def test_the_index(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mtl.zoo.summary as summary

    monkeypatch.setattr(summary, "WORTH_WRITING", 1)
    one = store(zoo, manifest(task=task("a")))
    composition(zoo, [one], np.ones((1, 1, 4), np.float32), runhash="22" * 8)
    expected = open_zoo(zoo.root).summaries()
    folder = summary.index_folder()
    assert folder is not None
    (path,) = [p for p in folder.glob("*.json") if str(zoo.root) in p.read_text()]
    good = json.loads(path.read_text())
    assert [s.ref for s in open_zoo(zoo.root).summaries()] == [s.ref for s in expected]
    kept = [True, 7, "x", [], {}]
    for what, value in [*mutations(good, [None, *kept, ...]), *((str(v), v) for v in kept)]:
        path.write_text(json.dumps(value))
        found = open_zoo(zoo.root).summaries()
        assert len(found) == 2, what
        assert all(
            isinstance(error_text(vars(item)), str) and item.covers("x") < 2 for item in found
        )
    for value in ({"root": 7}, {"root": "\0"}, [], 7):
        path.write_text(json.dumps(value))
        run("zoo", "gc", "--what", "zoo", "--zoo", zoo.root)
    path.write_bytes(b"[" * 100_000)
    run("zoo", "ls", "--zoo", zoo.root)
    run("zoo", "gc", "--what", "zoo", "--zoo", zoo.root)
    capsys.readouterr()
