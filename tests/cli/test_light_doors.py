"""What only names, lists, plans or skips answers without torch and all that comes with it."""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_bench import ROOT, Said, mtl, refused

PACKAGE = ROOT / "mtl"
HEAVY = ("torch", "transformers", "datasets", "adapters", "accelerate", "peft", "sklearn", "scipy")

PROBE = """
import sys
from mtl.cli.main import dispatch
try:
    code = dispatch(sys.argv[1], sys.argv[2:])
except SystemExit as ended:
    code = ended.code
print("HEAVY", code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


def light(*argv: object) -> Said:
    """What a command says in a process of its own; it must have imported nothing heavy."""
    words = [str(word) for word in argv]
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    *said, last = done.stderr.splitlines() or [""]
    assert last.startswith("HEAVY "), done.stderr[-1500:]
    _, code, heavy = last.split(" ", 2)
    assert heavy == "[]", f"mtl {' '.join(words)} imports {heavy}"
    return Said(int(code), done.stdout, "\n".join(said))


@pytest.mark.parametrize(
    "argv",
    [
        ["ls"],
        ["ls", "--json"],
        ["settings"],
        ["settings", "--suite", "demo", "--json"],
    ],
)
def test_lists_of_methods(argv: list[str]) -> None:
    said = light("methods", *argv)
    assert said.code == 0
    assert "pfeiffer" in said.out
    assert "hyperformer++" in said.out or "--suite" in argv


def test_published_tables() -> None:
    assert "scalearn-glue" in light("report", "--published").out
    assert "85.36" in light("report", "--published", "scalearn-glue").out


@pytest.mark.parametrize("method", ["pfeiffer", "scalearn", "hyperformer", "all"])
def test_counts_with_default_settings(method: str) -> None:
    said = light("methods", "count", "--method", method, "--json")
    assert said == mtl("methods", "count", "--method", method, "--json")


def test_counts_that_this_machine_has_made() -> None:
    argv = ["methods", "count", "--method", "pfeiffer", "--recipe", "scalearn", "--model", "demo"]
    assert mtl(*argv) == light(*argv)


@pytest.mark.parametrize(
    ("argv", "guess"),
    [
        (["train", "--suite", "demo", "--method", "pfeifer"], "'pfeiffer'"),
        (["train", "--task", "ential"], "'demo/entail'"),
        (["train", "--suite", "dmo"], "'demo'"),
        (["train", "--suite", "demo", "--set", "lrr=1"], "'lr'"),
        (["train", "--suite", "demo", "--set", "placement=pfeifer"], "'pfeiffer'"),
        (["train", "--suite", "demo", "--recipe", "scalern"], "'scalearn'"),
        (["compose", "--target", "ential"], "'demo/entail'"),
        (["compose", "--target", "entail", "--method", "scalern"], "'scalearn'"),
        (["compose", "--target", "entail", "--set", "regularize=1"], "'regularise'"),
        (["compose", "--target", "entail", "--source-method", "pfeifer"], "'pfeiffer'"),
        (["joint", "--suite", "demo", "--method", "hyperfomer"], "'hyperformer'"),
        (["methods", "count", "--method", "pfeifer"], "'pfeiffer'"),
        (["methods", "settings", "--method", "pfeifer"], "'pfeiffer'"),
    ],
)
def test_a_mistyped_name(argv: list[str], guess: str) -> None:
    refused(light(*argv), f"Did you mean {guess}?")


PLANS = [
    ["train", "--suite", "mini", "--seeds", "0", "1"],
    ["train", "--suite", "mini", "--method", "lora", "--base-precision", "bf16"],
    ["compose", "--target", "same", "--method", "scalearn"],
    ["joint", "--suite", "mini", "--method", "adapter-m"],
]


@pytest.mark.parametrize("argv", PLANS, ids=" ".join)
def test_a_dry_run_of_a_base_that_is_known(argv: list[str], stocked: Path) -> None:
    first = mtl(*argv, "--dry-run", "--json")
    assert first.code == 0, first
    again = light(*argv, "--dry-run", "--json")
    assert again == Said(0, first.out, first.err)


def test_runs_that_are_done(stocked: Path) -> None:
    assert mtl("train", "--suite", "mini", "--dry-run").code == 0
    said = light("train", "--suite", "mini", "--json")
    assert said.code == 0, said
    assert {run["status"] for run in said.json["runs"]} == {"skipped"}


def test_what_would_be_served(stocked: Path) -> None:
    said = light("serve", "--all", "--zoo", stocked, "--dry-run", "--json")
    assert len(said.json["entries"]) == 3
    light("serve", "no/such", "--zoo", stocked)


def test_an_unknown_base_is_loaded_and_a_changed_one_again(
    stocked: Path, tiny: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan of a changed folder is that of the changed base, whatever was recorded of it."""
    folder = tmp_path / "model"
    shutil.copytree(os.environ["MTL_MODEL"], folder)
    argv = ["train", "--suite", "mini", "--model", folder, "--dry-run", "--json"]
    first = mtl(*argv).json
    assert light(*argv).json == first
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    second = mtl(*argv).json
    assert second != first
    assert light(*argv).json == second


def test_every_function_that_later_names_is_there() -> None:
    """A wrong name would be found only when somebody trains the method."""
    calls = [
        ast.literal_eval(node.args[0])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "later"
    ]
    assert len(calls) > 30
    for target in calls:
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), target


def test_placements_are_those_of_adapters() -> None:
    from mtl.methods.placement import (
        PLACEMENTS,
        placement_fields,
        signature,
        signature_of,
        stock_config,
    )

    for placement in PLACEMENTS:
        stock = stock_config(placement, reduction_factor=1)
        assert signature(stock) == signature_of(placement)
        assert {key: stock[key] for key in placement_fields(placement)} == placement_fields(
            placement
        )
