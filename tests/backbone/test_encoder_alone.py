"""Encoders of encoder-decoders, without their decoders: T5, mT5, BART and mBART."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from bases_bench import pristine, ready
from safetensors.torch import load_file, save_file
from torch import nn

from mtl.backbone import load_backbone
from mtl.backbone.arch import archs, tiny_config
from mtl.backbone.held_encoder import held_encoder
from mtl.backbone.linear import linear_paths
from mtl.data import load_data
from mtl.errors import RequestError
from mtl.methods import METHODS, attach
from mtl.study.smoke import word_tokenizer
from mtl.tasks import load_task

KINDS = {"t5": "T5", "mt5": "MT5"}
BARTS = {"bart": "BartForConditionalGeneration", "mbart": "MBartForConditionalGeneration"}


def write(kind: str, folder: Path, **values: Any) -> tuple[str, str]:
    """The folders of a tiny encoder-decoder and of its encoder alone."""
    words = word_tokenizer()
    config = tiny_config(
        kind, vocab_size=len(words), pad_token_id=words.pad_token_id, num_decoder_layers=3,
        decoder_start_token_id=words.pad_token_id, **values,
    )  # fmt: skip
    torch.manual_seed(5)
    whole = getattr(transformers, f"{KINDS[kind]}ForConditionalGeneration")(config)
    paths = folder / "whole", folder / "encoder"
    whole.save_pretrained(paths[0])
    alone = getattr(transformers, f"{KINDS[kind]}EncoderModel").from_pretrained(paths[0])
    alone.save_pretrained(paths[1])
    for path in paths:
        words.save_pretrained(path)
    return str(paths[0]), str(paths[1])


def write_bart(kind: str, folder: Path, **values: Any) -> str:
    """The folder of a tiny BART or mBART."""
    words = word_tokenizer()
    values = {"decoder_layers": 3, **values}
    config = tiny_config(kind, vocab_size=len(words), pad_token_id=words.pad_token_id, **values)
    torch.manual_seed(5)
    getattr(transformers, BARTS[kind])(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", BARTS)
def test_the_encoder_of_a_bart_is_what_its_decoder_reads(
    kind: str, scaled: bool, tmp_path: Path
) -> None:
    """Its scaled embeddings and its positions (the first is the third row) with it."""
    folder = write_bart(kind, tmp_path / "whole", scale_embedding=scaled)
    backbone = load_backbone(folder)
    ids = torch.tensor([[0, 5, 7, 9, 2], [0, 6, 2, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    whole = getattr(transformers, BARTS[kind]).from_pretrained(folder).eval()
    with torch.no_grad():
        expected = whole(**inputs).encoder_last_hidden_state
        for encoder in (backbone.pristine, backbone.encoder()):
            assert torch.equal(encoder(**inputs).last_hidden_state, expected)
    assert (backbone.base.type, backbone.base.layers, backbone.base.pooler) == (kind, 2, None)
    assert not any("decoder" in name for name, _ in backbone.pristine.named_parameters())
    before = backbone.base.fingerprint
    change(folder, "model.decoder.layers.2.fc1.weight")
    assert load_backbone(folder).base.fingerprint == before
    change(folder, "model.shared.weight")
    assert load_backbone(folder).base.fingerprint != before
    other = write_bart(kind, tmp_path / "scaled", scale_embedding=not scaled)
    assert load_backbone(other).base.fingerprint != before


def test_of_a_bart_nothing_but_the_encoder_need_be_there(tmp_path: Path) -> None:
    folder = write_bart("bart", tmp_path / "whole")
    before = load_backbone(folder).base
    file = Path(folder) / "model.safetensors"
    tensors = load_file(file)
    kept = {name: value for name, value in tensors.items() if "decoder" not in name}
    save_file(kept, file, {"format": "pt"})
    assert load_backbone(folder).base.fingerprint == before.fingerprint
    # facebook/bart-large-cnn has its embeddings under the decoder's name alone.
    moved = {
        name.replace("model.shared.", "model.decoder.embed_tokens."): value
        for name, value in tensors.items()
    }
    save_file(moved, file, {"format": "pt"})
    assert load_backbone(folder).base.fingerprint == before.fingerprint
    save_file({k: v for k, v in kept.items() if "layers.1.fc2" not in k}, file, {"format": "pt"})
    with pytest.raises(RequestError, match=r"2 missing \(encoder\.layers\.1\.fc2"):
        load_backbone(folder)


def test_layers_are_counted_where_they_are_built(tmp_path: Path) -> None:
    folder = write_bart("bart", tmp_path / "whole")
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    assert load_backbone(folder).base.layers == 2
    config["encoder_layers"] = 10**9
    (tmp_path / "whole" / "config.json").write_text(json.dumps(config))
    with pytest.raises(RequestError, match="encoder_layers"):
        load_backbone(folder)


def change(folder: str, name: str) -> None:
    """Another value of one tensor."""
    file = Path(folder) / "model.safetensors"
    tensors = load_file(file)
    tensors[name] = tensors[name] + 0.25
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_decoder_is_the_base_that_its_encoder_is(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    whole, alone = write(kind, tmp_path, tie_word_embeddings=tied)
    bases = [load_backbone(folder).base for folder in (whole, alone)]
    assert bases[0].fingerprint == bases[1].fingerprint
    assert (bases[0].type, bases[0].layers, bases[0].hidden_size) == (kind, 2, 48)
    assert bases[0].pooler is None
    theirs = getattr(transformers, f"{KINDS[kind]}ForConditionalGeneration")
    ids = torch.tensor([[5, 7, 9, 2], [6, 2, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    with torch.no_grad():
        expected = theirs.from_pretrained(whole).eval().get_encoder()(**inputs)
        found = load_backbone(whole).encoder()(**inputs)
    assert torch.equal(found.last_hidden_state, expected.last_hidden_state)
    assert not any("decoder" in name for name, _ in load_backbone(whole).encoder().named_modules())


def test_the_fingerprint_has_what_the_layers_share_and_nothing_of_the_decoder(
    tmp_path: Path,
) -> None:
    whole, alone = write("t5", tmp_path)
    before = load_backbone(whole).base.fingerprint
    change(whole, "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
    assert load_backbone(whole).base.fingerprint == before
    shared = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    change(whole, shared)
    assert load_backbone(whole).base.fingerprint != before
    tensors = load_file(Path(alone) / "model.safetensors")
    del tensors[shared]
    save_file(tensors, Path(alone) / "model.safetensors", {"format": "pt"})
    with pytest.raises(RequestError, match="relative_attention_bias"):
        load_backbone(alone)


def test_a_gated_ffn_has_its_first_linear_elsewhere() -> None:
    def paths(kind: str) -> list[str]:
        return list(linear_paths(ready(kind), ["intermediate"]).values())

    assert pristine("mt5").config.is_gated_act
    assert not pristine("t5").config.is_gated_act
    end = "layer.1.DenseReluDense"
    assert paths("t5") == [f"encoder.block.{layer}.{end}.wi" for layer in range(2)]
    assert paths("mt5") == [f"encoder.block.{layer}.{end}.wi_1" for layer in range(2)]


def test_adapters_shifts_what_is_looked_at_by_a_prefix() -> None:
    """Why the table refuses prefixes: this fails when adapters mends it."""
    assert {"prefix", "unipelt-ap", "unipelt-apl"} <= archs()["t5"].refuses.keys()
    ids = torch.tensor([[7, 9, 11, 13, 15, 17]])
    found = []
    for length in (0, 3):
        encoder = ready("t5")
        if length:
            prefix = METHODS.get("prefix")
            attach(encoder, prefix, prefix.settings(prefix_length=length), "mine")
            encoder.eval()
        attention = encoder.encoder.block[0].layer[0].SelfAttention
        attention.register_forward_hook(lambda _, args, out: found.append(out[1].detach()))
        with torch.no_grad():
            encoder(input_ids=ids)
    plain, moved = found[0][0], found[1][0][:, :, 3:]
    assert moved.shape == plain.shape
    # Token 3 stands, to the one that looks from 0, where token 6 would.
    torch.testing.assert_close(moved[:, 0, :3], plain[:, 0, 3:])
    assert not torch.allclose(moved, plain)


@pytest.mark.parametrize("kind", [*KINDS, "mbart"])
def test_layers_clamp_what_overflows_in_fp16_as_ever(kind: str) -> None:
    """BART's do, too, behind a LayerNorm, which leaves nothing to clamp."""
    encoder, plain = ready(kind).half(), copy.deepcopy(pristine(kind)).half()
    (_, layer), *_ = encoder.iter_layers()
    (name,) = (name for name, module in encoder.named_modules() if module is layer)
    layers = layer, plain.get_submodule(name)
    inputs = torch.linspace(-9, 9, 3 * 48).half().reshape(1, 3, 48)
    more: dict[str, Any] = {"layer_head_mask": None}
    if kind in KINDS:
        more["cache_position"] = torch.arange(3)
    found = []
    with torch.no_grad():
        for own in layers:
            own.get_submodule(archs()[kind].linears["output"]).weight.mul_(60_000)
            if kind == "mbart":
                own.fc1.weight.mul_(1_000)
            found.append(own(inputs, torch.zeros(1, 1, 3, 3).half(), **more)[0])
    assert found[0].dtype == torch.float16
    assert torch.equal(found[0], found[1])
    assert found[0].abs().max() == torch.finfo(torch.float16).max - 1000


