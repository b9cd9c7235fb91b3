"""Every command that a message recommends, run in the situation in which it is recommended.

The registry is in ``recommended.py``. A new message that recommends a command line needs a test
here, or in another file of this folder, with ``@recommends(module, part of the text)`` that
provokes it and follows it.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
from cli_bench import ROOT, TARGET, entries, mtl
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

VERSIONS = ROOT / "tests" / "zoo" / "versions"


def test_every_recommendation_is_followed_by_a_test() -> None:
    """What to do when this fails is in CONTRIBUTING.md, "Messages"."""
    for path in Path(__file__).parent.glob("test_*.py"):
        if "\n@recommends(" in path.read_text(encoding="utf-8"):
            importlib.import_module(path.stem)  # registers its tests
    found = recommending()
    lost = [
        f"mtl/{item.module}:{item.line}: {item.text}" for item in found if covered(item) is None
    ]
    assert not lost, "no test follows:\n" + "\n".join(lost)
    for module, part in COVERED:
        assert any(item.module == module and part in item.text for item in literals()), (
            f"mtl/{module} says {part!r} no more"
        )


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


@recommends("methods/method.py", "is named in papers")
def test_a_method_that_cannot_be_had() -> None:
    from mtl.methods.method import UNAVAILABLE

    name = UNAVAILABLE[0].name
    message = mtl("train", "--suite", "demo", "--method", name).err
    assert "pfeiffer" in follow(provoked(message, "methods/method.py", "is named in papers")).out


@recommends("tasks/finding.py", "lists them; a path")
def test_an_unknown_task() -> None:
    message = provoked(
        mtl("tasks", "check", "nobody/nothing").err, "tasks/finding.py", "lists them; a"
    )
    assert "demo/entail" in follow(message).out


@recommends("cli/tasks_new.py", "python -m mtl.tasks check {}")
@recommends("cli/tasks_new.py", "python -m mtl.tasks show {}")
@recommends("cli/tasks_new.py", "python -m mtl.train --task {}")
@recommends("checks/drafts.py", "# python -m mtl.tasks check {}")
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


@recommends("data/charsets.py", "or save the file as UTF-8")
@recommends("data/separated.py", "a quote opens there")
@recommends("data/separated.py", "Where quotes are part of the texts")
@recommends("data/textfiles.py", "holds one object, not a list of rows")
@pytest.mark.parametrize(
    ("module", "part", "suffix", "content"),
    [
        (
            "data/charsets.py",
            "or save the file as UTF-8",
            "csv",
            "".join(f"caf\xe9 number {n},{'ab'[n % 2]}\n" for n in range(80)).encode("cp1252"),
        ),
        (
            "data/separated.py",
            "a quote opens there",
            "csv",
            "".join(
                f"{chr(34) if n == 9 else ''}the cat {n}{' of 3' + chr(34) if n == 49 else ''},"
                f"{'ab'[n % 2]}\n"
                for n in range(80)
            ).encode(),
        ),
        (
            "data/separated.py",
            "Where quotes are part of the texts",
            "csv",
            "".join(f'"the "cat" {n}",{"ab"[n % 2]}\n' for n in range(80)).encode(),
        ),
        (
            "data/textfiles.py",
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
    task = Path("task.yaml")
    task.write_text(
        f"id: own/mine\ndata: {{files: {{train: {file}}}}}\nkind: classification\n"
        'inputs: ["{text}"]\nlabels: [a, b]\nmetrics: [accuracy]\n'
    )
    said = mtl("tasks", "check", task)
    message = provoked(said.out + said.err, module, part)
    (written,) = re.findall(r"[Ww]rite `([^`]*)` below `data`", message)
    task.write_text(task.read_text().replace("}}", f"}}, {written}}}"))
    again = mtl("tasks", "check", task)
    splits = [line.split() for line in again.out.splitlines() if "own/mine" in line]
    assert sum(int(columns[3]) for columns in splits) == 80, again
    line = ["own/other", "--from", file, "--out", "other.yaml"]
    drafted = follow(message, *line)
    assert drafted.code == 0, drafted
    again = mtl("tasks", "check", "other.yaml")
    assert "unreadable" not in again.out + again.err, again


@recommends("cli/train.py", "That is stage two")
@recommends("compose/planning.py", "That is stage one")
@recommends("cli/joint.py", "That is stage one")
@recommends("cli/joint.py", "That is stage two")
def test_a_method_of_another_stage(stocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_ZOO", str(stocked.with_name("another")))
    for line, module, part, filled in (
        (
            ["train", "--task", "mood", "--method", "scalearn"],
            "cli/train",
            "two",
            {"TASK.": TARGET},
        ),
        (
            ["compose", "--target", "mood", "--method", "lora"],
            "compose/planning",
            "one",
            {"TASK.": TARGET},
        ),
        (["joint", "--suite", "mini", "--method", "lora"], "cli/joint", "one", {"SUITE.": "mini"}),
        (
            ["joint", "--suite", "mini", "--method", "scalearn"],
            "cli/joint",
            "two",
            {"TASK.": TARGET},
        ),
    ):
        said = mtl(*line, "--zoo", stocked)
        message = provoked(said.err, f"{module}.py", f"That is stage {part}")
        assert commands(message)[0][2:5] == [line[-1], "--zoo", str(stocked)]
        names = {key.rstrip("."): value for key, value in filled.items()}
        again = follow(message, "--dry-run", **names, **filled)
        assert again.code == 0, (line, again)


@recommends("compose/stored.py", "only compositions have sources")
@recommends("runs/loading.py", "List what fits with")
def test_listings_of_the_zoo(stocked: Path) -> None:
    message = mtl("graph", "attribute", "mood/pfeiffer/seed0").err
    assert follow(provoked(message, "compose/stored.py", "only compositions")).code == 0
    message = mtl("compose", "--target", TARGET, "--sources", "mood:pfeiffer/x").err
    assert "a reference ends in seed and hash" in message
    message = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--model", "demo").err
    assert follow(provoked(message, "runs/loading.py", "List what fits with")).code == 0


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
@recommends("tasks/as_metric.py", "pip install evaluate")
@recommends("engine/tracking.py", "which is not installed: pip install")
@recommends("search/searching.py", "pip install optuna")
@recommends("engine/ray_start.py", "pip install")
@recommends("export/onnx.py", "Install it: pip install")
@recommends("backbone/held.py", "pip install bitsandbytes")
def test_packages_to_install_are_those_of_the_project() -> None:
    """By their own names: what ``mtl`` is in an index of packages is not ours to say."""
    from mtl.engine.tracking import TRACKERS
    from mtl.export.onnx import PACKAGES
    from mtl.methods import METHODS

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = ("plot", "peft", "metrics", "track", "search", "ray", "onnx", "nf4")
    known = {re.split("[[>]", line)[0] for extra in named for line in extras[extra]}
    needed = {METHODS.get(name).package for name in METHODS.names()} - {None, ""}
    ours = {"matplotlib", "evaluate", "optuna", "ray", TRACKERS["tensorboard"], *PACKAGES}
    ours.add("bitsandbytes")
    assert ours | needed == known
    rows = {row["method"]: row for row in json.loads(mtl("methods", "ls", "--json").out)["methods"]}
    shown = mtl("methods", "ls").out
    for row in rows.values():
        if row.get("package"):
            assert f"pip install {row['package']}\n" in shown


@recommends("engine/launch.py", "accelerate launch")
def test_a_launcher_that_is_none(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["--suite", "mini", "--task", "mood", "--dry-run"]
    found = []
    for name in ("LOCAL_RANK", "RANK"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "0" if name == "LOCAL_RANK" else "abc")
            message = provoked(mtl("train", *line).err, "engine/launch.py", "accelerate launch")
        assert f"Unset {'it' if name == 'RANK' else name};" in message
        found += re.findall(r"accelerate launch .*", message)
    (words,) = {*found}
    program, *rest = words.removesuffix(" …").replace("COMMAND", "train").split()
    script = Path(sys.executable).with_name(program)
    done = subprocess.run([script, *rest, *line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "1 to be run" in done.stdout
