"""T5, mT5, BART and mBART, their encoders alone, from training to every way out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from cli_bench import mtl, refused
from peft_bench import states_here
from test_side_by_side import TASKS, adapters, check_alike, compositions

import mtl as face
from mtl.backbone import load_backbone
from mtl.backbone.arch import tiny_config
from mtl.files import read_json
from mtl.zoo import open_zoo

KINDS = {"t5": "T5", "mt5": "MT5", "bart": "Bart", "mbart": "MBart"}
SHORT = ["--epochs", "2", "--lr", "0.01"]


@pytest.fixture(scope="module")
def folders(tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``folders(kind)``: a tiny random encoder-decoder with RoBERTa's words, made once."""
    root = tmp_path_factory.mktemp("whole")

    def folder(kind: str) -> str:
        if not (root / kind).is_dir():
            shutil.copytree(tiny("roberta"), root / kind)
            words = load_backbone(tiny("roberta")).tokenizer
            torch.manual_seed(7)
            config = tiny_config(
                kind, vocab_size=len(words), pad_token_id=1, decoder_start_token_id=1,
                eos_token_id=words.eos_token_id,
            )  # fmt: skip
            whole = getattr(transformers, f"{KINDS[kind]}ForConditionalGeneration")(config)
            whole.save_pretrained(root / kind)
        return str(root / kind)

    return folder


@pytest.fixture
def use(mini: Path, folders: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``use(kind)``: commands take that base; returns the test's zoo."""

    def chosen(kind: str) -> Path:
        monkeypatch.setenv("MTL_MODEL", folders(kind))
        return mini

    return chosen


def good(*argv: object) -> Any:
    said = mtl(*argv, "--json")  # type: ignore[arg-type]
    assert said.code == 0, said
    return said.json


@pytest.mark.parametrize("kind", KINDS)
def test_from_training_to_answers(kind: str, use: Callable[[str], Path], tmp_path: Path) -> None:
    zoo = use(kind)
    train = ["train", "--suite", "mini", "--task", "same", "mood", *SHORT]
    # Stock adapters gives all layers of BART the last LayerNorm, which houlsby does not read.
    method = "houlsby" if kind == "bart" else "pfeiffer"
    good(*train, "--method", method, "lora")
    sources = [f"mood:{method}", f"same:{method}"]
    ref = good("compose", "--target", "same", "--sources", *sources, *SHORT)["runs"][0]["ref"]
    manifest = read_json(zoo / ref / "manifest.json")
    assert manifest["base"]["type"] == kind
    assert good("zoo", "verify", ref)
    for form in ("adapters", "onnx"):
        out = good("export", ref, tmp_path / form, "--to", form)
        assert out["proof"]["max_logit_difference"] <= out["proof"]["limit"]
        assert out["proof"]["adapter_effect"] > out["proof"]["limit"]
    low_rank = next(e for e in open_zoo(zoo).entries() if e.manifest.method == "lora")
    whole = mtl("export", low_rank.ref, tmp_path / "whole", "--to", "transformers")
    refused(whole, f"classifier of {kind} there is another function")
    assert good("export", low_rank.ref, tmp_path / "peft", "--to", "peft")["proof"]
    card = (tmp_path / "peft" / "README.md").read_text()
    auto, part = (
        ("AutoModel", ").encoder\n") if "bart" in kind else ("AutoModelForTextEncoding", "")
    )
    assert f"encoder = {auto}.from_pretrained(" in card
    assert part in card
    # Rows of several entries in one pass, as each answers alone.
    rows = [{"a": "the cat sees a tree", "b": "some dog"}, {"a": "no bird", "b": "a red stone"}]
    pairs = [e for e in open_zoo(zoo).entries() if e.manifest.task["id"] == "mini/same"]
    assert len(pairs) == 3
    models = face.load_many(pairs)
    assert not models.alone
    together = models.predict({e.ref: rows for e in pairs}, scores=True)
    for entry in pairs:
        alone = face.load(entry.ref, zoo=zoo).predict(rows, scores=True)
        np.testing.assert_allclose(together[entry.ref].raw, alone.raw, atol=1e-5)


def test_runs_side_by_side(use: Callable[[str], Path], tmp_path: Path) -> None:
    zoo = use("t5")
    check_alike(adapters(tmp_path, "pfeiffer", [0, 1], TASKS[0]), tmp_path)
    check_alike(adapters(tmp_path / "low", "lora", [0, 1], TASKS[1]), tmp_path / "low")
    good("train", "--suite", "mini", "--method", "pfeiffer", "--epochs", "1")
    runs = compositions(tmp_path, zoo, "scalearn", [TASKS[:2], TASKS[1:]])
    check_alike(runs, tmp_path / "composed")


def test_a_layer_that_may_be_left_out_is_drawn_for_each_run_alone(
    use: Callable[[str], Path],
) -> None:
    """BART draws, layer by layer, whether it is left out, even where it never is."""
    zoo = use("bart")
    line = ["train", "--suite", "mini", "--task", "mood", "--max-steps", "2", "--seeds", "0", "1"]
    said = mtl(*line, "--side-by-side", "2")
    assert said.code == 0, said
    assert "rand draws for all rows at once" in said.err
    assert len(open_zoo(zoo).entries()) == 2


def test_scores_of_sources(use: Callable[[str], Path]) -> None:
    use("t5")
    good("train", "--suite", "mini", "--method", "pfeiffer", "--epochs", "1")
    found = good("graph", "suggest", "--target", "mood", "--suite", "mini", "--scores", "taskemb")
    assert found


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_adapter_of_both_halves_is_refused(
    kind: str, use: Callable[[str], Path], folders: Any, tmp_path: Path
) -> None:
    """peft's names for an encoder are the same in both; half an adapter is another one."""
    zoo = use(kind)
    ids = torch.tensor([[5, 7, 9, 2], [6, 2, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    modules = ["q", "v", "wo"] if kind == "t5" else ["q_proj", "v_proj", "fc2"]
    for halves in ("both", "encoder"):
        model = getattr(transformers, f"{KINDS[kind]}ForConditionalGeneration").from_pretrained(
            folders(kind)
        )
        targets: Any = modules
        if halves == "encoder":
            targets = rf".*encoder\..*\.({'|'.join(modules)})"
        config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        tuned = peft.get_peft_model(model, config).eval()
        tuned.save_pretrained(str(tmp_path / halves))
        line = ["zoo", "pull", "--peft", tmp_path / halves, "--model", folders(kind)]
        if halves == "both":
            refused(mtl(*line), "it changes a decoder, too (", "an encoder alone")
            continue
        (entry,) = good(*line)["repositories"][0]["entries"]
        with torch.no_grad():
            expected = model.get_encoder()(**batch).last_hidden_state
        found = states_here(open_zoo(zoo).get(entry["ref"]), folders(kind), batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
