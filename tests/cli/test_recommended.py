"""Every command that a message recommends, run in the situation in which it is recommended.

The registry is in ``recommended.py``. A new message that recommends a command line needs a test
here, or in a ``test_recommended_….py``, with ``@recommends(module, part of the text)`` that
provokes it and follows it.
"""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
from cli_bench import ROOT, TARGET, entries, mtl, refused
from recommended import (
    BARE,
    COVERED,
    OPTION,
    commands,
    covered,
    follow,
    literals,
    options,
    provoked,
    recommending,
    recommends,
)
from zoo_bench import manifest, store

from mtl.errors import MtlError, ZooError
from mtl.zoo import Zoo, open_zoo

VERSIONS = ROOT / "tests" / "zoo" / "versions"

OPEN = {
    ("cli/graph.py", "its evidence is not beside it"): "a graph folder that cannot be written",
    ("compose/suggest.py", "are cut into windows"): "a span task as a target",
    ("compose/soup_text.py", "hf download"): "needs the network",
    ("engine/launch.py", "accelerate launch"): "tests/cli/test_joint_processes.py launches (slow)",
    ("graph/calibrate.py", "no transfer was measured on base"): "several bases",
    ("graph/calibrate.py", "Nothing to calibrate: of"): "measured transfer without scores",
    ("graph/collect.py", "own adapters fit"): "two own adapters",
    ("graph/picture.py", "evidence to draw. Add some"): "slow: draws",
    ("graph/select.py", "needs a gain of every candidate"): "needs scored candidates",
    ("graph/select.py", "--sources auto has no candidate"): "needs candidates without scores",
    ("graph/select.py", "A composition for"): "needs a graph without reliance",
    ("zoo/commit.py", "could not confirm"): "a disk that fails to sync",
    ("zoo/staging.py", "could not be removed"): "a disk that fails to remove",
}
"""Messages whose command no test follows yet, with the reason. It may only become shorter."""


def test_every_recommendation_is_followed_by_a_test() -> None:
    """What to do when this fails is in CONTRIBUTING.md, "Messages"."""
    for path in Path(__file__).parent.glob("test_recommended_*.py"):
        importlib.import_module(path.stem)  # registers its tests
    found = recommending()
    lost = [
        f"mtl/{item.module}:{item.line}: {item.text}"
        for item in found
        if covered(item) is None
        and not any(m == item.module and part in item.text for m, part in OPEN)
    ]
    assert not lost, "no test follows:\n" + "\n".join(lost)
    for module, part in [*COVERED, *OPEN]:
        assert any(item.module == module and part in item.text for item in literals()), (
            f"mtl/{module} says {part!r} no more"
        )
    both = [key for key in OPEN for item in found if key[1] in item.text and covered(item)]
    assert not both, f"followed by a test, so no longer open: {both}"


def test_commands_are_written_as_a_shell_runs_them() -> None:
    bare = [
        f"mtl/{i.module}:{i.line}: {i.text}"
        for i in literals()
        if BARE.search(i.text) and not BARE.fullmatch(i.text)
    ]
    assert not bare, "write python -m mtl.…:\n" + "\n".join(bare)


def test_options_that_messages_name_exist() -> None:
    wrong = {
        f"mtl/{item.module}:{item.line}: {option}"
        for item in literals()
        for option in OPTION.findall(item.text)
        if option not in options()
        and " " in item.text
        # of launchers and programs that are not ours
        and not any(word in item.text for word in ("iconv", "accelerate", "torchrun"))
    }
    assert not wrong


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """The zoo of the test, that commands use by themselves; empty."""
    return open_zoo(tmp_path / "zoo")


def said(error: Any) -> str:
    return str(error.value)


