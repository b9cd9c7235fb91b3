"""Decoders from training to answers: every type, and what the seed report asked of llama."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from cli_bench import mtl, refused
from test_light_doors import light

from mtl.backbone import load_backbone
from mtl.backbone.arch import archs, tiny_config
from mtl.data.pairs import paired
from mtl.files import read_json
from mtl.runs.run import Run

TYPES = [kind for kind, arch in archs().items() if arch.decoder]
SHORT = ["--epochs", "1", "--set", "batch_size=32"]


@pytest.fixture(scope="module")
def folder_of(
    tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """``folder_of(kind)``: a tiny random decoder; its tokenizer has neither pairs nor padding."""
    made: dict[str, str] = {}

    def folder(kind: str) -> str:
        if kind not in made:
            from tokenizers import processors

            words = transformers.AutoTokenizer.from_pretrained(tiny("roberta"))
            first = words.bos_token or words.cls_token
            words.backend_tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{first} $A",
                pair=f"{first} $A {first} $B",
                special_tokens=[(first, words.convert_tokens_to_ids(first))],
            )
            place = tmp_path_factory.mktemp("decoders") / kind
            arch = archs()[kind]
            torch.manual_seed(3)
            config = tiny_config(kind, vocab_size=len(words), pad_token_id=None)
            getattr(transformers, arch.auto).from_config(config).save_pretrained(place)
            words.save_pretrained(place)
            for name in ("tokenizer_config.json", "special_tokens_map.json"):
                said = read_json(place / name)
                said.pop("pad_token", None)
                (place / name).write_text(json.dumps(said | {"eos_token": "</s>"}))
            made[kind] = str(place)
        return made[kind]

    return folder


@pytest.fixture
def use(
    mini: Path, folder_of: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """``use(kind)``: commands take the tiny decoder of that type; returns the test's zoo."""

    def chosen(kind: str) -> Path:
        monkeypatch.setenv("MTL_MODEL", folder_of(kind))
        return mini

    return chosen


def good(*argv: object) -> Any:
    said = mtl(*argv, "--json")  # type: ignore[arg-type]
    assert said.code == 0, said
    return said.json


def ref_of(said: Any) -> str:
    return str(said["runs"][0]["ref"])


PAIR = ["--set", "pair={first} some {second}"]
"""The tiny tokenizer makes no token of a line break."""


def test_texts_that_would_run_together_are_refused(use: Callable[[str], Path]) -> None:
    use("llama")
    line = ["--suite", "mini", "--task", "same", *SHORT, "--json"]
    refused(mtl("train", *line), "nothing between them", "--set 'pair={first} | {second}'")
    assert mtl("train", *line, "--set", "pair={first} | {second}").code == 0


def test_a_plan_finds_templates_that_cannot_join(use: Callable[[str], Path]) -> None:
    use("llama")
    line = ["--suite", "mini", "--task", "same", *SHORT, "--dry-run", "--set"]
    for template, *said in (
        ("{first}\n{second}", "no token of '\\n'", "Take --set 'pair={first} | {second}'."),
        ("{first} some cat sees some dog and {second}", "tokens itself", "give more --max-length"),
        ("{frist} | {second}", "must name {first} and then {second}", "'{first} | {second}'"),
    ):
        refused(mtl("train", *line, f"pair={template}", "max_length=8"), *said)
    refused(mtl("train", *line[:-1]), "Task 'mini/same'", "--set 'pair={first} | {second}'")
    assert mtl("train", *line, "pair={first} | {second}").code == 0
    assert light("train", *line, "pair={first} | {second}").code == 0  # it is known by now


