"""``mtl.methods``: the listing, and exact counts as the papers print them."""

from __future__ import annotations

from typing import Any

import pytest
from cli_bench import ROOT, mtl, refused

from mtl.compose import COMPOSITIONS
from mtl.joint import JOINT
from mtl.methods import METHODS
from mtl.tasks import list_recipes, list_suites

TABLE: list[tuple[str, str, str, int]] = [
    ("bert-base-uncased", "adakron", "bottleneck=48", 599_232),
    ("bert-base-uncased", "adakron", "bottleneck=32", 414_864),
    ("bert-base-uncased", "adamix", "bottleneck=48 experts=4 share_up=true", 2_223_360),
    ("bert-base-uncased", "madakron-full", "bottleneck=48 experts=2", 746_880),
    ("bert-base-uncased", "madakron-partial", "bottleneck=48 experts=2", 636_144),
    ("bert-base-uncased", "pfeiffer", "bottleneck=48", 894_528),
    ("bert-base-uncased", "pfeiffer", "bottleneck=32", 599_424),
    ("bert-base-uncased", "houlsby", "bottleneck=48", 1_789_056),
    ("bert-base-uncased", "compacter", "bottleneck=24", 57_088),
    ("bert-base-uncased", "compacter++", "", 28_576),
    ("bert-base-uncased", "ia3", "", 55_296),
    ("bert-base-uncased", "lora", "rank=8", 294_912),
    ("bert-base-uncased", "prefix", "prefix_length=10", 184_320),
    ("bert-base-uncased", "unipelt-ap", "prefix_length=10", 1_097_304),
    ("bert-base-uncased", "unipelt-apl", "prefix_length=10", 1_410_672),
    ("bert-base-uncased", "vera", "rank=1024", 43_008),
    ("bert-base-uncased", "hadamard", "", 36_864),
    ("roberta-large", "adakron", "bottleneck=16", 614_592),
    ("roberta-base", "compacter++", "reduction_factor=16", 29_440),
    ("roberta-base", "propetl", "reduction_factor=16", 74_544),
    ("roberta-base", "propetl", "", 99_136),  # of its own paper: D/12
    ("microsoft/deberta-v3-base", "sora", "rank=8", 1_327_680),
    ("microsoft/deberta-v3-base", "adalora", "rank=1 target_rank=1", 165_960),
    ("deberta-v3-base", "adalora", "rank=2", 331_920),
    ("deberta-v3-base", "adalora", "rank=8", 1_327_680),
]


def count(*argv: str) -> dict[str, Any]:
    said = mtl("methods", "count", *argv, "--json")
    assert said.code == 0, said
    return said.json


@pytest.mark.parametrize(("model", "method", "values", "expected"), TABLE)
def test_counts_of_the_papers(model: str, method: str, values: str, expected: int) -> None:
    options = ["--set", *values.split()] if values else []
    found = count("--model", model, "--method", method, *options)
    assert found["method"] == found["total"] == expected
    assert (found["layer_norm"], found["head"]) == (0, 0)
    assert 0 < found["percent"] < 3
    if method in {"adamix", "madakron-full", "madakron-partial"}:
        assert found["merged"] == (894_528 if method == "adamix" else 599_232)
    masks = {74_544: 884_736, 99_136: 1_179_648}
    assert found["mask_entries"] == (masks[expected] if method == "propetl" else 0)


def test_bitfit_with_the_pooler() -> None:
    found = count("--model", "bert-base-uncased", "--method", "bitfit", "--head", "pooler_linear")
    assert (found["method"], found["head"]) == (102_912, 1_538)


def test_a_recipe_brings_settings_and_head() -> None:
    line = ["--model", "bert-base-cased", "--recipe", "tensorized", "--method"]
    found = count(*line, "tensorized-cp")
    assert found["method"] == 11_616
    assert (found["layer_norm"], found["head"], found["total"]) == (38_400, 1_538, 51_554)
    assert f"{found['percent']:.4f}" == "0.0476"
    found = count(*line, "tensorized-tucker", "--set", "rank=4")
    assert (found["method"], found["total"]) == (26_112, 66_050)


def test_a_recipe_brings_a_compositions_head_and_the_size_of_its_sources() -> None:
    line = ["--model", "roberta-base", "--method", "fusion"]
    bare, paper = count(*line), count(*line, "--recipe", "reference")
    assert (bare["head"], paper["head"]) == (0, 592_130)
    assert bare["method"] == paper["method"] == 21_252_096
    wide = count(*line, "--recipe", "demo")  # its sources have four times the width
    assert wide["percent"] < paper["percent"]
    refused(mtl("methods", "count", *line, "--recipe", "sora"), "says nothing of method 'fusion'")


