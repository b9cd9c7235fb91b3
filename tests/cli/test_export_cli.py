"""``mtl.export`` end to end: folders that stock ``adapters`` loads, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_bench import leftovers, mtl, refused


@pytest.fixture
def composition(stocked: Path) -> str:
    """The reference of a ScaLearn composition of all three sources."""
    line = ["--target", "same", "--suite", "mini", "--epochs", "1", "--json"]
    return mtl("compose", *line).json["runs"][0]["ref"]


FILES = {
    "README.md",
    "adapter.safetensors",
    "adapter_config.json",
    "export.json",
    "head_config.json",
    "model_head.safetensors",
    "pytorch_adapter.bin",
    "pytorch_model_head.bin",
}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_a_composition_goes_out_and_scores_the_same(
    composition: str, stocked: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out" / "same"
    said = mtl("export", composition, folder, "--to", "adapters", "--evaluate", "--json")
    assert said.code == 0, said
    answer = said.json
    assert {path.name for path in folder.iterdir()} == FILES
    assert answer["width"] == 3 * 12
    assert answer["exact"] is True
    assert answer["proof"]["max_logit_difference"] <= 1e-5
    assert [row["task"] for row in answer["sources"]] == ["mini/mood", "mini/shared", "mini/same"]
    manifest = read(stocked / composition, "manifest.json")
    for split in ("dev", "test"):
        for name, value in answer["scores"][split].items():
            assert value == pytest.approx(manifest["metrics"][split][name]["value"], abs=1e-9)
    assert read(folder, "export.json")["digest"] == manifest["digest"]
    card = (folder / "README.md").read_text()
    for parent in manifest["parents"]:
        assert parent["ref"] in card
    assert manifest["digest"] in card
    assert f"{answer['proof']['max_logit_difference']:.3g}" in card
    config = read(folder, "adapter_config.json")
    assert config["config"].get("architecture") is None
    assert not leftovers(tmp_path)
    table = mtl("export", composition, tmp_path / "again", "--to", "adapters")
    assert "Largest logit difference" in table.out
    assert "width 36" in table.out


def test_the_pickled_twins_hold_the_same_tensors(
    composition: str, stocked: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "out"
    assert mtl("export", composition, folder, "--to", "adapters", "--json").code == 0
    for safe, twin in (
        ("adapter.safetensors", "pytorch_adapter.bin"),
        ("model_head.safetensors", "pytorch_model_head.bin"),
    ):
        ours, theirs = load_file(folder / safe), torch.load(folder / twin, weights_only=True)
        assert ours.keys() == theirs.keys()
        assert ours
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_single_adapter_goes_out(stocked: Path, tmp_path: Path) -> None:
    said = mtl("export", "mood/pfeiffer/seed0", tmp_path / "m", "--to", "adapters", "--json")
    assert said.code == 0, said
    assert said.json["width"] == 12
    assert said.json["proof"]["max_logit_difference"] <= 1e-6


def test_stock_adapters_that_are_no_bottleneck_go_out_as_they_are(
    mini: Path, tmp_path: Path
) -> None:
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1", "--json"]
    for method in ("ia3", "prefix", "loreft"):
        assert mtl("train", *line, "--method", method).code == 0
        said = mtl(
            "export", f"mood/{method}/seed0", tmp_path / method, "--to", "adapters", "--json"
        )
        assert said.code == 0, (method, said)
        assert said.json["width"] is None
        assert said.json["proof"]["max_logit_difference"] <= 1e-6
    assert mtl("train", *line, "--method", "bitfit").code == 0
    said = mtl("export", "mood/bitfit/seed0", tmp_path / "b", "--to", "adapters")
    refused(said, "bitfit", "nothing that stock adapters knows")
    assert not (tmp_path / "b").exists()


def test_gates_over_real_tokens_are_nothing_for_stock_adapters(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--task", "mood", "--epochs", "1", "--json", "--method"]
    ref = mtl("train", *line, "unipelt-ap").json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "out", "--to", "adapters")
    refused(said, "gates over padding, too", "--to onnx", "--set gate_padding=true")
    assert not (tmp_path / "out").exists()
    ref = mtl("train", *line, "unipelt-ap", "--set", "gate_padding=true").json["runs"][0]["ref"]
    assert mtl("export", ref, tmp_path / "out", "--to", "adapters").code == 0


def test_fusion_is_refused_and_leaves_nothing(stocked: Path, tmp_path: Path) -> None:
    line = ["--target", "same", "--suite", "mini", "--epochs", "1", "--json", "--method", "fusion"]
    ref = mtl("compose", *line).json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "out", "--to", "adapters")
    refused(said, "anew for every token", "--distill")
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path)


def test_a_difference_above_the_limit_leaves_nothing(
    composition: str, stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof is of the files: one weight changed on the way is found."""
    import torch

    from mtl.export import exporting
    from mtl.files import read_safetensors, write_safetensors

    def spoil(folder: Path, _: Path) -> None:
        tensors, _ = read_safetensors(folder / "adapter.safetensors")
        name = next(name for name in sorted(tensors) if name.endswith("adapter_up.bias"))
        write_safetensors(
            folder / "adapter.safetensors", {**tensors, name: tensors[name] + torch.randn(48)}
        )

    monkeypatch.setattr(exporting, "write_stock_copies", spoil)
    said = mtl("export", composition, tmp_path / "deep" / "out", "--to", "adapters")
    refused(said, "does not answer as the entry does", "Nothing was written", code=1)
    assert not (tmp_path / "deep").exists()
    assert not leftovers(tmp_path)