def test_a_forward_pass_says_nothing_about_old_names() -> None:
    encoder = ready("t5")
    with warnings.catch_warnings(record=True) as said:
        encoder(input_ids=torch.tensor([[7, 9]]))
    assert not said


def test_four_bits_are_not_for_what_is_cast_to_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """T5 casts the FFN's inner states to the type of its last weight, which is no number here."""

    class Linear4bit(nn.Linear):
        def __init__(self, wide: int, out: int, **more: Any) -> None:
            super().__init__(wide, out, bias=more["bias"], device="meta")

    stand_in = ModuleType("bitsandbytes")
    stand_in.nn = ModuleType("bitsandbytes.nn")  # type: ignore[attr-defined]
    stand_in.nn.Linear4bit = Linear4bit  # type: ignore[attr-defined]
    stand_in.nn.Params4bit = lambda w, **_: nn.Parameter(w.byte(), requires_grad=False)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", stand_in.nn)
    for kind, small in (("t5", {"q", "k", "v", "o", "wi"}), ("bert", {"query", "key", "value"})):
        encoder = held_encoder(copy.deepcopy(pristine(kind)), "nf4")
        found = {
            name.rpartition(".")[2]
            for name, parameter in encoder.named_parameters()
            if parameter.dtype == torch.uint8
            for name in [name.removesuffix(".weight")]
        }
        assert small <= found
        assert "wo" not in found


