"""Decoders as classifiers: the last real token, padding on either side, pairs by a template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from bases_bench import ready

from mtl.backbone import Network, build_head, load_backbone
from mtl.backbone.arch import archs, find_arch, supported, tiny_config
from mtl.data.pairs import DEFAULT_PAIR, paired, separates
from mtl.errors import RequestError
from mtl.tasks.spec import pair_parts

TYPES = [kind for kind, arch in archs().items() if arch.decoder]
TEXT = "the cat sat on a mat. a dog ran! is it so? yes, it is; no: they walk"


def texts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(5, 60, (size,), generator=generator).tolist() for size in (11, 4, 7, 1)]


def padded(side: str) -> dict[str, torch.Tensor]:
    """The texts as a batch; the padding is a token that stands in texts, too."""
    width = max(map(len, texts()))
    ids, mask = [], []
    for text in texts():
        rest = [9] * (width - len(text))
        empty = [0] * len(rest)
        ids.append(text + rest if side == "right" else rest + text)
        mask.append([1] * len(text) + empty if side == "right" else empty + [1] * len(text))
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@torch.no_grad()
def logits(kind: str, method: str | None, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    encoder = ready(kind)
    if method:
        from mtl.methods import METHODS, attach

        chosen = METHODS.get(method)
        tuned = attach(encoder, chosen, chosen.settings(**chosen.defaults), "mine")
        generator = torch.Generator().manual_seed(5)
        for group in tuned.groups:
            for value in group.parameters.values():
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
        encoder.eval()
    torch.manual_seed(2)
    head = build_head("two_layer", encoder.config, 3, pooler=False)
    return Network(encoder, head).eval()(batch)


@pytest.mark.parametrize("method", [None, "pfeiffer", "lora"])
@pytest.mark.parametrize("kind", [*TYPES, "t5", "mt5"])
def test_left_and_right_padding_give_the_logits_of_each_text_alone(
    kind: str, method: str | None
) -> None:
    right, left = logits(kind, method, padded("right")), logits(kind, method, padded("left"))
    torch.testing.assert_close(right, left, atol=2e-5, rtol=1e-4)
    for row, text in enumerate(texts()):
        ids = torch.tensor([text])
        alone = logits(kind, method, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        torch.testing.assert_close(right[row : row + 1], alone, atol=2e-5, rtol=1e-4)
    assert (right[0] - right[1]).abs().max() > 1e-3


def test_stock_adapters_would_hide_prefixes() -> None:
    """Why the table refuses them on decoders: this fails when adapters mends it."""
    for kind in TYPES:
        assert {"prefix", "unipelt-ap", "unipelt-apl"} <= archs()[kind].refuses.keys()
    plain = logits("gpt2", None, padded("right"))
    assert (logits("gpt2", "prefix", padded("right")) - plain).abs().max() < 1e-6
    ids = torch.tensor(texts()[:1])
    alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    assert (logits("gpt2", "prefix", alone) - plain[:1]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", TYPES)
def test_a_token_sees_those_before_it_alone(kind: str) -> None:
    batch = padded("right")
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][0, 10] = 6 + int(batch["input_ids"][0, 10] == 6)
    with torch.no_grad():
        encoder = ready(kind)
        one, other = (encoder(**given).last_hidden_state[0] for given in (batch, changed))
    assert torch.equal(one[:10], other[:10])
    assert not torch.equal(one[10], other[10])


def words(**specials: str) -> Any:
    """A small byte-level tokenizer, as decoders have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    names = ["input_ids", "attention_mask"]
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=names, **specials
    )


def decoder_folder(folder: Path, kind: str, **specials: str) -> str:
    """A tiny random decoder on disk, whose tokenizer knows no padding and no pairs."""
    tokenizer = words(**specials)
    arch = archs()[kind]
    torch.manual_seed(3)
    config = tiny_config(kind, vocab_size=len(tokenizer), pad_token_id=None)
    model = getattr(transformers, arch.auto).from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_tokenizer_without_padding_pads_with_the_end_of_a_text(tmp_path: Path) -> None:
    backbone = load_backbone(decoder_folder(tmp_path / "gpt2", "gpt2", eos_token="<end>"))
    assert backbone.tokenizer.pad_token_id == backbone.pristine.config.pad_token_id == 1
    with pytest.raises(RequestError, match='"pad_token"'):
        load_backbone(decoder_folder(tmp_path / "none", "gpt2"))


def test_pairs_are_joined_by_the_default_template(tmp_path: Path) -> None:
    tokenizer = load_backbone(
        decoder_folder(tmp_path / "model", "llama", eos_token="<end>")
    ).tokenizer
    plain = words()
    first, second = plain("the cat")["input_ids"], plain("a dog")["input_ids"]
    assert tokenizer("the cat", "a dog")["input_ids"] == [
        *first,
        *plain("\n")["input_ids"],
        *second,
    ]
    assert tokenizer("the cat")["input_ids"] == first
    assert DEFAULT_PAIR == "{first}\n{second}"