def test_places_and_names(composition: str, stocked: Path, tiny: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("x")
    refused(mtl("export", composition, taken, "--to", "adapters"), "not an empty folder")
    assert [path.name for path in taken.iterdir()] == ["mine"]
    refused(mtl("export", "nothing/here", tmp_path / "o", "--to", "adapters"), "no entry")
    refused(mtl("export", composition, tmp_path / "o", "--to", "tensorrt"), "tensorrt")
    line = ["export", composition, tmp_path / "o", "--to", "adapters"]
    refused(mtl(*line, "--epochs", "3"), "--epochs", "without --distill")
    refused(mtl(*line, "--shrink", "drop"), "--shrink", "without --width")
    refused(mtl(*line, "--width", "0"), "--width 0")
    other = ["--model", tiny("bert")]
    refused(mtl("export", composition, tmp_path / "o", "--to", "adapters", *other), "tiny-bert")


def test_a_source_that_is_gone_is_named(composition: str, stocked: Path, tmp_path: Path) -> None:
    mtl("zoo", "rm", "mood/pfeiffer/seed0", "--force")
    said = mtl("export", composition, tmp_path / "o", "--to", "adapters")
    refused(said, "mood/pfeiffer", "not in the zoo", code=1)


def test_pruning_names_and_drops_what_is_near_zero(
    composition: str, stocked: Path, tmp_path: Path
) -> None:
    """One omega set to 0, the manifest made to fit: the source goes, and nothing changes."""
    import torch

    from mtl.files import read_safetensors, sha256_file, write_json, write_safetensors
    from mtl.zoo.manifest import Manifest, digest

    folder = stocked / composition
    tensors, _ = read_safetensors(folder / "composition.safetensors")
    for omega in tensors.values():
        omega[0] *= 0.5
        omega[1] = 0
    assert all(torch.equal(omega[1], torch.zeros(48)) for omega in tensors.values())
    write_safetensors(folder / "composition.safetensors", tensors)
    stored = read(folder, "manifest.json")
    files, _ = stored.pop("files"), stored.pop("digest")
    file = folder / "composition.safetensors"
    files[file.name] |= {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    found = digest(Manifest.from_dict(stored), {k: v["sha256"] for k, v in files.items()})
    write_json(folder / "manifest.json", {**stored, "digest": found, "files": files})

    said = mtl("export", composition, tmp_path / "whole", "--to", "adapters")
    assert said.code == 0, said
    assert "omega of mini/shared cannot be told from 0; --prune drops" in said.out
    said = mtl("export", composition, tmp_path / "out", "--to", "adapters", "--prune", "--json")
    assert said.code == 0, said
    answer = said.json
    assert [row["dropped"] for row in answer["sources"]] == [False, True, False]
    assert answer["width"] == 2 * 12
    assert answer["changes"]["pruning"]["test"]["equal_predictions"] == 1.0
    assert answer["changes"]["pruning"]["test"]["max_logit_difference"] < 1e-5
    said = mtl(
        "export", composition, tmp_path / "p", "--to", "adapters", "--prune", "0.6", "--json"
    )
    assert said.json["width"] == 12
    assert said.json["changes"]["pruning"]["test"]["max_logit_difference"] > 1e-5


def test_pruning_what_has_no_sources_to_drop(stocked: Path, tmp_path: Path) -> None:
    line = ["--to", "adapters", "--prune"]
    said = mtl("export", "mood/pfeiffer/seed0", tmp_path / "a", *line)
    refused(said, "single adapter", "--width")
    said = mtl(
        *("compose", "--target", "same", "--suite", "mini", "--epochs", "1", "--json"),
        *("--method", "soup", "--set", "weights=mood:0.7,shared:0,same:0.3"),
    )
    ref = said.json["runs"][0]["ref"]
    refused(mtl("export", ref, tmp_path / "a", *line), "averaged weights", "--width")
    said = mtl("export", ref, tmp_path / "b", "--to", "adapters", "--json")
    assert [row["omega"] for row in said.json["sources"]] == pytest.approx([0.7, 0, 0.3])
    assert [row["near_zero"] for row in said.json["sources"]] == [False, True, False]
    assert said.json["width"] == 12
    # Of probes at fixed scales a source at 0 is one that can go.
    said = mtl(
        *("compose", "--target", "same", "--suite", "mini", "--epochs", "1", "--json"),
        *("--sources", "mood", "same", "--probe", "0", "1"),
    )
    probes = {row["ref"] for row in said.json["runs"]}
    assert len(probes) == 4
    widths = []
    for number, ref in enumerate(sorted(probes)):
        said = mtl("export", ref, tmp_path / f"p{number}", *line, "--json")
        assert said.code == 0, said.err
        assert said.json["changes"]["pruning"]["test"]["max_logit_difference"] <= 1e-5
        widths.append(said.json["width"])
    assert sorted(widths) == [12, 12, 24, 24]  # both at 0: none is smaller than the other


def test_a_proof_that_says_little_is_called_so(stocked: Path, tmp_path: Path) -> None:
    """An adapter that learned nothing could be lost on the way, and the logits stay the same."""
    said = mtl(
        *("train", "--task", "mood", "--suite", "mini", "--method", "lora", "--json"),
        *("--set", "max_steps=1", "lr=1e-9"),
    )
    ref = said.json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "a", "--to", "adapters")
    assert "learned next to nothing" in said.out
    assert "it has learned next to nothing" in (tmp_path / "a" / "README.md").read_text()
    said = mtl("export", "mood/pfeiffer/seed0", tmp_path / "b", "--to", "adapters")
    assert "learned next to nothing" not in said.out


@pytest.mark.parametrize("how", ["refit", "drop"])
def test_narrowing_prints_the_curve_and_takes_the_narrowest_allowed(
    how: str, composition: str, stocked: Path, tmp_path: Path
) -> None:
    line = ["--to", "adapters", "--width", "3", "--shrink", how]
    said = mtl("export", composition, tmp_path / "a", *line, "--tolerance", "1", "--json")
    assert said.code == 0, said
    answer = said.json
    rows = answer["curve"]["rows"]
    assert [row["width"] for row in rows] == [36, 25, 18, 13, 9, 6, 4, 3]
    assert [row["width"] for row in rows if row["taken"]] == [3] == [answer["width"]]
    assert answer["exact"] is False
    assert answer["proof"]["max_logit_difference"] <= answer["proof"]["limit"]
    change = answer["changes"]["narrowing"]["dev"]
    assert change["before"] == pytest.approx(rows[0]["score"])
    assert change["after"] == pytest.approx(rows[-1]["score"])
    said = mtl("export", composition, tmp_path / "b", *line, "--tolerance", "0")
    assert said.code == 0, said
    assert "taken" in said.out
    taken = next(r for r in read(tmp_path / "b", "export.json")["curve"]["rows"] if r["taken"])
    better = [r for r in rows if r["score"] >= rows[0]["score"]]
    assert taken["width"] == better[-1]["width"]
    assert "## Width" in (tmp_path / "b" / "README.md").read_text()
    refused(
        mtl("export", composition, tmp_path / "c", "--to", "adapters", "--width", "36"),
        "does not narrow",
    )


def test_distilling_what_does_not_fold(stocked: Path, tmp_path: Path) -> None:
    line = ["--target", "same", "--suite", "mini", "--epochs", "1", "--json", "--method", "fusion"]
    ref = mtl("compose", *line).json["runs"][0]["ref"]
    line = ["--to", "adapters", "--distill"]
    said = mtl("export", ref, tmp_path / "out", *line, "--epochs", "3", "--lr", "3e-3", "--json")
    assert said.code == 0, said
    answer = said.json
    assert answer["exact"] is False
    assert answer["width"] == 36
    found = answer["distilled"]
    assert len(found["dev_logit_error"]) == 4
    assert min(found["dev_logit_error"]) == found["dev_logit_error"][found["kept_epoch"]]
    change = answer["changes"]["distilling"]["test"]
    assert change["n"] == 40
    assert change["equal_predictions"] >= 0.9
    assert answer["proof"]["max_logit_difference"] <= answer["proof"]["limit"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Distilled" in card
    assert "## Proof" in card
    again = mtl(
        "export", ref, tmp_path / "b", *line, "--epochs", "3", "--lr", "3e-3", "--json"
    ).json
    assert again["distilled"]["dev_logit_error"] == found["dev_logit_error"]
    said = mtl("export", ref, tmp_path / "c", *line, "--epochs", "0", "--width", "6", "--json")
    assert said.json["width"] == 6
    refused(mtl("export", ref, tmp_path / "d", *line, "--prune"), "--prune")
    refused(mtl("export", ref, tmp_path / "d", *line, "--tolerance", "0.1"), "--tolerance")


def test_low_rank_sources_become_one_lora(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--epochs", "1", "--json"]
    assert mtl("train", *line, "--method", "lora", "--set", "rank=2").code == 0
    said = mtl("compose", *line, "--target", "same", "--source-method", "lora")
    assert said.code == 0, said
    ref = said.json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "peft", "--to", "peft", "--evaluate", "--json")
    assert said.code == 0, said
    assert said.json["width"] == 6
    stored = read(mini / ref, "manifest.json")["metrics"]["test"]["accuracy"]["value"]
    assert said.json["scores"]["test"]["accuracy"] == pytest.approx(stored)
    assert {path.name for path in (tmp_path / "peft").iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "export.json",
        "head_config.json",
        "model_head.safetensors",
    }
    assert "PeftModel" in (tmp_path / "peft" / "README.md").read_text()
    said = mtl("export", ref, tmp_path / "stock", "--to", "adapters", "--json")
    assert said.code == 0, said
    assert {path.name for path in (tmp_path / "stock").iterdir()} == FILES
    for method, values in (("sora", ["rank=3"]), ("vera", ["rank=8"])):
        made = mtl("train", *line, "--task", "mood", "--method", method, "--set", *values)
        assert made.code == 0, made
        said = mtl("export", f"mood/{method}/seed0", tmp_path / method, "--to", "peft", "--json")
        assert said.code == 0, (method, said)
    refused(mtl("export", ref, tmp_path / "x", "--to", "peft", "--width", "2"), "folds exactly")


def test_bottlenecks_are_nothing_for_peft(composition: str, stocked: Path, tmp_path: Path) -> None:
    said = mtl("export", composition, tmp_path / "x", "--to", "peft")
    refused(said, "only low-rank adapters", "pfeiffer is none", "--to adapters")
    assert not (tmp_path / "x").exists()
