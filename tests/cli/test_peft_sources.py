"""Adapters that peft wrote: as entries of lora they answer as peft's own model, or are refused."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from cli_bench import mtl, refused
from hub_bench import hub, proven
from loopback_hub import Hub
from peft.tuners.tuners_utils import BaseTunerLayer
from recommended import follow, provoked, recommends
from safetensors.torch import load_file, save_file

from mtl.backbone import load_backbone
from mtl.backbone.arch import tiny_config
from mtl.errors import MtlError
from mtl.hub.peft_config import KINDS, REFUSED, read_config
from mtl.methods import find_method
from mtl.methods import load as load_adapter
from mtl.methods.method import make_settings
from mtl.runs import load
from mtl.zoo import Entry, open_zoo

__all__ = ["hub"]  # the fixture
HIDDEN, LAYERS = 48, 2
QV = ["query", "value"]
CONFIGS: dict[str, Any] = {
    "lora": peft.LoraConfig(r=3, lora_alpha=5, target_modules=QV, lora_dropout=0.1),
    "lora, rank-stabilised": peft.LoraConfig(r=3, use_rslora=True, target_modules=QV),
    "lora, ranks by pattern": peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["query", "key"],
        rank_pattern={"layer.1.attention.self.query": 4},
        alpha_pattern={"key": 7, "layer.0.attention.self.query": 2},
    ),
    "lora, some layers": peft.LoraConfig(target_modules=QV, layers_to_transform=[1], r=2),
    "lora, by expression": peft.LoraConfig(target_modules=r".*\.(query|key)", r=2),
    "lora, everywhere it can be": peft.LoraConfig(
        target_modules=r".*(query|key|value|intermediate\.dense|layer\.\d\.output\.dense)", r=2
    ),
    "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=QV),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, target_modules=QV),
    "loha": peft.LoHaConfig(r=3, alpha=4, target_modules=QV),
    "lokr": peft.LoKrConfig(r=2, alpha=4, target_modules=QV, decompose_both=True),
    "vera": peft.VeraConfig(r=8, target_modules=QV, projection_prng_key=3),
    "vera, drawn again": peft.VeraConfig(r=8, target_modules=QV, save_projection=False),
    "randlora": peft.RandLoraConfig(r=8, target_modules=QV),
    "c3a": peft.C3AConfig(block_size=16, target_modules=QV),
    "fourierft": peft.FourierFTConfig(n_frequency=40, scaling=50.0, target_modules=QV),
    "waveft": peft.WaveFTConfig(n_frequency=40, target_modules=QV),
    "miss": peft.MissConfig(r=8, target_modules=QV),
    "miss, bat": peft.MissConfig(r=8, init_weights="bat", target_modules=QV),
    "miss, mini": peft.MissConfig(r=8, mini_r=4, init_weights="mini", target_modules=QV),
}  # fmt: skip
PRODUCTS = ("lora", "adalora")
Write = Callable[..., tuple[Any, Path]]


@pytest.fixture(scope="module")
def folder_of(
    tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """The folder of a tiny model of any type, with RoBERTa's words where it has none of its own."""
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("types")

    def folder(kind: str) -> str:
        if kind in ("bert", "roberta", "xlm-roberta", "deberta-v2"):
            return tiny(kind)
        if not (root / kind).is_dir():
            shutil.copytree(tiny("roberta"), root / kind)
            words = len(load_backbone(tiny("roberta")).tokenizer)
            torch.manual_seed(7)
            config = tiny_config(kind, vocab_size=words, pad_token_id=1)
            AutoModel.from_config(config).save_pretrained(root / kind)
        return str(root / kind)

    return folder


