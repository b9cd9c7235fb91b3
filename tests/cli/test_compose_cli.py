"""``mtl.compose`` end to end: every composition of the zoo's sources, wrong requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, TASKS, digests, entries, leftovers, manifest, mtl, refused
from safetensors.numpy import load_file

OMEGA = {  # numbers in omega for K = 3 sources, L = 2 layers, D = 48
    "scalearn": 2 * 3 * 48,
    "scalearn-uniform": 2 * 3,
    "scalearn++": 3 * 48,
    "scalearn-uniform++": 3,
    "average": 0,
    "gated": 2 * 3 * 48 + 2 * 3,
}


@pytest.mark.parametrize("method", list(OMEGA))
def test_every_composition(method: str, stocked: Path) -> None:
    before = digests(stocked)
    line = ["--target", "same", "--suite", "mini", "--method", method, "--seeds", "0", "12"]
    said = mtl("compose", *line, "--sources", "all", "--epochs", "1", "--json")
    assert said.code == 0
    assert said.err == ""
    answer = said.json
    assert [ref.split("/")[2] for ref in answer["sources"]] == ["mood", "shared", "same"]
    assert [(row["status"], row["seed"], row["n"]) for row in answer["runs"]] == [
        ("done", 0, 40),
        ("done", 12, 40),
    ]
    ref = answer["runs"][0]["ref"]
    found = manifest(stocked, ref)
    assert found["kind"] == "composition"
    assert [parent["digest"] for parent in found["parents"]] == [
        before[name] for name in answer["sources"]
    ]
    head = sum(v.size for v in load_file(stocked / ref / "model_head.safetensors").values())
    assert found["training"]["trainable_parameters"] == OMEGA[method] + head
    assert found["verified"]["equal_predictions"] == 1.0
    again = mtl("compose", *line, "--epochs", "1", "--json").json
    assert {row["status"] for row in again["runs"]} == {"skipped"}
    assert len(digests(stocked)) == 5
    assert before.items() <= digests(stocked).items()


def test_dry_run_writes_nothing(stocked: Path) -> None:
    before = digests(stocked)
    said = mtl("compose", "--target", TARGET, "--dry-run", "--json")
    assert said.json["runs"][0]["state"] == "missing"
    assert said.json["runs"][0]["method"] == "scalearn"
    table = mtl("compose", "--target", TARGET, "--dry-run")
    assert "1 run: 0 done" in table.out
    assert digests(stocked) == before


def test_the_order_of_sources_does_not_matter(stocked: Path, tmp_path: Path) -> None:
    found = []
    for order in ("mood,shared", "shared,mood"):
        line = ["--target", TARGET, "--sources", order, "--epochs", "1", "--method", "average"]
        said = mtl("compose", *line, "--json").json["runs"][0]
        found.append((said["dev"], said["test"]))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_houlsby_sources_compose_among_themselves(mini: Path) -> None:
    line = ["--epochs", "1", "--set", "placement=houlsby"]
    assert mtl("train", "--suite", "mini", *line).code == 0
    said = mtl("compose", "--target", TARGET, "--epochs", "1", "--method", "scalearn", "--json")
    assert said.code == 0, said
    found = manifest(mini, said.json["runs"][0]["ref"])
    head = load_file(mini / said.json["runs"][0]["ref"] / "model_head.safetensors")
    omega = found["training"]["trainable_parameters"] - sum(v.size for v in head.values())
    assert omega == 2 * OMEGA["scalearn"]  # one per layer and site


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--target", "sam"], ["Unknown task 'sam'", "'mini/same'"]),
        (["--target", TARGET, "--method", "scalern"], ["'scalern'", "'scalearn'"]),
        (["--target", TARGET, "--sources", "moo"], ["Unknown task 'moo'", "'mini/mood'"]),
        (["--target", TARGET, "--sources", "mood,mood"], ["mini/mood twice"]),
        (["--target", TARGET, "--sources", "same", "--without-own"], ["No source is left"]),
        (["--target", TARGET, "--set", "dropuot=0.1"], ["'dropuot'", "'dropout'"]),
        (["--target", TARGET, "--set", "head=three"], ["'three'", "two_layer"]),
        (["--target", TARGET, "--model", "no/such-model"], ["no/such-model"]),
        (["--target", TARGET, "--method", "pfeiffer"], ["stage one: python -m mtl.train"]),
        (["--target", TARGET, "--sources"], ["--sources: expected at least one"]),
        (["--target", TARGET, "--sources", "mood", "--sources", "same"], ["--sources is given"]),
        (["--target", TARGET, "--seeds", "-1"], ["--seeds: -1 is negative"]),
    ],
)
def test_wrong_requests(argv: list[str], parts: list[str], stocked: Path) -> None:
    refused(mtl("compose", *argv), *parts)
    assert len(entries(stocked)) == len(TASKS)


def test_without_a_target(stocked: Path) -> None:
    refused(mtl("compose"), "target", "mtl compose --help")


def test_a_loss_that_is_nan_stores_nothing(stocked: Path) -> None:
    line = ["--target", TARGET, "--lr", "1e30", "--epochs", "1"]
    said = mtl("compose", *line)
    assert said.code == 1
    assert said.err.count("error: ") == 1
    assert "step" in said.err
    assert len(entries(stocked)) == len(TASKS)
    assert not leftovers(stocked)


def test_probing_runs_a_grid_and_shows_it(stocked: Path) -> None:
    line = ["--target", "same", "--suite", "mini", "--sources", "mood", "shared", "--epochs", "1"]
    said = mtl("compose", *line, "--probe", "0", "1", "--json")
    assert said.code == 0, said
    rows = said.json["runs"]
    assert [row["method"] for row in rows] == ["probe"] * 4
    found = [manifest(stocked, row["ref"])["method_settings"]["scales"] for row in rows]
    grid = [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert found == [f"mini/mood:{one},mini/shared:{other}" for one, other in grid]
    stored = [load_file(stocked / row["ref"] / "composition.safetensors") for row in rows]
    assert stored[1]["omega.shared"].tolist() == [[0.0], [1.0]]
    again = mtl("compose", *line, "--probe", "0", "1")
    assert "across: scale of mini/shared" in again.out
    line = ["--target", "same", "--suite", "mini", "--sources", "mood"]
    single = mtl("compose", *line, "--probe", "--dry-run", "--json")
    assert len(single.json["runs"]) == 7
    refused(mtl("compose", "--target", "same", "--suite", "mini", "--probe"), "one source or two")


def test_a_soup_weighs_sources_by_their_texts(stocked: Path, tmp_path: Path) -> None:
    line = ["--target", "same", "--suite", "mini", "--method", "soup", "--epochs", "1", "--json"]
    said = mtl("compose", *line, "--set", "embedder=base", "top=2")
    assert said.code == 0, said
    (row,) = said.json["runs"]
    settings = manifest(stocked, row["ref"])["method_settings"]
    named = [part.split(":") for part in settings["weights"].split(",")]
    assert [name for name, _ in named] == ["mini/mood", "mini/shared", "mini/same"]
    weights = [float(weight) for _, weight in named]
    assert sum(weights) == pytest.approx(1)
    assert sorted(weights)[0] == 0.0
    assert weights[2] > 0  # a text is like itself
    again = mtl("compose", *line, "--set", "embedder=base", "top=2").json["runs"]
    assert again[0]["status"] == "skipped"
    out = mtl("export", row["ref"], tmp_path / "out", "--to", "adapters", "--json")
    assert out.code == 0, out
    assert out.json["width"] == 12
    assert out.json["exact"] is True
    refused(
        mtl("compose", *line, "--set", "embedder=/nowhere"),
        "sentence encoder '/nowhere'",
        "embedder=base",
    )


def test_the_sentence_encoder_of_a_soup(
    stocked: Path, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is loaded; what is not there says why, and all the ways out."""
    line = ["--target", "same", "--suite", "mini", "--method", "soup", "--epochs", "1", "--json"]
    found = {}
    for embedder in ("base", tiny("roberta"), tiny("bert")):
        said = mtl("compose", *line, "--set", f"embedder={embedder}")
        assert said.code == 0, said.err
        settings = manifest(stocked, said.json["runs"][0]["ref"])["method_settings"]
        found[embedder] = settings["weights"]
    assert found["base"] == found[tiny("roberta")]  # the same encoder, from its folder
    assert found["base"] != found[tiny("bert")]
    default = "'sentence-transformers/all-mpnet-base-v2'"
    outs = ("--set embedder=FOLDER", "--set embedder=base", "--set weights=")
    said = mtl("compose", *line)
    refused(said, default, "HF_HUB_OFFLINE=1", "hf download sentence-transformers/all", *outs)
    (tmp_path / "empty").mkdir()
    said = mtl("compose", *line, "--set", f"embedder={tmp_path / 'empty'}")
    refused(said, "Mend the folder", *outs)
    said = mtl("compose", *line, "--set", "embedder=./nowhere")
    refused(said, "no such folder", *outs)

    # With the network allowed but not there, the client's own reason is told.
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to 'https://hub.invalid'. Check your internet and so on")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("transformers.utils.cached_file", unreachable)
    said = mtl("compose", *line)
    refused(said, "couldn't connect to 'https://hub.invalid'. Mend that", *outs)