def test_all_methods_in_one_table() -> None:
    found = count("--model", "roberta-base", "--method", "all")["methods"]
    assert [row["name"] for row in found] == METHODS.names()
    said = mtl("methods", "count", "--model", "roberta-base", "--method", "all")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()[2:]] == METHODS.names()
    assert "894,528" in said.out


def test_without_an_optional_package_the_others_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("mtl.cli.methods", "mtl.methods.peft_files"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None)
    said = mtl("methods", "count", "--model", "roberta-base", "--method", "all", "--json")
    assert said.code == 0
    counted = {row["name"] for row in said.json["methods"]}
    assert counted == {*METHODS.names()} - {"adalora", "vera"}
    assert [line.partition(":")[0] for line in said.err.splitlines()] == ["adalora", "vera"]
    assert "pip install peft" in said.err
    alone = mtl("methods", "count", "--model", "roberta-base", "--method", "vera")
    refused(alone, "'vera'", "pip install peft")


def test_listing() -> None:
    said = mtl("methods", "ls", "--json").json
    names = [row["method"] for row in said["methods"]]
    assert names == [*METHODS.names(), *COMPOSITIONS.names(), *JOINT.names()]
    for row in said["methods"]:
        assert row["summary"]
        assert row["citation"]
        if row["stage"] == 1:
            assert bool(row["composes"]) != bool(row["refusal"]), row
    assert {row["name"] for row in said["unavailable"]} == {
        "mole-adapter",
        "alora",
        "learned-adapter",
    }
    text = mtl("methods", "ls").out
    assert "no source of stage two" in text
    assert all(name in text for name in names)


def test_settings_of_every_method_under_every_recipe() -> None:
    found = {row["recipe"]: row for row in mtl("methods", "settings", "--json").json["recipes"]}
    every = {*METHODS, *COMPOSITIONS, *JOINT}
    assert {*found} == {*list_recipes(), "none"}
    for name, row in found.items():
        named = {method["method"] for method in row["methods"]}
        assert named | {*row["unnamed"]} == every
        assert not named & {*row["unnamed"]}
        assert named == every or name not in {"demo", "none"}
        for method in row["methods"]:
            assert all(value["from"] for value in method["run"].values())
    assert found["scalearn"]["suites"] == [s for s in list_suites() if s != "demo"]
    full = {row["method"]: row for row in found["scalearn"]["methods"]}
    assert full["full-ft"]["run"]["lr"] == {"value": 2e-5, "from": "recipe scalearn, full-ft"}
    assert full["full-ft"]["run"]["batch_size"]["from"] == "recipe scalearn"
    assert full["full-ft"]["run"]["eval_every"]["from"] == "default"
    assert full["fusion"]["tasks"]["superglue/record"] == {"epochs": 3}
    assert full["fusion"]["suites"] == {"glue+superglue": {"superglue/record": {"epochs": 30}}}
    assert found["scalearn"]["unnamed"]["adakron"][-1] == "none"
    own = {row["method"]: row for row in found["none"]["methods"]}
    assert own["full-ft"]["run"]["lr"] == {"value": 2e-5, "from": "the method's paper"}


def test_the_settings_in_the_docs_are_those_of_the_command() -> None:
    said = mtl("methods", "settings", "--markdown")
    assert said.code == 0
    again = "python -m mtl.methods settings --markdown > docs/settings.md"
    assert (ROOT / "docs" / "settings.md").read_text() == said.out, f"write it again: {again}"


def test_settings_narrowed() -> None:
    line = ["--suite", "glue+superglue", "--method", "fusion", "--task", "record"]
    text = mtl("methods", "settings", *line).out
    assert "5e-05" in text
    assert "superglue/record" not in text  # there it is as elsewhere: 30 epochs
    text = mtl("methods", "settings", "--method", "adakron").out  # what errors recommend
    assert "recipe adakron" in text
    assert "recipe sora" not in text
    refused(mtl("methods", "settings", "--method", "fussion"), "Did you mean 'fusion'")
    refused(
        mtl("methods", "settings", "--suite", "glue", "--method", "adakron"),
        "Recipe 'scalearn' has no settings for adakron",
        "--recipe adakron adakron-bert none",
    )


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--method", "adakrn"], ["adakrn", "Did you mean 'adakron'"]),
        (["--method", "adakron", "--set", "bottleneck=30"], ["bottleneck=30", "multiple of 4"]),
        (["--method", "adakron", "--set", "bottlneck=48"], ["Did you mean 'bottleneck'"]),
        (["--method", "adakron", "--recipe", "adakrom"], ["Did you mean 'adakron'"]),
        (["--method", "adakron", "--model", "bert-base"], ["bert-base"]),
        (["--method", "adakron", "--labels", "0"], ["--labels"]),
    ],
)
def test_wrong_requests(argv: list[str], parts: list[str]) -> None:
    refused(mtl("methods", "count", *argv), *parts)