@pytest.fixture
def write(folder_of: Callable[[str], str], tmp_path: Path, jiggle: Any) -> Write:
    """A model of transformers under peft, with a head where ``task`` is one, and what it saves."""

    def make(
        config: Any,
        kind: str = "roberta",
        task: str | None = "SEQ_CLS",
        labels: int = 2,
        name: str = "theirs",
    ) -> tuple[Any, Path]:
        from transformers import AutoModel, AutoModelForSequenceClassification

        torch.manual_seed(1)
        source = folder_of(kind)
        if task is None:
            model = AutoModel.from_pretrained(source)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)
        config = type(config)(**{**config.to_dict(), "task_type": task})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = peft.get_peft_model(model, config)
        trained = {key: p for key, p in tuned.named_parameters() if p.requires_grad}
        jiggle([p for key, p in trained.items() if "magnitude" not in key], 0.2)
        with torch.no_grad():
            for key, parameter in trained.items():
                if "magnitude" in key:  # as training moves it: a little
                    parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
        folder = tmp_path / name
        tuned.save_pretrained(str(folder))
        return tuned.eval(), folder

    return make


def get(place: object, tiny: Any, zoo: Path, *more: object, kind: str = "roberta") -> Entry:
    line = ["pull", "--peft", place, "--model", tiny(kind), "--zoo", zoo, *more]
    said = mtl("zoo", *line, "--json")
    assert said.code == 0, said
    (entry,) = said.json["repositories"][0]["entries"]
    return open_zoo(zoo).get(entry["ref"])


def logits(entry: Entry, zoo: Path, base: str, tokens: Any) -> torch.Tensor:
    with torch.no_grad():
        return load(entry, open_zoo(zoo), load_backbone(base)).attached.logits(dict(tokens))


def again(folder: Path, base: str, tokens: Any, labels: int = 2) -> torch.Tensor:
    """What peft answers with the stored adapter on the stored model; that it does something."""
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    model = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        found = model(**tokens).logits
        wrapped = model.base_model.model
        layers = [m for m in wrapped.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        assert (wrapped(**tokens).logits - found).abs().max() > 1e-3
    return found


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


def inside(entry: Entry, model: Any, base: str, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer of the encoder with the stored adapter, and of peft's model."""
    encoder, method = load_backbone(base).encoder(), find_method("lora")
    settings = make_settings("lora", method.settings, entry.manifest.method_settings)
    load_adapter(encoder, method, settings, "theirs", entry.folder, active=True)
    theirs = model.base_model.model
    theirs = getattr(theirs, theirs.base_model_prefix, theirs)
    with torch.no_grad():
        expected = theirs(**tokens).last_hidden_state
        return encoder(**tokens).last_hidden_state, expected


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


def change(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def pulled(place: object, tiny: Any, *more: object, kind: str = "roberta") -> Any:
    return mtl("zoo", "pull", "--peft", place, "--model", tiny(kind), *more)


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
    said = mtl("train", "--suite", "mini", "--model", folder)
    refused(said, "makes it an adapter")
    message = provoked(said.err, "backbone/model_files.py", "Such an adapter goes into a zoo with")
    said = follow(message, MODEL=tiny("roberta"))
    assert said.code == 0, said
    (entry,) = open_zoo(mini).entries()
    assert entry.manifest.method == "lora"


@recommends("hub/peft_config.py", "holds an adapter that peft wrote")
@recommends("hub/peft_sources.py", "Pull them as they are")
def test_who_pulls_one_as_the_other(
    hub: Hub, write: Write, tiny: Callable[[str], str], mini: Path
) -> None:
    _, folder = write(CONFIGS["lora"])
    hub.put(REPO, {path.name: path.read_bytes() for path in folder.iterdir()})
    for more in ([], ["--model", tiny("roberta")]):
        said = mtl("zoo", "pull", REPO, *more)
        message = provoked(said.err, "hub/peft_config.py", "holds an adapter that peft wrote")
        assert follow(message, MODEL=tiny("roberta")).code == 0
    entry = proven(open_zoo(mini))
    assert mtl("zoo", "push", entry.ref, "--repo", "ada/ours").code == 0
    shutil.rmtree(mini)
    said = pulled("hub:ada/ours", tiny)
    message = provoked(said.err, "hub/peft_sources.py", "Pull them as they are")
    assert follow(message).code == 0
    assert open_zoo(mini).get(entry.ref) == entry


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
