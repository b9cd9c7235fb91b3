"""What a run stores beside its weights: shares of the sources, and answers on every split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import composed, mtl
from safetensors.numpy import load_file, save_file
from test_verify_cli import joint, reseal

from mtl.backbone.injection import bottleneck_layers
from mtl.compose.sites import site_keys
from mtl.compose.stored import load_composition
from mtl.methods import as_source
from mtl.runs import open_workspace
from mtl.runs.loading import data_of_entry
from mtl.zoo import Entry, open_zoo, read_predictions
from mtl.zoo.composition import FILE, check_shares, source_weights
from mtl.zoo.names import SHARES, predictions_file


def test_the_shares_of_a_fusion_are_its_attention_on_dev(stocked: Path, backbone: Any) -> None:
    """By hand: one row of dev after the other, without padding, the softmax of every token."""
    entry = composed(stocked, "fusion")
    assert {name.partition(".")[0] for name in load_file(entry.folder / FILE)} == {"fusion"}
    workspace = open_workspace(zoo=stocked)
    loaded = load_composition(entry, workspace.zoo, backbone)
    encoder: Any = loaded.network.encoder
    rows = backbone.encode(data_of_entry(entry, workspace), "dev")
    sums: dict[str, list[np.ndarray]] = {}

    def watch(key: str, site: Any, layer: Any) -> None:
        sources = [
            as_source(layer.adapters[name], layer.adapters_config.get(name))
            for name in loaded.names
        ]

        def hook(module: Any, inputs: Any, output: Any) -> None:
            z = inputs[0]
            outputs = [u.features(z) @ u.up()[0].t() + u.up()[1] for u in sources]
            query = site.query(z)
            scores = torch.stack([(query * site.key(u)).sum(-1) for u in outputs], dim=-1)
            sums.setdefault(key, []).append(scores.softmax(-1)[0].numpy())

        site.register_forward_hook(hook)

    layers = [layer for _, where, layer in bottleneck_layers(encoder) if where == "output_adapter"]
    for (key, site), layer in zip(site_keys(encoder).items(), layers, strict=True):
        watch(key, site, layer)
    with torch.no_grad():
        for number in range(len(rows.row)):
            batch = rows.collate([number])
            assert bool(batch["attention_mask"].all())
            encoder(**{key: batch[key] for key in ("input_ids", "attention_mask")})
    wanted = np.stack([np.concatenate(sums[key]).mean(0) for key in ("0", "1")], axis=1)
    assert len(sums["0"]) == len(rows.row) > 20
    assert np.abs(wanted - 1 / 3).max() > 1e-5, "equal shares would prove nothing"
    found = source_weights(entry)
    assert found is not None
    assert (found.kind, found.rows, found.sites) == ("attention", "dev", ("0", "1"))
    for key in ("share", "mean", "magnitude"):
        np.testing.assert_allclose(getattr(found, key), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "settings", "kind"),
    [
        ("scalearn", [], "omega"),
        ("scalearn", ["--set", "normalise=softmax"], "omega"),
        ("scalearn", ["--set", "normalise=mean"], "omega"),
        ("scalearn-uniform++", [], "omega"),
        ("probe", ["--set", "scales=0.5"], "omega"),
        ("average", [], "omega"),
        ("soup", ["--set", "embedder=base"], "soup"),
    ],
)
def test_the_shares_of_constant_weights(
    method: str, settings: list[str], kind: str, stocked: Path
) -> None:
    entry = composed(stocked, method, *settings)
    check_shares(entry.folder, entry.manifest)
    found = source_weights(entry)
    assert found is not None
    assert (found.kind, found.rows) == (kind, "")
    np.testing.assert_allclose(found.share.sum(0), 1, atol=1e-6)
    if settings and "normalise" in settings[1]:
        np.testing.assert_allclose(found.mean.sum(0), 1, atol=1e-5)
    before = without(stocked, entry, SHARES)
    again = source_weights(before)
    assert again is not None
    for key in ("share", "mean", "magnitude"):
        np.testing.assert_allclose(getattr(found, key), getattr(again, key), rtol=1e-5, atol=1e-6)


def without(zoo: Path, entry: Entry, *names: str) -> Entry:
    """The entry as it was before these files were stored."""
    for name in names:
        (entry.folder / name).unlink()
    reseal(entry.folder)
    return open_zoo(zoo).get(entry.ref)


@pytest.mark.parametrize("method", ["scalearn", "fusion"])
def test_entries_of_before_load_verify_and_draw(method: str, stocked: Path, tmp_path: Path) -> None:
    entry = composed(stocked, method)
    shares = load_file(entry.folder / SHARES)
    if method == "fusion":  # as they held it
        weights = load_file(entry.folder / FILE)
        attention = {name: table[0].copy() for name, table in shares.items()}
        save_file(weights | attention, entry.folder / FILE)
    before = without(stocked, entry, SHARES, predictions_file("dev"))
    assert set(before.files) == set(entry.files) - {SHARES, predictions_file("dev")}
    assert (before.digest == entry.digest) is (method != "fusion"), "its attention was a weight"
    said = mtl("zoo", "verify", before.ref, "--tolerance", "0", "--json")
    assert said.code == 0, said
    (row,) = said.json["verified"]
    assert set(row["metrics"]) == {"test"}
    assert open_zoo(stocked).get(before.ref).digest == before.digest
    assert open_zoo(stocked).fsck() == []
    picture = tmp_path / "map.png"
    at = ["--suite", "mini", "--target", "same", "--heatmap", picture, "--entry", before.ref]
    assert mtl("report", *at).code == 0
    assert picture.stat().st_size > 1000
    if method == "fusion":
        save_file(weights, entry.folder / FILE)
        reseal(entry.folder)
        said = mtl("report", *at)
        assert said.code == 2
        assert "is unknown" in said.err
        assert mtl("zoo", "verify", before.ref).code == 0


def test_answers_on_dev_are_stored_and_verified(stocked: Path) -> None:
    entry = next(e for e in open_zoo(stocked).entries(task="mini/mood"))
    dev = read_predictions(entry.folder, predictions_file("dev"))
    right = float(np.mean(dev.prediction == dev.label))
    assert right == pytest.approx(entry.manifest.metrics["dev"]["accuracy"]["value"])
    assert len(dev.row) == entry.manifest.data["sizes"]["dev"]
    (row,) = mtl("zoo", "verify", entry.ref, "--tolerance", "0", "--json").json["verified"]
    assert (row["good"], row["max_logit_difference"]) == (True, 0)
    assert set(row["metrics"]) == {"test", "dev"}
    path = entry.folder / predictions_file("dev")
    stored = load_file(path)
    save_file({**stored, "scores": stored["scores"] + 1}, path)
    reseal(entry.folder)
    said = mtl("zoo", "verify", entry.ref, "--json")
    assert said.code == 1
    (problem,) = said.json["verified"][0]["problems"]
    assert problem.startswith("dev: its scores differ by up to 1")
    save_file(stored, path)
    metrics = json.loads(json.dumps(entry.manifest.metrics))
    metrics["dev"]["accuracy"]["value"] = 0.987
    reseal(entry.folder, metrics=metrics)
    (row,) = mtl("zoo", "verify", entry.ref, "--json").json["verified"]
    assert "dev: its stored predictions give accuracy" in row["problems"][0]
    del metrics["dev"]
    reseal(entry.folder, metrics=metrics)
    (row,) = mtl("zoo", "verify", entry.ref, "--json").json["verified"]
    assert row["problems"] == ["it has no metrics of the dev split"]


def test_joint_entries_answer_on_dev(mini: Path) -> None:
    folder = joint(mini)
    entry = open_zoo(mini).get(folder.relative_to(mini).as_posix())
    for task in ("mini/same", "mini/mood", "mini/shared"):
        assert predictions_file("dev", task) in entry.files
    (row,) = mtl("zoo", "verify", entry.ref, "--tolerance", "0", "--json").json["verified"]
    assert set(row["metrics"]) == {"test", "dev"}
    assert set(row["metrics"]["dev"]) == set(entry.manifest.metrics["dev"])
    path = folder / predictions_file("dev", "mini/mood")
    stored = load_file(path)
    save_file({**stored, "label": 1 - stored["label"]}, path)
    reseal(folder)
    (row,) = mtl("zoo", "verify", entry.ref, "--json").json["verified"]
    assert row["problems"][0] == "mini/mood dev: its stored labels are not those of the data"
    path.rename(folder / predictions_file("dev", "mini/nobody"))
    reseal(folder)
    problems = open_zoo(mini).fsck()
    assert any("is of no task" in problem.message for problem in problems)


def test_answers_on_further_tests(mini: Path, suite_folder: Path, tmp_path: Path) -> None:
    """A split whose name cannot be that of a file is told by its metrics alone."""
    odd = suite_folder / "mood_dev.jsonl"
    text = (suite_folder / "mood.yaml").read_text().replace("mood_", f"{suite_folder}/mood_")
    text = text.replace("}}", f", odd: {odd}, strange: {odd}}}}}")
    text = text.replace("id: mini/mood", "id: mine/mood")
    text += 'test: {main: test, odd: odd, "a b": strange}\n'
    path = tmp_path / "mood.yaml"
    path.write_text(text)
    assert mtl("train", "--task", path, "--max-steps", "3").code == 0
    (entry,) = open_zoo(mini).entries(task="mine/mood")
    assert {name for name in entry.files if name.startswith("predictions")} == {
        predictions_file(split) for split in ("test", "dev", "test_odd")
    }
    assert set(entry.manifest.metrics) == {"test", "dev", "test_odd", "test_a b"}
    at = ("verify", entry.ref, "--task", path, "--json")
    said = mtl("zoo", *at, "--tolerance", "0")
    assert said.code == 0, said
    assert set(said.json["verified"][0]["metrics"]) == set(entry.manifest.metrics)
    odd = entry.folder / predictions_file("test_odd")
    save_file({**load_file(odd), "scores": load_file(odd)["scores"] + 1}, odd)
    reseal(entry.folder)
    (problem,) = mtl("zoo", *at).json["verified"][0]["problems"]
    assert problem.startswith("test_odd: its scores differ")