ABLATIONS = [
    ["regularise=0.1"],
    ["layer_groups=2"],
    ["normalise=mean"],
    ["normalise=softmax", "dropout=0"],
    ["init_scale=1"],
    ["dropout=0"],
]
"""Of the paper: regularised, mean and softmax omega, its start, its dropout; omega per group."""


def test_ablations_are_trained_stored_reloaded_reported_and_exported(
    stocked: Path, tmp_path: Path
) -> None:
    line = ["--target", "same", "--suite", "mini", "--epochs", "2", "--json"]
    refs = [mtl("compose", *line).json["runs"][0]["ref"]]
    for values in ABLATIONS:
        said = mtl("compose", *line, "--set", *values)
        assert said.code == 0, said
        refs.append(said.json["runs"][0]["ref"])
        found = manifest(stocked, refs[-1])
        assert found["verified"]["equal_predictions"] == 1.0  # in a fresh encoder
        assert found["training"]["best_step"] > 0
        for text in values:
            name, value = text.split("=")
            assert str(found["method_settings"][name]).removesuffix(".0") == value
    assert len(set(refs)) == len(ABLATIONS) + 1
    for number, ref in enumerate(refs):
        said = mtl("export", ref, tmp_path / f"{number}", "--to", "adapters", "--json")
        assert said.code == 0, (ref, said)
        assert said.json["proof"]["max_logit_difference"] <= 1e-5
        assert said.json["proof"]["adapter_effect"] > 1e-4
    rows = [
        row
        for row in mtl("report", "--suite", "mini", "--target", "same", "--json").json["rows"]
        if row["kind"] == "composition"
    ]
    assert len(rows) == len(refs)  # no two of them are taken for seeds of one another