def test_how_pairs_are_joined_is_no_part_of_a_run_on_single_texts(
    use: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = use("llama")
    line = ["train", "--suite", "mini", "--task", "mood", *SHORT]
    with monkeypatch.context() as patch:  # an entry of when it was
        patch.setattr(Run, "runhash", property(lambda run: run.former_hash))
        before = ref_of(good(*line, *PAIR))
    assert good(*line, *PAIR, "--dry-run")["runs"][0]["state"] == "done"
    assert "skipped" in mtl(*line, *PAIR).out
    other = [*PAIR[:1], "pair={first} | {second}"]
    found = [ref_of(good(*line, *words)) for words in ([], other)]
    assert len({before, *found}) == 2
    manifest = read_json(zoo / found[0] / "manifest.json")
    assert "pair" not in manifest["run_settings"]
    assert "pair" not in manifest["task"]["spec"]
    pairs = [*line[:4], "same", *SHORT, "--dry-run"]
    hashes = {good(*pairs, *words)["runs"][0]["ref"] for words in (PAIR, other)}
    assert len(hashes) == 2


@pytest.mark.parametrize("kind", TYPES)
def test_a_decoder_from_training_to_answers(
    kind: str, use: Callable[[str], Path], tmp_path: Path
) -> None:
    zoo = use(kind)
    for task in ("same", "mood"):
        good("train", "--suite", "mini", "--task", task, *SHORT, *PAIR)
    composed = good("compose", "--target", "same", "--sources", "mood", "same", *SHORT, *PAIR)
    ref = ref_of(composed)
    manifest = read_json(zoo / ref / "manifest.json")
    assert manifest["base"]["type"] == kind
    assert good("zoo", "verify", ref)
    out = good("export", ref, tmp_path / "out", "--to", "adapters")
    assert out["proof"]["max_logit_difference"] <= out["proof"]["limit"]
    assert out["proof"]["adapter_effect"] > out["proof"]["limit"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("A pair is one text here" if archs()[kind].heads else "no padding") in card
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"a": "the cat sees a tree", "b": "some dog"}\n')
    said = mtl("predict", ref, "--input", rows, "--output", tmp_path / "answers.jsonl")
    assert said.code == 0, said
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 1
    assert "scalearn" in mtl("report", "--suite", "mini").out


def test_an_export_joins_pairs_as_the_run_did(
    mini: Path, folder_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, model = mini, tmp_path / "model"
    shutil.copytree(folder_of("llama"), model)
    said = read_json(model / "tokenizer_config.json")  # a class that makes its own format for pairs
    said["tokenizer_class"] = "LlamaTokenizerFast"
    (model / "tokenizer_config.json").write_text(json.dumps(said))
    monkeypatch.setenv("MTL_MODEL", str(model))
    ref = ref_of(good("train", "--suite", "mini", "--task", "same", *SHORT, *PAIR))
    assert good("export", ref, tmp_path / "out", "--to", "onnx")["proof"]
    own = load_backbone(str(model)).tokenizer
    pair = ("the cat", "dog")
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(*pair)["input_ids"]
    assert found == paired(own, "{first} some {second}")(*pair)["input_ids"]
    assert found != own(*pair)["input_ids"]
    card = (zoo / ref / "README.md").read_text()
    assert "{first} some {second}" in card
    assert '["text 2"]' not in card


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_what_changes_a_fused_module_goes_to_onnx(
    method: str, use: Callable[[str], Path], tmp_path: Path
) -> None:
    """``adapters`` puts its outputs into place by a mask of booleans, which ONNX has not."""
    use("gpt2")
    line = ["--suite", "mini", "--task", "same", "--method", method, *SHORT, "lr=0.05", *PAIR]
    ref = ref_of(good("train", *line))
    proof = good("export", ref, tmp_path / "out", "--to", "onnx")["proof"]
    assert proof["max_logit_difference"] <= proof["limit"] < proof["adapter_effect"]


# What may not be refused where the table of types is asked: see docs/bases.md for the whole matrix.
SOURCES = ["pfeiffer", "lora", "adakron", "sora", "adalora"]


@pytest.mark.parametrize("method", ["sora", "adalora"])
def test_sora_and_adalora_on_llama(method: str, use: Callable[[str], Path], tmp_path: Path) -> None:
    """The two rows of the seed report that no base of this type could fill."""
    zoo = use("llama")
    refs = {}
    for task in ("same", "mood"):
        line = ["--suite", "mini", "--task", task, "--method", method, "--epochs", "2"]
        refs[task] = ref_of(good("train", *line, *PAIR, "modules=q,v"))
    assert good("zoo", "verify", refs["same"])
    sources = [f"mood:{method}", f"same:{method}"]
    line = ["--target", "same", "--sources", *sources, "--method", "scalearn"]
    ref = ref_of(good("compose", *line, *SHORT, *PAIR))
    assert good("zoo", "verify", ref)
    assert read_json(zoo / ref / "manifest.json")["metrics"]["test"]
    out = good("export", ref, tmp_path / "out", "--to", "peft")
    assert out["proof"]["max_logit_difference"] <= out["proof"]["limit"]
    assert out["proof"]["adapter_effect"] > out["proof"]["limit"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    if method == "sora":
        assert (good("export", ref, tmp_path / "whole", "--to", "onnx"))["proof"]


@pytest.mark.parametrize("method", SOURCES)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
@pytest.mark.slow
def test_what_may_not_be_refused(
    kind: str, method: str, use: Callable[[str], Path], tmp_path: Path
) -> None:
    zoo = use(kind)
    for task in ("same", "mood"):
        line = ["--suite", "mini", "--task", task, "--method", method, *SHORT, PAIR[1]]
        assert good("zoo", "verify", ref_of(good("train", *line)))
    for composition in ("scalearn", "scalearn++"):
        line = ["--target", "same", "--sources", f"mood:{method}", f"same:{method}"]
        ref = ref_of(good("compose", *line, "--method", composition, *SHORT, *PAIR))
        assert good("zoo", "verify", ref)
        assert read_json(zoo / ref / "manifest.json")["verified"]["max_logit_difference"] <= 1e-3


def test_a_base_held_in_bf16_end_to_end(use: Callable[[str], Path], tmp_path: Path) -> None:
    """The setting is of the run, its hash, its record; the entry answers as it was trained."""
    zoo = use("llama")
    line = ["--suite", "mini", "--task", "mood", *SHORT[:2]]
    plain = ref_of(good("train", *line))
    ref = ref_of(good("train", *line, "--base-precision", "bf16"))
    assert ref != plain
    said = [read_json(zoo / name / "manifest.json")["run_settings"] for name in (plain, ref)]
    assert said[1].pop("base_precision") == "bf16"
    assert said[0] == said[1]
    assert good("zoo", "verify", ref)
    assert "| base held in | bf16 |" in (zoo / ref / "README.md").read_text()
    out = good("export", ref, tmp_path / "out", "--to", "adapters")
    assert out["proof"]["max_logit_difference"] <= out["proof"]["limit"]
    assert "model.config.pad_token_id = " in (tmp_path / "out" / "README.md").read_text()
    good(
        "compose",
        "--suite",
        "mini",
        "--target",
        "mood",
        "--sources",
        f"mood:pfeiffer/{ref.rpartition('/')[2]}",
        "--base-precision",
        "bf16",
        *SHORT,
    )
    refused(mtl("train", *line, "--method", "full-ft", "--base-precision", "bf16"), "full-ft")
    refused(mtl("train", *line, "--base-precision", "nf4"), "nf4")


@pytest.mark.parametrize(("kind", "answer"), [("llama", "refused"), ("qwen3", "own head")])
def test_heads_that_stock_adapters_lacks_are_refused(
    kind: str, answer: str, folder_of: Callable[[str], str], tmp_path: Path
) -> None:
    from mtl.backbone import build_head, load_backbone, save_head
    from mtl.errors import RequestError
    from mtl.export.stock import check_stock_head

    backbone = load_backbone(folder_of(kind))
    config = backbone.pristine.config
    for task in ("classification", "multilabel", "span_extraction", "multiple_choice"):
        head = build_head("linear", config, 2, pooler=False, kind=task)
        folder = tmp_path / task
        folder.mkdir()
        save_head(head, folder, "x", config, kind=task, labels=("a", "b"), model_id="x")
        if answer == "refused" and task == "multiple_choice":
            with pytest.raises(RequestError, match="no head for multiple choice"):
                check_stock_head(folder, backbone, "it")
        else:
            check_stock_head(folder, backbone, "it")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["hyperformer++", "propetl-m", "adapter-m"])
def test_joint_runs_on_a_decoder(method: str, use: Callable[[str], Path]) -> None:
    use("llama")
    ref = ref_of(good("joint", "--suite", "mini", "--method", method, *SHORT, *PAIR))
    assert good("zoo", "verify", ref)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_entries_share_passes(kind: str, use: Callable[[str], Path]) -> None:
    """Fused linears, hooked sites and the last token, mixed as one by one (``mtl.load_many``)."""
    import numpy as np

    import mtl as face
    from mtl.zoo import open_zoo

    zoo = use(kind)
    good("train", "--suite", "mini", "--task", "mood", "--method", "pfeiffer", "lora", *SHORT)
    good("train", "--suite", "mini", "--task", "shared", "--method", "pfeiffer", *SHORT, *PAIR)
    models = face.load_many(open_zoo(zoo).entries())
    assert models.alone == {}
    rows: dict[str, list[Any]] = {
        "mini/mood": ["every cat is happy today", "no dog"],
        "mini/shared": [("tree house", "a tree and a stone")],
    }
    inputs = {ref: rows[str(e.manifest.task["id"])] for ref, e in models.entries.items()}
    for ref, answers in models.predict(inputs, scores=True).items():
        alone = face.load(ref).predict(inputs[ref], scores=True)
        np.testing.assert_allclose(answers.raw, alone.raw, atol=1e-5, err_msg=ref)