def own_words(folder: Path) -> None:
    """A tokenizer as T5's are: a text and each of a pair end in </s>, sentinels at the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [
        "<pad>",
        "</s>",
        "<unk>",
        *(f"▁{word}" for word in ["the", "cat", "dog", "sees", "a", "bird"]),
    ]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "T5Tokenizer", "extra_ids": 4, "model_max_length": 512}
    said |= {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))


def test_pairs_are_those_of_its_own_tokenizer(tmp_path: Path) -> None:
    folder = Path(write("t5", tmp_path)[0])
    for file in folder.glob("*token*"):
        file.unlink()
    own_words(folder)
    config = json.loads((folder / "config.json").read_text())
    # The embedding of a real one has rows that no token uses.
    assert config["vocab_size"] > 13
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 0}))
    tokenizer = load_backbone(str(folder)).tokenizer
    assert type(tokenizer).__name__ == "T5TokenizerFast"
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    pair = tokenizer("the cat", "a dog")
    assert tokenizer.convert_ids_to_tokens(pair["input_ids"]) == [
        "▁the", "▁cat", "</s>", "▁a", "▁dog", "</s>",
    ]  # fmt: skip
    assert "token_type_ids" not in pair
    data = load_data(load_task("demo/paraphrase"), max_eval_samples=5)
    encoded = load_backbone(str(folder)).encode(data, "dev", cache=tmp_path / "cache")
    assert encoded.types is None