def test_a_template_stands_inside_what_begins_every_text() -> None:
    from tokenizers import processors

    tokenizer = words(bos_token="<s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    assert not separates(tokenizer)
    found = paired(tokenizer, "Text: {first} - {second} =")
    ids = found("the cat", "a dog")["input_ids"]
    assert ids[0] == 0
    assert ids.count(0) == 1
    assert tokenizer.decode(ids[1:]) == "Text: the cat - a dog ="
    assert found("a dog")["input_ids"] == tokenizer("a dog")["input_ids"]
    assert separates(found)
    # The texts are cut, the template never.
    short = found("the cat sat on a mat", "a dog ran", truncation="longest_first", max_length=18)
    assert len(short["input_ids"]) == 18
    text = tokenizer.decode(short["input_ids"][1:])
    assert text.startswith("Text: the")
    assert text.endswith(" =")
    assert " - a" in text


def test_a_pair_changes_what_is_encoded_and_its_fingerprint(tmp_path: Path) -> None:
    import dataclasses

    import pyarrow as pa

    from mtl.data import encode
    from mtl.data.new_rows import new_rows
    from mtl.tasks import load_task

    backbone = load_backbone(decoder_folder(tmp_path / "model", "qwen3", eos_token="<end>"))
    spec = load_task("demo/entail")
    rows = pa.table({name: ["a cat", "a dog"] for name in spec.columns})
    plain = encode(new_rows(spec, rows), "new", backbone.tokenizer)
    other = dataclasses.replace(spec, pair="{first} ; {second}")
    joined = encode(new_rows(other, rows), "new", backbone.tokenizer)
    assert plain.fingerprint != joined.fingerprint
    for task, text in ((spec, "a cat\na cat"), (other, "a cat ; a cat")):  # one cache for both
        again = backbone.encode(new_rows(task, rows), "new", tmp_path / "cache")
        assert backbone.tokenizer.decode(again.tokens(0)[0]) == text
    assert backbone.tokenizer.decode(plain.tokens(0)[0]) == "a cat\na cat"
    assert backbone.tokenizer.decode(joined.tokens(0)[0]) == "a cat ; a cat"
    # A task without the key is described as it ever was.
    assert "pair" not in spec.portable()
    assert other.portable()["pair"] == "{first} ; {second}"


@pytest.mark.parametrize(
    "template", ["{first}{second}", "{second} {first}", "{first}", "{first} {second} {first}", "{"]
)
def test_templates_that_cannot_be_read_are_refused(template: str) -> None:
    from mtl.engine.settings import RunSettings

    with pytest.raises(ValueError, match=r"first|encountered"):
        pair_parts(template)
    with pytest.raises(RequestError, match="pair"):
        RunSettings(pair=template)


def test_a_base_with_token_types_joins_pairs_itself() -> None:
    tokenizer = words(eos_token="<end>")
    tokenizer.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    with pytest.raises(RequestError, match="Leave pair out"):
        paired(tokenizer, "{first} | {second}")


def test_a_separator_that_gives_no_token_is_refused(demo_words: Any) -> None:
    with pytest.raises(RequestError, match="makes no token"):
        paired(demo_words, DEFAULT_PAIR)


@pytest.fixture
def demo_words() -> Any:
    from mtl.backbone import load_tokenizer

    return load_tokenizer("demo")


@pytest.mark.parametrize(("kind", "part"), [("gemma3", "gemma3_text"), ("phi3", "random bias")])
def test_other_decoders_are_refused_with_the_reason(kind: str, part: str) -> None:
    assert find_arch(kind) is None
    with pytest.raises(RequestError, match=part):
        supported(kind, "'some'")


@pytest.mark.parametrize("truncate", ["longest", "first"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen3"])
def test_a_text_without_a_token_is_one_of_padding(kind: str, truncate: str, tmp_path: Path) -> None:
    """A tokenizer that puts nothing around texts makes no token of an empty one."""
    import dataclasses

    import numpy as np
    import pyarrow as pa

    from mtl.data.new_rows import new_rows
    from mtl.tasks import load_task

    backbone = load_backbone(decoder_folder(tmp_path / "model", kind, eos_token="<end>"))
    inputs = ("{premise}",) if truncate == "longest" else ("{premise}", "{hypothesis}")
    spec = dataclasses.replace(load_task("demo/entail"), inputs=inputs, truncate=truncate)
    texts = ["", "the cat sat", "", "a dog ran! is it so?"]
    rows = pa.table(dict.fromkeys(spec.columns, texts))
    encoded = backbone.encode(new_rows(spec, rows), "new")
    assert encoded.lengths.min() == 1
    torch.manual_seed(2)
    encoder = backbone.encoder()
    network = Network(encoder, build_head("linear", encoder.config, 2, pooler=False)).eval()
    with torch.no_grad():
        together = network(encoded.collate(np.arange(4)))
        alone = [network(encoded.collate(np.asarray([row]))) for row in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-5, rtol=1e-4)
    assert torch.equal(together[0], together[2])
    if truncate == "longest":
        batch = encoded.collate(np.asarray([0, 2]))
        assert batch["input_ids"].tolist() == [[backbone.tokenizer.pad_token_id]] * 2
        assert batch["attention_mask"].tolist() == [[1]] * 2
        assert [ids.tolist() for ids in encoded.tokens(0)] == [[backbone.tokenizer.pad_token_id]]
