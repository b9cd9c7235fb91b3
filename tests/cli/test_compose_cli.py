"""``mtl.compose`` end to end: compositions of the zoo's sources, and sources that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, TASKS, digests, entries, leftovers, mtl, refused
from safetensors.numpy import load_file

from mtl.zoo import open_zoo

OMEGA = {  # numbers in omega for K = 3 sources, L = 2 layers, D = 48
    "scalearn": 2 * 3 * 48,
    "scalearn-uniform": 2 * 3,
    "scalearn++": 3 * 48,
    "scalearn-uniform++": 3,
    "average": 0,
    "gated": 2 * 3 * 48 + 2 * 3,
}


def manifest(zoo: Path, ref: str) -> dict[str, Any]:
    return json.loads((zoo / ref / "manifest.json").read_text())


def source(zoo: Path, task: str) -> Path:
    """The folder of the source of ``mini/<task>``."""
    (found,) = [path for path in entries(zoo) if f"/{task}/pfeiffer/" in str(path)]
    return found


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


@pytest.mark.parametrize(
    ("options", "sources"),
    [
        ([], ["mood", "shared", "same"]),
        (["--without-own"], ["mood", "shared"]),
        (["--sources", "mood"], ["mood"]),
        (["--sources", "mini/same,mood"], ["mood", "same"]),
        (["--sources", "same", "shared", "mood"], ["shared", "mood", "same"]),
        (["--sources", "same,mood", "--without-own"], ["mood"]),
    ],
)
def test_which_sources(options: list[str], sources: list[str], stocked: Path) -> None:
    said = mtl("compose", "--target", TARGET, *options, "--max-steps", "1", "--json")
    assert said.code == 0, said
    assert [ref.split("/")[2] for ref in said.json["sources"]] == sources


def test_the_order_of_sources_does_not_matter(stocked: Path, tmp_path: Path) -> None:
    found = []
    for order in ("mood,shared", "shared,mood"):
        line = ["--target", TARGET, "--sources", order, "--epochs", "1", "--method", "average"]
        said = mtl("compose", *line, "--json").json["runs"][0]
        found.append((said["dev"], said["test"]))
    assert found[0] == pytest.approx(found[1], abs=1e-6)


def test_missing_sources_name_themselves_and_both_remedies(mini: Path, tiny: Any) -> None:
    refused(
        mtl("compose", "--target", TARGET),
        "3 of 3 sources are not in the zoo",
        "mini/mood (pfeiffer), mini/shared (pfeiffer), mini/same (pfeiffer)",
        "python -m mtl.train --suite mini --method pfeiffer --seeds 0 --model",
        "--task mini/mood mini/shared",
        "--allow-missing",
    )
    assert not entries(mini)


def test_the_remedy_that_the_message_offers_works(stocked: Path) -> None:
    shutil.rmtree(source(stocked, "mood"))
    shutil.rmtree(source(stocked, "same"))
    line = ["--target", TARGET, "--max-train-samples", "40", "--epochs", "1"]
    said = mtl("compose", *line)
    refused(said, "mini/mood (pfeiffer), mini/same (pfeiffer)", "--max-train-samples 40")
    remedies = [text.strip() for text in said.err.splitlines() if "mtl.train" in text]
    assert len(remedies) == 2
    for remedy in remedies:
        words = remedy.partition("#")[0].split()
        assert words[:3] == ["python", "-m", "mtl.train"]
        assert mtl("train", *words[3:], "--epochs", "1").code == 0
    assert mtl("compose", *line).code == 0


def test_allow_missing(stocked: Path, mini: Path) -> None:
    shutil.rmtree(source(stocked, "shared"))
    line = ["--target", TARGET, "--epochs", "1"]
    refused(mtl("compose", *line), "1 of 3 sources", "mini/shared", "--allow-missing")
    said = mtl("compose", *line, "--allow-missing", "--json")
    assert [ref.split("/")[2] for ref in said.json["sources"]] == ["mood", "same"]
    for task in ("same", "mood"):
        shutil.rmtree(source(stocked, task))
    refused(mtl("compose", *line, "--allow-missing", "--seeds", "5"), "None of the sources")


def test_ambiguous_sources(stocked: Path) -> None:
    again = ["--suite", "mini", "--task", "mood", "--epochs", "1"]
    assert mtl("train", *again).code == 0
    said = mtl("compose", "--target", TARGET)
    refused(said, "Source 'mini/mood' is ambiguous: 2 entries", "mtl.zoo rm", "epochs=1")
    assert "--pick best-dev" in said.err
    refs = [ref for ref in digests(stocked) if "/mood/" in ref]
    # What the error offers is what --sources takes, alone or beside 'all'.
    names = re.findall(r"^  (mini/mood:pfeiffer/seed0-[0-9a-f]{8})\b", said.err, re.M)
    assert sorted(name.rpartition("/")[2] for name in names) == sorted(
        ref.rpartition("/")[2] for ref in refs
    )
    line = ["--target", TARGET, "--max-steps", "1", "--json"]
    picked = mtl("compose", *line, "--pick", "best-dev")
    assert picked.code == 0, picked
    zoo = open_zoo()
    dev = {ref: zoo.get(ref).manifest.metrics["dev"]["accuracy"]["value"] for ref in refs}
    (taken,) = [ref for ref in picked.json["sources"] if "/mood/" in ref]
    assert dev[taken] == max(dev.values())
    for name in names:
        run = name.rpartition("/")[2]
        for short in (name, name[:-3], f"mood:pfeiffer/{run}"):
            found = mtl("compose", *line, "--sources", short, "same").json["sources"]
            assert [ref.rpartition("/")[2] == run for ref in found] == [True, False]
    whole = mtl("compose", *line, "--sources", "all", names[0])
    assert [ref.split("/")[2] for ref in whole.json["sources"]] == ["mood", "shared", "same"]
    assert whole.json["sources"][0].endswith(names[0].rpartition("/")[2])
    for wrong in ("mood:pfeiffer/seed0", "mood"):
        refused(mtl("compose", *line, "--sources", wrong), "ambiguous", names[0], names[1])
    said = mtl("compose", *line, "--sources", "mood:pfeiffer/seed0-ffff0000")
    refused(said, "no source mini/mood:pfeiffer/seed0-ffff0000", names[0], names[1])
    said = mtl("compose", *line, "--sources", refs[0])
    refused(said, "looks like a reference", f"here mini/mood:pfeiffer/{refs[0].split('/')[-1]}")


def test_a_named_source_must_fit(stocked: Path, tiny: Callable[[str], str]) -> None:
    name = "{}:pfeiffer/{}".format("mood", source(stocked, "mood").name)
    line = ["--target", TARGET, "--sources", name, "--max-steps", "1"]
    refused(mtl("compose", *line, "--model", tiny("bert")), "trained on 'tiny-roberta'")
    # the seed in the name goes before --source-seed, and a name is never trained for
    assert mtl("compose", *line, "--source-seed", "3", "--train-missing").code == 0
    gone = name[:-8] + "ffffffff"
    line = ["--target", TARGET, "--sources", gone, "--max-steps", "1"]
    refused(mtl("compose", *line, "--allow-missing"), "There is no source", name)
    refused(mtl("compose", *line, "--train-missing"), "There is no source", name)
    own = "same:pfeiffer/" + source(stocked, "same").name
    line = ["--target", TARGET, "--sources", own, "--max-train-samples", "9"]
    refused(mtl("compose", *line), "Cannot use the source mini/same:pfeiffer/seed0", "leak")
    for wrong in ("mood:", "mood:pfeiffer/", "mood:pfeiffer/3", "mood:pfeiffer/seed0-xyz", ":lora"):
        refused(mtl("compose", "--target", TARGET, "--sources", wrong), "--sources")
    said = mtl("compose", "--target", TARGET, "--sources", "all", "all")
    refused(said, "--sources names all twice")


def test_a_limit_that_cuts_nothing_makes_no_source_ambiguous(stocked: Path) -> None:
    again = ["--suite", "mini", "--task", "same", "--max-train-samples", "500"]
    assert mtl("train", *again).code == 0  # on the same 96 rows as the one that is there
    refs = sorted(ref for ref in digests(stocked) if "/same/" in ref)
    assert len(refs) == 2
    line = ["--target", TARGET, "--sources", "same", "--max-steps", "1", "--json"]
    plain = mtl("compose", *line).json["sources"]
    limited = mtl("compose", *line, "--max-train-samples", "500").json["sources"]
    assert sorted([*plain, *limited]) == refs


def test_sources_of_another_seed_and_method(stocked: Path) -> None:
    refused(mtl("compose", "--target", TARGET, "--source-seed", "3"), "seed 3", "--seeds 3")
    refused(
        mtl("compose", "--target", TARGET, "--source-method", "pfeifer"),
        "Unknown method 'pfeifer'",
        "'pfeiffer'",
    )


def test_sources_of_another_base(stocked: Path, tiny: Callable[[str], str]) -> None:
    said = mtl("compose", "--target", TARGET, "--model", tiny("bert"))
    refused(said, "trained on 'tiny-roberta'", "this run uses 'tiny-bert'", "--model")
    assert len(entries(stocked)) == len(TASKS)


def test_sources_of_another_placement(stocked: Path) -> None:
    shutil.rmtree(source(stocked, "mood"))
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1", "--set", "placement=houlsby"]
    assert mtl("train", *line).code == 0
    said = mtl("compose", "--target", TARGET)
    refused(said, "placements differ", "/mood/pfeiffer/", "/shared/pfeiffer/", "--set placement=")
    assert len(entries(stocked)) == len(TASKS)


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


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_damaged_source(file: str, damage: str, stocked: Path) -> None:
    path = source(stocked, "mood") / file
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        changed = content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]
        path.write_bytes(changed if damage == "changed" else content[:-9])
    said = mtl("compose", "--target", TARGET, "--epochs", "1")
    refused(said, "/mood/pfeiffer/", "is damaged", file, "mtl.zoo rm", code=1)
    assert len(entries(stocked)) == len(TASKS)
    assert not leftovers(stocked)


def test_a_tampered_manifest(stocked: Path) -> None:
    path = source(stocked, "mood") / "manifest.json"
    text = path.read_text()
    assert '"seed": 0' in text
    path.write_text(text.replace('"seed": 0', '"seed": 7'))
    for argv in ([], ["--source-seed", "7"]):
        said = mtl("compose", "--target", TARGET, "--epochs", "1", *argv)
        refused(said, "mini/mood")
    path.write_text(text[: len(text) // 2])
    refused(mtl("compose", "--target", TARGET, "--epochs", "1"), "mini/mood")


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


def test_sources_of_each_runs_own_seed(stocked: Path, tmp_path: Path) -> None:
    """As the paper's probes; recipe `reference` says so, ``--source-seed`` says otherwise."""
    line = ["--suite", "mini", "--task", "mood", "--seeds", "1", "--epochs", "1"]
    assert mtl("train", *line).code == 0
    path = tmp_path / "own.yaml"
    path.write_text(
        "defaults: {epochs: 1, batch_size: 16}\nmethods: {probe: {}}\nsource_seed: {probe: run}\n"
    )
    line = ["--target", "same", "--suite", "mini", "--sources", "mood", "--without-own"]
    line += ["--probe", "1", "--seeds", "0", "1", "--recipe", path, "--json"]
    said = mtl("compose", *line)
    assert said.code == 0, said
    parents = [
        json.loads((stocked / row["ref"] / "manifest.json").read_text())["parents"]
        for row in said.json["runs"]
    ]
    assert [[parent["seed"] for parent in own] for own in parents] == [[0], [1]]
    assert len(said.json["sources"]) == 2
    one = mtl("compose", *line, "--source-seed", "0", "--dry-run").json["runs"]
    assert [row["state"] for row in one] == ["done", "missing"]
    refused(mtl("compose", *line, "--source-seed", "own"), "--source-seed takes a number", "'run'")
    auto = ["--target", "same", "--suite", "mini", "--sources", "auto", "--seeds", "0", "1"]
    refused(mtl("compose", *auto, "--source-seed", "run"), "cannot be picked", "--sources")


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
