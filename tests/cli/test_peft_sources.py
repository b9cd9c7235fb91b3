"""Adapters that peft wrote: as entries of lora they answer as peft's own model, or are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from cli_bench import mtl, refused
from hub_bench import hub, proven
from loopback_state import Hub
from peft_bench import (
    CONFIGS,
    HIDDEN,
    LAYERS,
    QV,
    Write,
    again,
    change,
    folder_of,
    get,
    inside,
    logits,
    pulled,
    write,
)
from recommended import follow, provoked, recommends
from safetensors.torch import load_file

from mtl.zoo import open_zoo

__all__ = ["folder_of", "hub", "write"]  # the fixtures


@pytest.mark.parametrize("name", CONFIGS)
def test_theirs_answers_the_same_here(
    name: str, write: Write, tiny: Callable[[str], str], tokens: Any, tmp_path: Path
) -> None:
    """Logits within 5e-6 of peft's own: fp32, over two layers."""
    _, folder = write(CONFIGS[name])
    expected = again(folder, tiny("roberta"), tokens)
    zoo = tmp_path / "zoo"
    entry = get(folder, tiny, zoo)
    manifest = entry.manifest
    assert (manifest.method, manifest.head["design"]) == ("lora", "two_layer")
    assert manifest.verified is None
    found = logits(entry, zoo, tiny("roberta"), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    record = manifest.data["converted"]
    assert record["kind"] == json.loads((folder / "adapter_config.json").read_text())["peft_type"]
    assert record["largest_error"] == max(one["error"] for one in record["sites"].values()) <= 1e-6
    assert max(one["rank"] for one in record["sites"].values()) == record["rank"]
    assert record["rank"] == manifest.method_settings["rank"]
    assert open_zoo(zoo).fsck() == []
    assert get(folder, tiny, zoo) == entry  # again: nothing to do
    assert "Not trained here" in (entry.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["loha", "lokr", "vera", "fourierft", "miss"])
def test_the_same_as_pefts_own_conversion(
    name: str, write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model, folder = write(CONFIGS[name])
    entry = get(folder, tiny, tmp_path / "zoo")
    rank = entry.manifest.method_settings["rank"]
    _, theirs = peft.convert_to_lora(model, rank=HIDDEN)
    ours = load_file(entry.folder / "adapter.safetensors")
    pairs = {key for key in theirs if key.endswith("lora_A.weight")}
    assert len(pairs) == len(ours) // 2 == 2 * LAYERS
    for key in pairs:
        expected = theirs[key.replace("lora_A", "lora_B")] @ theirs[key]
        place = key.removeprefix("base_model.model.roberta.").removesuffix("lora_A.weight")
        down = ours[f"{place}loras.foreign.lora_A"]
        assert len(down) == rank
        found = ours[f"{place}loras.foreign.lora_B"] @ down
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_pefts_own_conversion_forgets_what_dora_scales(write: Write) -> None:
    """Why it is not used: no error, and another function."""
    model, _ = write(CONFIGS["dora"])
    _, theirs = peft.convert_to_lora(model, rank=HIDDEN)
    key = "base_model.model.roberta.encoder.layer.0.attention.self.query"
    module = model.base_model.model.roberta.encoder.layer[0].attention.self.query
    unit = torch.eye(HIDDEN)
    with torch.no_grad():
        real = (module(unit) - module.get_base_layer()(unit)).t()
    said = theirs[f"{key}.lora_B.weight"] @ theirs[f"{key}.lora_A.weight"]
    assert (said - real).norm() > 0.05 * real.norm()


def test_the_numbers_of_a_lora_stay_bit_for_bit(
    write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    entry = get(folder, tiny, tmp_path / "zoo")
    assert entry.manifest.method_settings == {
        "rank": 3, "alpha": 5.0, "dropout": 0.1, "modules": "q,v",
    }  # fmt: skip
    theirs = load_file(folder / "adapter_model.safetensors")
    ours = load_file(entry.folder / "adapter.safetensors")
    for key, value in theirs.items():
        if ".lora_" in key:
            name = key.removeprefix("base_model.model.roberta.").replace(
                ".lora", ".loras.foreign.lora"
            )
            assert torch.equal(ours[name.removesuffix(".weight")], value)


TYPES: dict[str, tuple[list[str], str | None]] = {
    "bert": (QV, "pooler_linear"),
    "albert": (QV, "pooler_linear"),
    "xlm-roberta": (QV, "two_layer"),
    "camembert": (["query", "intermediate.dense"], "two_layer"),
    "mpnet": (["attn.q", "attn.v"], "two_layer"),
    "deberta-v2": (["query_proj", "value_proj"], None),
    "electra": (QV, None),
    "distilbert": (["q_lin", "lin1", "lin2"], None),
    "modernbert": (["Wqkv"], None),
    "gpt2": (["c_attn", "c_fc"], "linear"),
    "llama": (["q_proj", "v_proj"], "linear"),
    "qwen3": (["q_proj", "k_proj", "up_proj", "down_proj"], "linear"),
    "gemma3_text": (["q_proj", "v_proj"], "linear"),
}
"""Model type → modules, and the design of ours that its head is."""


@pytest.mark.parametrize("method", ["lora", "loha"])
@pytest.mark.parametrize("kind", TYPES)
def test_other_types(
    kind: str, method: str, write: Write, folder_of: Callable[[str], str], tokens: Any, mini: Path
) -> None:
    """What is changed inside, fused modules too; and heads, where they are the same."""
    modules, design = TYPES[kind]
    if (kind, method) == ("gpt2", "loha"):
        method = "dora"  # peft has no LoHa for its transposed linears
    config = {
        "lora": peft.LoraConfig(r=2, target_modules=modules),
        "loha": peft.LoHaConfig(r=2, target_modules=modules),
        "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=modules),
    }[method]
    model, folder = write(config, kind, labels=3)
    entry = get(folder, folder_of, mini, "--name", "moods", kind=kind)
    assert entry.manifest.task["id"] == "foreign/moods"
    found, expected = inside(entry, model, folder_of(kind), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    assert entry.manifest.head["design"] == design
    if design is None:
        assert "Its head was left out" in entry.manifest.data["notes"][-1]
        return
    assert entry.manifest.task["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    with torch.no_grad():
        expected = model(**tokens).logits
    found = logits(entry, mini, folder_of(kind), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_a_trained_pooler_is_a_layer_of_the_head(
    write: Write, tiny: Callable[[str], str], tokens: Any, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=2, target_modules=QV, modules_to_save=["pooler", "classifier"])
    _, folder = write(config, "bert")
    entry = get(folder, tiny, tmp_path / "zoo", kind="bert")
    assert entry.manifest.head["design"] == "two_layer"
    found = logits(entry, tmp_path / "zoo", tiny("bert"), tokens)
    torch.testing.assert_close(found, again(folder, tiny("bert"), tokens), rtol=0, atol=5e-6)


def test_without_a_head(
    write: Write, tiny: Callable[[str], str], tokens: Any, tmp_path: Path, make_tiny: Any
) -> None:
    """Of a bare encoder, whose config names a class that peft would import; of other tasks."""
    model, folder = write(CONFIGS["loha"], task=None)
    assert json.loads((folder / "adapter_config.json").read_text())["auto_mapping"]
    entry = get(folder, tiny, tmp_path / "zoo")
    assert entry.manifest.head == {"design": None, "name": None}
    assert "holds no prediction head" in entry.manifest.data["notes"][-1]
    found, expected = inside(entry, model, tiny("roberta"), tokens)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    shutil.rmtree(folder)
    _, folder = write(CONFIGS["lora"], task="SEQ_CLS")
    change(folder, task_type="TOKEN_CLS")
    entry = get(folder, tiny, tmp_path / "zoo")
    assert "of a model for TOKEN_CLS" in entry.manifest.data["notes"][-1]


def test_a_base_of_another_name_is_said(
    write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    assert "It says" not in pulled(folder, tiny, "--dry-run").out
    change(folder, base_model_name_or_path="somebody/else\x1b[31m")
    said = pulled(folder, tiny)
    assert said.code == 0
    assert "It says that it was trained on somebody/else\N{REPLACEMENT CHARACTER}[31m" in said.out
    assert "LORA as a LoRA of rank 3 at q,v, by mtl" in said.out
    (entry,) = open_zoo(mini).entries()
    assert "which is another name" in entry.manifest.data["notes"][3]
    change(folder, base_model_name_or_path="/home/ada/models/tiny-bert/")
    said = pulled(folder, tiny)
    assert "trained on tiny-bert, and" in said.out
    assert not any("/home/ada" in str(e.manifest.to_dict()) for e in open_zoo(mini).entries())
    change(folder, base_model_name_or_path="/home/ada/models/tiny-roberta/model")
    assert "trained on" not in pulled(folder, tiny).out


REPO = "ada/theirs"


def test_from_the_hub(
    hub: Hub, write: Write, tiny: Callable[[str], str], mini: Path, tokens: Any
) -> None:
    _, folder = write(CONFIGS["loha"])
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.put(REPO, {**files, **{f"more/{name}": data for name, data in files.items()}})
    entry = get(f"hub:{REPO}", tiny, mini, "more", "--seed", "3", "--protocol", "official")
    assert f"--peft hub:{REPO}@" in entry.manifest.command
    assert f"pulled from {REPO}, commit" in entry.manifest.data["notes"][0]
    assert "folder more" in entry.manifest.data["notes"][0]
    assert (entry.manifest.seed, entry.manifest.data["protocol"]) == (3, "official")
    found = logits(entry, mini, tiny("roberta"), tokens)
    torch.testing.assert_close(found, again(folder, tiny("roberta"), tokens), rtol=0, atol=5e-6)
    refused(pulled(f"hub:{REPO}", tiny, "less"), "holds no adapter 'less'")
    refused(pulled(f"hub:{REPO}@nothing", tiny), "nothing")
    refused(pulled("hub:ada", tiny), "user/name")
    refused(pulled(folder / "nowhere", tiny), "no such folder")
    refused(pulled(tiny("bert"), tiny), "holds no adapter_config.json")
    both = pulled(f"hub:{REPO}", tiny, "--json")
    assert both.code == 0
    assert len(both.json["repositories"][0]["entries"]) == 2


@recommends("backbone/model_files.py", "Such an adapter goes into a zoo with")
def test_an_adapter_in_the_place_of_a_model(
    write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    shutil.copy(Path(tiny("roberta")) / "config.json", folder)  # else it is no model's folder
    there = mini.with_name("another")
    said = mtl("train", "--suite", "mini", "--model", folder, "--zoo", there)
    refused(said, "makes it an adapter")
    message = provoked(said.err, "backbone/model_files.py", "Such an adapter goes into a zoo with")
    said = follow(message, MODEL=tiny("roberta"))
    assert said.code == 0, said
    (entry,) = open_zoo(there).entries()
    assert entry.manifest.method == "lora"


@recommends("hub/peft_config.py", "holds an adapter that peft wrote")
@recommends("hub/peft_sources.py", "Pull them as they are")
def test_who_pulls_one_as_the_other(
    hub: Hub, write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    hub.put(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    there = ["--zoo", mini.with_name("another")]
    for more in ([], ["--model", tiny("roberta")]):
        said = mtl("zoo", "pull", REPO, *more, *there)
        message = provoked(said.err, "hub/peft_config.py", "holds an adapter that peft wrote")
        assert follow(message, MODEL=tiny("roberta")).code == 0
    assert open_zoo(there[1]).entries()
    assert not mini.exists()
    entry = proven(open_zoo(mini))
    assert mtl("zoo", "push", entry.ref, "--repo", "ada/ours").code == 0
    shutil.rmtree(there[1])
    said = pulled("hub:ada/ours", tiny, *there)
    message = provoked(said.err, "hub/peft_sources.py", "Pull them as they are")
    assert follow(message).code == 0
    assert open_zoo(there[1]).get(entry.ref).digest == entry.digest


def test_options_that_do_not_go_together(tiny: Callable[[str], str]) -> None:
    line = ["zoo", "pull", "--peft", "x", "--model", tiny("roberta")]
    refused(mtl(*line, "--lock", "a"), "--peft and --lock")
    refused(mtl(*line, "--allow-bin"), "--peft and --allow-bin")
    refused(mtl("zoo", "pull", "a/b", "--rank", "3"), "are of --peft PLACE")
    refused(mtl(*line, "--name", "My Mood"), "write for example my-mood")
    refused(mtl(*line, "--name", "mood", "--task", "mini/mood"), "as the task that --task names")


def test_theirs_is_evaluated_composed_exported_and_pushed(
    write: Write, hub: Hub, tiny: Callable[[str], str], mini: Path, tokens: Any, tmp_path: Path
) -> None:
    """As any entry: with answers of its own, a source of ScaLearn beside one trained here."""
    _, folder = write(CONFIGS["vera"])
    line = ["--task", "mini/mood", "--evaluate"]
    theirs = get(folder, tiny, mini, *line, "--seed", "1")
    assert set(theirs.manifest.metrics) == {"dev", "test"}
    assert theirs.manifest.data["protocol"] == "official"
    assert theirs.manifest.data["splits"]["train"] == ""
    assert set(theirs.manifest.data["sizes"]) == {"dev", "test"}
    assert theirs.manifest.headline() is not None
    said = mtl("zoo", "verify", theirs.ref, "--json")
    assert said.code == 0, said
    assert said.json["verified"][0]["max_logit_difference"] == 0.0
    assert mtl("zoo", "push", theirs.ref, "--repo", "ada/ours").code == 0
    plain = get(folder, tiny, mini, "--task", "mini/mood", "--seed", "1")
    assert plain.ref != theirs.ref
    refused(pulled(folder, tiny, "--evaluate"), "--task TASK")
    settings = ["--method", "lora", "--set", "rank=2", "--epochs", "1"]
    assert mtl("train", "--task", "mini/shared", *settings).code == 0
    trained = next(entry for entry in open_zoo(mini).entries() if entry.manifest.seed == 0)
    names = [
        f"{entry.manifest.task['name']}:{entry.ref.split('/', 3)[3]}" for entry in (trained, theirs)
    ]
    for method in ("scalearn", "scalearn++"):
        said = mtl(
            "compose", "--target", "mini/same", "--method", method, "--sources", *names,
            "--epochs", "1", "--json",
        )  # fmt: skip
        assert said.code == 0, said
        assert set(said.json["sources"]) == {trained.ref, theirs.ref}
        ref = next(e.ref for e in open_zoo(mini).entries() if e.manifest.method == method)
        assert mtl("zoo", "verify", ref).code == 0
        for form in ("adapters", "peft"):
            done = mtl("export", ref, tmp_path / f"{method}-{form}", "--to", form)
            assert done.code == 0, done
    done = mtl("export", theirs.ref, tmp_path / "back", "--to", "peft")
    assert done.code == 0, done
    back = get(tmp_path / "back", tiny, mini, "--name", "back")
    assert back.manifest.data["converted"]["kind"] == "LORA"
    assert open_zoo(mini).fsck() == []
