"""``mtl.export --to onnx`` and ``--to transformers``: whole models, answered by other runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_bench import leftovers, mtl, refused

import mtl as face

TEXTS = ["every cat is happy today", "every dog is sad today beside the old river", "a bird"]


@pytest.fixture
def composition(stocked: Path) -> str:
    """The reference of a ScaLearn composition of all three sources."""
    line = ["--target", "mood", "--suite", "mini", "--epochs", "1", "--json"]
    return str(mtl("compose", *line).json["runs"][0]["ref"])


@pytest.fixture
def low_rank(mini: Path) -> str:
    """The reference of a ScaLearn composition of two LoRA sources."""
    line = ["--method", "lora", "--set", "lr=1e-2", "modules=q,v,output", "--epochs", "1"]
    assert mtl("train", "--suite", "mini", "--task", "mood", "shared", *line).code == 0
    line = ["--target", "mood", "--sources", "mood:lora", "shared:lora", "--epochs", "1", "--json"]
    return str(mtl("compose", *line).json["runs"][0]["ref"])


def code_of(card: str, folder: Path, *texts: str) -> Any:
    """What the first snippet of a card prints for ``texts`` in place of its own."""
    snippet = card.split("## Load")[1].split("```python\n")[1].partition("```")[0]
    snippet = snippet.replace("FOLDER", repr(str(folder))).replace('["text 1"]', repr(list(texts)))
    found: list[Any] = []
    exec(snippet, {"print": found.append})
    return found[-1]


def test_a_composition_goes_to_onnx_and_answers_alike(
    composition: str, stocked: Path, tmp_path: Path
) -> None:
    import onnxruntime

    folder = tmp_path / "out"
    line = ["--to", "onnx", "--int8", "--evaluate", "--json"]
    said = mtl("export", composition, folder, *line)
    assert said.code == 0, said
    record = said.json
    assert record["proof"]["max_logit_difference"] <= 1e-4
    assert record["proof"]["adapter_effect"] > 1e-3  # the adapters are in the file
    assert record["proof"]["rows"] == 20
    names = {path.name for path in folder.iterdir()}
    assert {"model.onnx", "model_int8.onnx", "tokenizer.json", "README.md"} <= names
    entry = face.open_zoo(stocked).get(composition)
    for split in ("dev", "test"):
        stored = entry.manifest.metrics[split]["accuracy"]["value"]
        assert record["scores"][split]["accuracy"] == pytest.approx(stored, abs=1e-9)
        assert record["changes"]["int8"][split]["before"] == pytest.approx(stored, abs=1e-9)
        assert record["changes"]["int8"][split]["max_logit_difference"] > 0
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    told = session.get_modelmeta().custom_metadata_map
    assert told["mtl.digest"] == entry.digest
    assert json.loads(told["mtl.labels"]) == list(entry.manifest.task["labels"])
    assert json.loads(told["mtl.inputs"]) == entry.manifest.task["spec"]["inputs"]
    for rows, length in ((1, 3), (5, 9)):  # other sizes than were traced
        given = {
            item.name: np.full((rows, length), item.name != "token_type_ids", np.int64)
            for item in session.get_inputs()
        }
        assert session.run(None, given)[0].shape == (rows, 2)
    card = (folder / "README.md").read_text()
    assert "| int8 | test | accuracy |" in card
    assert "library_name: onnx\n" in card
    assert "adapter-transformers" not in card
    assert code_of(card, folder, *TEXTS) == face.load(entry).predict(TEXTS)
    assert not leftovers(tmp_path)


def test_low_rank_sources_become_a_plain_model_of_transformers(
    low_rank: str, mini: Path, tmp_path: Path
) -> None:
    from transformers import pipeline

    folder = tmp_path / "out"
    said = mtl("export", low_rank, folder, "--to", "transformers", "--evaluate", "--json")
    assert said.code == 0, said
    record = said.json
    assert record["proof"]["max_logit_difference"] <= record["proof"]["limit"]
    assert record["proof"]["adapter_effect"] > 100 * record["proof"]["limit"]
    entry = face.open_zoo(mini).get(low_rank)
    stored = entry.manifest.metrics["test"]["accuracy"]["value"]
    assert record["scores"]["test"]["accuracy"] == pytest.approx(stored, abs=1e-9)
    expected = face.load(entry).predict(TEXTS)
    answers = pipeline("text-classification", str(folder))(TEXTS)
    assert [found["label"] for found in answers] == expected
    assert code_of((folder / "README.md").read_text(), folder, *TEXTS) == expected
    assert {path.suffix for path in folder.iterdir()} & {".bin", ".pt", ".pkl"} == set()


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "xlm-roberta"])
def test_every_type_whose_classifier_is_ours(
    kind: str, mini: Path, tiny: Any, tmp_path: Path
) -> None:
    model = ["--model", tiny(kind)]
    line = ["--method", "lora", "--set", "lr=1e-2", "--epochs", "1", "--json", *model]
    ref = mtl("train", "--suite", "mini", "--task", "mood", *line).json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "out", "--to", "transformers", "--json", *model)
    assert said.code == 0, said
    proof = said.json["proof"]
    assert proof["max_logit_difference"] <= proof["limit"] < proof["adapter_effect"]


def test_what_is_no_plain_model_is_refused_and_goes_to_onnx(
    composition: str, stocked: Path, tmp_path: Path
) -> None:
    taken = ["export", composition, tmp_path / "out", "--to"]
    refused(mtl(*taken, "transformers"), "pfeiffer is more than a change", "--to onnx")
    refused(mtl(*taken, "transformers", "--int8"), "--int8 is for --to onnx")
    refused(mtl(*taken, "onnx", "--width", "4"), "--width", "--to adapters")
    refused(mtl(*taken, "onnx", "--prune"), "--prune", "--to adapters")
    line = ["--suite", "mini", "--task", "mood", "--head", "linear", "--epochs", "1", "--json"]
    ref = mtl("train", *line, "--method", "lora").json["runs"][0]["ref"]
    refused(
        mtl("export", ref, tmp_path / "out", "--to", "transformers"), "--head two_layer", "onnx"
    )
    assert not (tmp_path / "out").exists()
    assert not leftovers(tmp_path)
    assert mtl("export", ref, tmp_path / "out", "--to", "onnx", "--json").code == 0


def test_fusion_and_a_whole_encoder_go_to_onnx(stocked: Path, tmp_path: Path) -> None:
    line = ["--target", "same", "--method", "fusion", "--epochs", "1", "--json"]
    fusion = mtl("compose", *line).json["runs"][0]["ref"]
    line = ["--suite", "mini", "--task", "mood", "--method", "full-ft", "--epochs", "1", "--json"]
    whole = mtl("train", *line).json["runs"][0]["ref"]
    for number, ref in enumerate((fusion, whole)):
        said = mtl("export", ref, tmp_path / str(number), "--to", "onnx", "--json")
        assert said.code == 0, said
        assert said.json["proof"]["max_logit_difference"] <= said.json["proof"]["limit"]


@pytest.mark.parametrize(
    ("method", "settings"), [("compacter++", ["reduction_factor=4"]), ("loreft", ["rank=2"])]
)
def test_modules_that_onnx_cannot_say_go_there_as_plain_ones(
    method: str, settings: list[str], mini: Path, tmp_path: Path
) -> None:
    """Kronecker products with sizes that are tensors; a rotation made of reflections."""
    line = ["--suite", "mini", "--task", "mood", "--method", method, "--epochs", "1", "--json"]
    said = mtl("train", *line, "--set", "lr=3e-2", *settings)
    ref = said.json["runs"][0]["ref"]
    said = mtl("export", ref, tmp_path / "out", "--to", "onnx", "--json")
    assert said.code == 0, said
    proof = said.json["proof"]
    assert proof["max_logit_difference"] <= proof["limit"] < proof["adapter_effect"]
