"""Adapters of peft that are refused, and why; files of strangers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from cli_bench import mtl, refused
from peft_bench import (
    CONFIGS,
    HIDDEN,
    QV,
    Write,
    change,
    folder_of,
    get,
    logits,
    pulled,
    write,
)
from safetensors.torch import load_file, save_file

from mtl.errors import MtlError
from mtl.hub.peft_config import KINDS, REFUSED, read_config

__all__ = ["folder_of", "write"]  # the fixtures
OTHERS: dict[str, Any] = {
    "HRA": peft.HRAConfig(r=2, target_modules=QV),
    "OFT": peft.OFTConfig(oft_block_size=4, target_modules=QV),
    "BOFT": peft.BOFTConfig(boft_block_size=4, target_modules=QV),
    "SHIRA": peft.ShiraConfig(r=2, target_modules=QV),
    "IA3": peft.IA3Config(target_modules=QV, feedforward_modules=[]),
    "LN_TUNING": peft.LNTuningConfig(target_modules=["LayerNorm"]),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_no_lora_computes_is_refused_with_the_reason(
    kind: str, write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(OTHERS[kind])
    refused(pulled(folder, tiny), f"it is a {kind} adapter", REFUSED[kind])
    assert not mini.exists()


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (peft.LoraConfig(target_modules=["query", "dense"]), ["attention.output.dense", "q, k, v"]),
        (peft.LoraConfig(target_modules=QV, bias="lora_only"), ["bias='lora_only'", "biases"]),
        (peft.LoraConfig(target_modules=QV, lora_bias=True), ["biases of its own"]),
        (peft.LoraConfig(target_modules=QV, init_lora_weights="pissa"), ["other weights of the"]),
        (peft.LoraConfig(target_modules=QV, trainable_token_indices=[1]), ["embeddings"]),
        (
            peft.LoraConfig(target_modules=QV, modules_to_save=["word_embeddings", "classifier"]),
            ["1 tensor of the encoder itself", "word_embeddings"],
        ),
        (
            peft.LoraConfig(target_modules=QV, layer_replication=[[0, 2], [0, 2]]),
            ["repeats layers"],
        ),
    ],
)
def test_loras_that_do_more(
    config: Any, parts: list[str], write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    if config.layer_replication:
        _, folder = write(CONFIGS["lora"])
        change(folder, layer_replication=config.layer_replication)
    else:
        _, folder = write(config)
    refused(pulled(folder, tiny), *parts)
    assert not mini.exists()


def test_rank_and_loss(
    write: Write, tiny: Callable[[str], str], tokens: Any, tmp_path: Path, mini: Path
) -> None:
    """At a smaller rank than it needs, something is lost: refused above a limit, else stored."""
    _, folder = write(CONFIGS["fourierft"])
    said = pulled(folder, tiny, "--rank", "20")
    refused(said, "as a LoRA of rank 20 it would lose 0.", ": pass --rank ")
    needed = said.err.partition("pass --rank ")[2].partition(" ")[0]
    assert f"({int(needed) * 4 * (HIDDEN + HIDDEN):,} numbers)" in said.err
    entry = get(folder, tiny, mini, "--rank", needed)
    assert entry.manifest.data["converted"]["rank"] == int(needed) > 20
    assert entry.manifest.data["converted"]["largest_error"] <= 1e-6
    lossy = get(folder, tiny, mini, "--rank", "20", "--max-error", "0.5")
    record = lossy.manifest.data["converted"]
    assert lossy.ref != entry.ref
    assert record["rank"] == 20
    assert 1e-3 < record["largest_error"] < 0.5
    assert "--rank 20 --max-error 0.5" in lossy.manifest.command
    assert f"{record['largest_error']:g}" in lossy.manifest.data["notes"][1]
    refused(pulled(folder, tiny, "--rank", "0"), "--rank 0 must be at least 1")
    refused(pulled(folder, tiny, "--max-error", "1"), "--max-error 1.0 must be")
    exact, other = (logits(item, mini, tiny("roberta"), tokens) for item in (entry, lossy))
    assert (exact - other).abs().max() > 1e-4


def test_another_encoder(
    write: Write, tiny: Callable[[str], str], make_tiny: Any, tmp_path: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    line = ["zoo", "pull", "--peft", folder, "--zoo", tmp_path / "zoo"]
    refused(mtl(*line), "--model MODEL")
    other = make_tiny(tmp_path / "deeper", "roberta", num_hidden_layers=3)
    refused(mtl(*line, "--model", other), "2 modules that it names have no weights", code=1)
    wider = make_tiny(tmp_path / "wider", "roberta", hidden_size=64)
    refused(mtl(*line, "--model", wider), "changes weights of shape (48, 48)", code=1)
    refused(mtl(*line, "--model", tiny("deberta-v2")), "of another base", code=1)


def damaged(folder: Path, how: str) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(key for key in sorted(tensors) if ".lora_A" in key)
    if how == "pickled":
        torch.save(tensors, folder / "adapter_model.bin")
        file.unlink()
        return
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-8])
        return
    value = tensors.pop(key)
    more = {
        "missing": {},
        "nan": {key: value * float("nan")},
        "shape": {key: value[:, :-1].contiguous()},
        "rank": {key: value[:-1].contiguous()},
        "whole numbers": {key: value.long()},
        "flat": {key: value.flatten()},
        "other name": {key: value, key.replace("lora_A", "lora_C"): value.clone()},
        "twice": {key: value, key.replace("model.roberta.", "model."): value.clone()},
        "elsewhere": {key: value, "evil": value.clone()},
        "shared": {key: value, "base_model.vera_A": value.clone()},
    }[how]
    save_file({**tensors, **more}, file)


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ("pickled", "unpickles nothing"),
        ("cut", "cannot be read"),
        ("missing", "expected lora_A.weight, lora_B.weight"),
        ("nan", "holds NaN"),
        ("shape", "changes weights of shape (48, 47)"),
        ("rank", "which make no product"),
        ("whole numbers", "holds NaN, infinities or no fractions"),
        ("flat", "which make no product"),
        ("other name", "has the tensors lora_A.weight, lora_B.weight, lora_C.weight"),
        ("twice", "in two ways"),
        ("elsewhere", "evil is none that peft writes there"),
        ("shared", "vera_A is none that peft writes there"),
    ],
)
def test_weights_of_strangers(
    how: str, part: str, write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    damaged(folder, how)
    refused(pulled(folder, tiny), part, code=2 if how == "pickled" else 1)
    assert not mini.exists()


@pytest.mark.parametrize(
    "values",
    [
        {"auto_mapping": {"parent_library": "os", "base_model_class": "system"}},
        {"megatron_config": {"tensor_model_parallel_size": 1}},
        {"auto_map": {"AutoConfig": "evil.Evil"}},
        {"peft_type": ["LORA"]},
        {"peft_type": "EVIL\x1b[2J"},
        {"r": 10**30},
        {"r": True},
        {"r": "8"},
        {"lora_alpha": "9" * 50},
        {"lora_alpha": 1e300},
        {"rank_pattern": {"(a+)+$": 3}},
        {"rank_pattern": {"query": 10**9}},
        {"alpha_pattern": ["query"]},
        {"alpha_pattern": {f"q{number}": 1 for number in range(20_000)}},
        {"target_modules": ["query"] * 20_000},
        {"use_dora": "yes"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": {"a": 1}},
        {"arrow_config": {"x": 1}},
        {"an_option_of_tomorrow": 7},
        {"target_modules": ["query"]},
        {"target_modules": ["query", "value", "key"]},
    ],
)
def test_configs_of_strangers(
    values: dict[str, Any], write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    change(folder, **values)
    said = pulled(folder, tiny)
    refused(said, "Cannot pull theirs@", code=said.code)
    assert said.code in {1, 2}
    assert "\x1b" not in said.err
    assert not mini.exists()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("LORA", "ADALORA")])
def test_sizes_of_strangers(
    kind: str, write: Write, tiny: Callable[[str], str], mini: Path, monkeypatch: Any
) -> None:
    """What a config asks peft to build is bounded, and has to be what the file holds."""
    name = next(name for name in CONFIGS if name.upper() == kind)
    _, folder = write(CONFIGS[name])
    key = {"C3A": "block_size", "FOURIERFT": "n_frequency", "WAVEFT": "n_frequency"}.get(kind, "r")
    monkeypatch.setenv("MTL_LIMITS", "load_elements=10000000")
    for size in (5, 1 << 24):
        change(folder, **{key: size})
        refused(pulled(folder, tiny), "Cannot pull theirs@", code=1)
    assert not mini.exists()


@pytest.mark.parametrize("pattern", ["(.*a+)+$", "(x+x+)+y", "[", "query|value"])
def test_no_expression_of_a_stranger_is_run(
    pattern: str, write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    """Which modules it changes is what its tensors are called."""
    _, folder = write(CONFIGS["lora"])
    change(folder, target_modules=pattern, exclude_modules=pattern, modules_to_save=[pattern])
    entry = get(folder, tiny, mini)
    assert entry.manifest.method_settings["modules"] == "q,v"
    assert any("not its config's pattern" in note for note in entry.manifest.data["notes"])


def test_every_kind_that_is_taken_or_refused_is_one_of_peft() -> None:
    assert {*KINDS, *REFUSED} <= {kind.value for kind in peft.PeftType}
    for kind in REFUSED:
        with pytest.raises(MtlError, match="of which no LoRA is made"):
            read_config({"peft_type": kind})


def test_without_peft(
    write: Write, tiny: Callable[[str], str], mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Products of two matrices need none; what is converted does, and says how to get it."""
    _, folder = write(CONFIGS["lora"])
    _, other = write(CONFIGS["loha"], name="other")
    monkeypatch.setattr("mtl.methods.peft_files.find_spec", lambda _: None)
    refused(pulled(other, tiny), "LOHA adapter is converted through", "pip install peft")
    for module in [name for name in sys.modules if name.split(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, module, None)
    assert get(folder, tiny, mini).manifest.method == "lora"