@recommends("zoo/reader.py", "lists them; give a reference")
def test_an_unknown_entry(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    message = provoked(mtl("zoo", "rm", "no/such").err, "zoo/reader.py", "lists them; give a")
    assert entry.ref in follow(message).out


@recommends("zoo/reader.py", "is damaged")
@recommends("zoo/fsck.py", "Remove the entry (")
def test_a_damaged_file(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    (entry.folder / "adapter.safetensors").write_bytes(b"")
    with pytest.raises(ZooError) as error:
        zoo.load_check(entry)
    provoked(said(error), "zoo/reader.py", "is damaged")
    message = provoked(mtl("zoo", "fsck").out, "zoo/fsck.py", "Remove the entry (")
    assert commands(message)[0] == commands(said(error))[0]
    assert follow(said(error)).code == 0
    assert not zoo.entries()


@recommends("zoo/entry.py", "then run again what made it")
@recommends("cli/zoo_list.py", "says why")
def test_a_damaged_manifest(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    (entry.folder / "manifest.json").write_text("{")
    message = provoked(mtl("zoo", "ls").out, "cli/zoo_list.py", "says why")
    assert "manifest" in follow(message).out
    with pytest.raises(ZooError) as error:
        zoo.get(entry.ref)
    assert follow(provoked(said(error), "zoo/entry.py", "then run again")).code == 0
    assert not entry.folder.exists()


@recommends("zoo/fsck.py", "fsck --fix' removes it")
def test_a_leftover(zoo: Zoo) -> None:
    store(zoo, manifest())
    dead = zoo.root / "tiny" / ".tmp-dead"
    dead.mkdir(parents=True)
    message = provoked(mtl("zoo", "fsck").out, "zoo/fsck.py", "fsck --fix' removes it")
    assert follow(message).code == 0
    assert not dead.exists()


@recommends("cli/zoo.py", "of an older schema version")
def test_an_older_schema(zoo: Zoo) -> None:
    shutil.copytree(VERSIONS / "v1", zoo.root)
    message = provoked(mtl("zoo", "fsck").out, "cli/zoo.py", "of an older schema version")
    assert follow(message).code == 0
    assert follow(message, "--yes").code == 0
    assert "older schema" not in mtl("zoo", "fsck").out


@recommends("zoo/commit.py", "another result with the same settings is there")
@recommends("zoo/commit.py", "something that is no readable entry")
def test_a_place_that_is_taken(zoo: Zoo) -> None:
    entry = store(zoo, manifest())
    with pytest.raises(ZooError) as error:
        store(zoo, manifest(), 2.0)
    assert follow(provoked(said(error), "zoo/commit.py", "another result with the same")).code == 0
    entry.folder.mkdir(parents=True)
    (entry.folder / "manifest.json").write_text("{")
    with pytest.raises(ZooError) as error:
        store(zoo, manifest(), 2.0)
    assert follow(provoked(said(error), "zoo/commit.py", "no readable entry")).code == 0
    store(zoo, manifest(), 2.0)


@recommends("zoo/twins.py", "compares them")
def test_twins(zoo: Zoo, caplog: pytest.LogCaptureFixture) -> None:
    store(zoo, manifest())
    with caplog.at_level(logging.WARNING, "mtl.zoo"):
        store(zoo, manifest(runhash="fe" * 8, seed=1))
    assert follow(provoked(caplog.text, "zoo/twins.py", "compares them")).code in {0, 1}


@recommends("hub/lockfile.py", "There is no lock file")
@recommends("hub/lockfile.py", "is no lock of version")
def test_locks(zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(zoo, manifest())
    monkeypatch.chdir(tmp_path)
    message = provoked(
        mtl("zoo", "pull", "--lock", "mtl.lock").err, "hub/lockfile.py", "There is no lock file"
    )
    assert follow(message).code == 0
    (tmp_path / "mtl.lock").write_text('{"schema_version": 9, "entries": []}')
    message = provoked(
        mtl("zoo", "pull", "--lock", "mtl.lock").err, "hub/lockfile.py", "is no lock of version"
    )
    assert follow(message).code == 0
    assert mtl("zoo", "pull", "--lock", "mtl.lock").code == 0


@recommends("cli/report.py", "holds no entry")
@recommends("cli/report.py", "is no composition")
def test_reports_of_nothing(zoo: Zoo, tmp_path: Path) -> None:
    message = provoked(mtl("report").err, "cli/report.py", "holds no entry")
    assert follow(message).code == 0
    assert follow(message, "--suite", "demo", "--model", "demo", "--dry-run", which=1).code == 0
    entry = store(zoo, manifest())
    line = ["--heatmap", tmp_path / "a.png", "--entry", entry.ref]
    message = provoked(mtl("report", *line).err, "cli/report.py", "is no composition")
    assert follow(message).code == 0


@recommends("methods/base.py", "is named in papers")
def test_a_method_that_cannot_be_had(zoo: Zoo) -> None:
    from mtl.methods.method import UNAVAILABLE

    name = UNAVAILABLE[0].name
    message = mtl("train", "--suite", "demo", "--method", name).err
    assert "pfeiffer" in follow(provoked(message, "methods/base.py", "is named in papers")).out


@recommends("tasks/spec.py", "lists them; a path")
def test_an_unknown_task() -> None:
    message = provoked(
        mtl("tasks", "check", "nobody/nothing").err, "tasks/spec.py", "lists them; a"
    )
    assert "demo/entail" in follow(message).out


@recommends("cli/tasks_new.py", "python -m mtl.tasks check {}")
@recommends("cli/tasks_new.py", "python -m mtl.tasks show {}")
@recommends("cli/tasks_new.py", "python -m mtl.train --task {}")
@recommends("tasks/drafts.py", "# python -m mtl.tasks check {}")
def test_what_comes_after_a_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"the {'cat' if n % 2 else 'dog'} {n},{'ab'[n % 2]}\n" for n in range(80))
    Path("my rows.csv").write_text(f"text,label\n{rows}")
    drafted = mtl(
        "tasks", "new", "own/mine", "--from", "my rows.csv", "--out", "my tasks/mine.yaml"
    )
    assert drafted.code == 0, drafted
    first = Path("my tasks/mine.yaml").read_text().splitlines()[0]
    message = drafted.out
    for part in ("tasks check {}", "tasks show {}", "train --task {}"):
        provoked(message, "cli/tasks_new.py", f"python -m mtl.{part}")
    assert follow(first).code == 0
    assert follow(message, which=-3).code == 0
    assert follow(message, which=-2).code == 0
    assert follow(message, "--model", "demo", "--dry-run", which=-1).code == 0


@recommends("tasks/encodings.py", "or save the file as UTF-8")
@recommends("tasks/separated.py", "a quote opens there")
@recommends("tasks/separated.py", "Where quotes are part of the texts")
@recommends("tasks/textfiles.py", "holds one object, not a list of rows")
@pytest.mark.parametrize(
    ("module", "part", "suffix", "content"),
    [
        (
            "tasks/encodings.py",
            "or save the file as UTF-8",
            "csv",
            "".join(f"caf\xe9 number {n},{'ab'[n % 2]}\n" for n in range(80)).encode("cp1252"),
        ),
        (
            "tasks/separated.py",
            "a quote opens there",
            "csv",
            "".join(
                f"{chr(34) if n == 9 else ''}the cat {n}{' of 3' + chr(34) if n == 49 else ''},"
                f"{'ab'[n % 2]}\n"
                for n in range(80)
            ).encode(),
        ),
        (
            "tasks/textfiles.py",
            "holds one object, not a list of rows",
            "json",
            json.dumps(
                {"rows": [{"text": f"the cat {n}", "label": "ab"[n % 2]} for n in range(80)]}
            ).encode(),
        ),
    ],
)
def test_files_that_their_suffix_does_not_describe(
    module: str,
    part: str,
    suffix: str,
    content: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(f"rows.{suffix}")
    file.write_bytes(b"text,label\n" * (suffix == "csv") + content)
    Path("task.yaml").write_text(
        f"id: own/mine\ndata: {{files: {{train: {file}}}}}\nkind: classification\n"
        'inputs: ["{text}"]\nlabels: [a, b]\nmetrics: [accuracy]\n'
    )
    said = mtl("tasks", "check", "task.yaml")
    message = provoked(said.out + said.err, module, part)
    line = ["own/other", "--from", file, "--out", "other.yaml"]
    drafted = follow(message, *line)
    assert drafted.code == 0, drafted
    again = mtl("tasks", "check", "other.yaml")
    assert "unreadable" not in again.out + again.err, again


@recommends("cli/train.py", "That is stage two")
@recommends("cli/compose.py", "That is stage one")
@recommends("cli/joint.py", "That is stage one")
@recommends("cli/joint.py", "That is stage two")
def test_a_method_of_another_stage(stocked: Path) -> None:
    for line, module, part, filled in (
        (["train", "--task", "mood", "--method", "scalearn"], "train", "two", {"TASK.": TARGET}),
        (["compose", "--target", "mood", "--method", "lora"], "compose", "one", {"TASK.": TARGET}),
        (["joint", "--suite", "mini", "--method", "lora"], "joint", "one", {"SUITE.": "mini"}),
        (["joint", "--suite", "mini", "--method", "scalearn"], "joint", "two", {"TASK.": TARGET}),
    ):
        message = provoked(mtl(*line).err, f"cli/{module}.py", f"That is stage {part}")
        names = {key.rstrip("."): value for key, value in filled.items()}
        again = follow(message, "--dry-run", **names, **filled)
        assert again.code == 0, (line, again)


@recommends("compose/load.py", "only compositions have sources")
@recommends("compose/naming.py", "names no source")
@recommends("train/load.py", "List what fits with")
def test_listings_of_the_zoo(stocked: Path) -> None:
    message = mtl("graph", "attribute", "mood/pfeiffer/seed0").err
    assert follow(provoked(message, "compose/load.py", "only compositions")).code == 0
    message = mtl("compose", "--target", TARGET, "--sources", "mood:pfeiffer/x").err
    assert "seed0-" in follow(provoked(message, "compose/naming.py", "names no source")).out
    message = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--model", "demo").err
    assert follow(provoked(message, "train/load.py", "List what fits with")).code == 0


def train_lines(message: str, *more: object) -> None:
    lines = commands(message)
    assert lines
    for which in range(len(lines)):
        done = follow(message, *more, which=which)
        assert done.code == 0, done


def test_missing_sources_of_a_suite(mini: Path, tmp_path: Path) -> None:
    line = ["compose", "--target", TARGET, "--sources", "all", "--zoo", tmp_path / "elsewhere"]
    message = mtl(*line, "--dry-run").err
    assert "--suite mini" in message
    train_lines(message, "--max-steps", "1")
    assert mtl(*line, "--dry-run").code == 0


def test_missing_sources_without_a_suite(
    suite_folder: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Own task files, no suite of that name, another protocol than their own, few shots."""
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    files = [suite_folder / "same.yaml", suite_folder / "mood.yaml"]
    line = ["compose", "--target", files[0], "--sources", *files, "--protocol", "holdout"]
    recipe = ["--recipe", suite_folder / "recipes" / "mini.yaml"]
    message = mtl(*line, *recipe, "--shots", "16", "--dry-run").err
    assert "--suite" not in message
    train_lines(message, "--max-steps", "1", *recipe)
    assert mtl(*line, *recipe, "--shots", "16", "--dry-run").code == 0


@recommends("compose/refusals.py", "remove those you do not want")
def test_an_ambiguous_source(stocked: Path) -> None:
    assert mtl("train", "--suite", "mini", "--task", "mood", "--max-steps", "1").code == 0
    line = ["compose", "--target", TARGET, "--sources", "mood", "--dry-run"]
    message = provoked(mtl(*line).err, "compose/refusals.py", "remove those you do not want")
    (_, other) = [path for path in entries(stocked) if "mood" in str(path)]
    assert follow(message, REF=other.relative_to(stocked)).code == 0
    assert mtl(*line).code == 0


@recommends("cli/graph.py", "Nothing to calibrate with")
@recommends("cli/graph_text.py", "trust: not calibrated here")
@recommends("graph/table.py", "There is no evidence yet")
@recommends("graph/select.py", "(or suggest) adds it")
def test_a_graph_without_evidence(stocked: Path) -> None:
    message = mtl("graph", "calibrate").err
    said = follow(
        provoked(message, "cli/graph.py", "Nothing to calibrate"), "--dry-run", TASK=TARGET
    )
    assert said.code == 0, said
    message = mtl("compose", "--target", TARGET, "--sources", "graph:k=1").err
    message = provoked(message, "graph/select.py", "(or suggest) adds it")
    assert follow(message, "--dry-run").code == 0
    message = provoked(mtl("graph", "show").out, "graph/table.py", "There is no evidence yet")
    done = follow(message, "--scores", "tfidf", TASK=TARGET)
    assert done.code == 0, done
    message = provoked(done.out, "cli/graph_text.py", "trust: not calibrated here")
    assert follow(message, "--dry-run").code == 0
    assert commands(message)[1] == ["mtl.graph", "calibrate"]


@recommends("graph/calibrate.py", "Remove it and run")
@recommends("graph/formats.py", "makes it again")
@recommends("graph/evidence.py", "makes what the zoo can tell anew")
def test_damaged_files_of_the_graph(stocked: Path, tmp_path: Path) -> None:
    from mtl.graph.calibrate import read_calibration
    from mtl.graph.formats import read_graph

    folder = tmp_path / "zoo.graph"
    (folder / "evidence").mkdir(parents=True)
    (folder / "graph.json").write_text('{"nodes": 1}')
    with pytest.raises(MtlError) as error:
        read_graph(folder / "graph.json")
    assert follow(provoked(said(error), "graph/formats.py", "makes it again")).code == 0
    bad = folder / "evidence" / "compose-0123456789abcdef.json"
    bad.write_text('{"schema_version": 99, "run": "x", "evidence": []}')
    shown = mtl("graph", "show")
    message = provoked(shown.out + shown.err, "graph/evidence.py", "makes what the zoo can tell")
    bad.unlink()
    assert follow(message, which=-1).code == 0
    path = next(iter(folder.glob("calibration-*")), folder / f"calibration-dev-{'0' * 16}.json")
    path.write_text("{}")
    with pytest.raises(MtlError) as error:
        read_calibration(folder, "0" * 64)
    message = provoked(said(error), "graph/calibrate.py", "Remove it and run")
    path.unlink()
    refused(follow(message), "Nothing to calibrate")  # in this zoo there is nothing


@recommends("hub/pushing.py", "python -m mtl.zoo verify {}")
@recommends("hub/client.py", "there is no token. Log in")
@recommends("hub/client.py", "does not accept the token")
@recommends("hub/client.py", "it is private, and there is no token")
@recommends("tasks/sources.py", "it asks for consent")
@recommends("tasks/sources.py", "there is no such dataset")
def test_before_a_push(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = open_zoo(stocked)
    entry = zoo.get("mood/pfeiffer/seed0")
    zoo.record_verified(entry, None)
    line = ["zoo", "push", entry.ref, "--repo", "ada/zoo"]
    message = provoked(mtl(*line).err, "hub/pushing.py", "python -m mtl.zoo verify {}")
    assert follow(message).code == 0
    assert "only verified" not in mtl(*line).err
    # 'hf auth login' is the command of huggingface_hub that asks for a token
    script = Path(sys.executable).with_name("hf")
    done = subprocess.run([script, "auth", "login", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@recommends("cli/methods_settings.py", "# Settings")
def test_what_the_settings_page_says_prints_it() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    message = provoked(text[: text.index("\n\n## ")], "cli/methods_settings.py", "# Settings")
    again = follow(message, "--suite", "demo", "--method", "pfeiffer")
    assert again.code == 0
    assert again.out.startswith(message)


@recommends("cli/methods.py", "needs {}: pip install {}")
@recommends("cli/methods.py", "not counted, needs pip install {}")
@recommends("methods/peft_files.py", "Install it: pip install peft")
@recommends("graph/picture.py", "pip install matplotlib")
@recommends("report/heatmap.py", "pip install matplotlib")
def test_packages_to_install_are_those_of_the_project() -> None:
    """By their own names: what ``mtl`` is in an index of packages is not ours to say."""
    from mtl.methods import METHODS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    known = {line.split(">")[0] for extra in ("plot", "peft") for line in extras[extra]}
    needed = {METHODS.get(name).package for name in METHODS.names()} - {None, ""}
    assert {"matplotlib", *needed} == known
    rows = {row["method"]: row for row in json.loads(mtl("methods", "ls", "--json").out)["methods"]}
    shown = mtl("methods", "ls").out
    for row in rows.values():
        if row.get("package"):
            assert f"pip install {row['package']}\n" in shown
