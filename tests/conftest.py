"""What all tests share: an isolated environment and tiny random encoders on disk.

Tests reach no network, use one thread (so that sums are bit-equal from run to run) and never see
the zoo, the runs or the caches of the person who starts them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MTL_QUIET"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

HIDDEN = 48
LAYERS = 2
WORDS = [
    "a",
    "the",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "river",
    "sees",
    "likes",
    "finds",
    "brings",
    "red",
    "small",
    "old",
    "not",
    "every",
    "some",
    "no",
    "and",
    "is",
    "in",
    "on",
    "big",
    "green",
    "friend",
    "teacher",
    "apple",
    "stone",
    "door",
    "quiet",
    "happy",
    "sad",
    "good",
    "bad",
    "today",
]
SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "deberta-v2": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
    "xlm-roberta": ("<pad>", "<unk>", "<s>", "</s>", "<mask>"),
}


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test with folders of its own and nothing of the caller's settings."""
    # transformers' TrainingArguments leave ACCELERATE_MIXED_PRECISION in the process
    for name in [key for key in os.environ if key.startswith(("MTL_", "ACCELERATE_"))]:
        if name != "MTL_QUIET":
            monkeypatch.delenv(name)
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers have it: tables would be folded
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MTL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    # Tests of counts count; test_known_counts.py is about those that are shipped.
    monkeypatch.setattr("mtl.methods.count.shipped_counts", dict)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """One thread: two cores are shared, and results are then bit-equal."""
    import torch

    torch.set_num_threads(1)


def _tokenizer(kind: str) -> Any:
    """A word-level fast tokenizer with the special tokens of ``kind``."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, unk, cls, sep, mask = SPECIAL[kind]
    # XLM-R and RoBERTa derive positions from the padding id, so it is 1 there, as in the originals.
    special = [pad, unk, cls, sep, mask] if kind in {"bert", "deberta-v2"} else [cls, pad, sep, unk]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    if mask not in vocabulary:
        vocabulary[mask] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unk,
        cls_token=cls,
        sep_token=sep,
        mask_token=mask,
        model_max_length=64,
    )


def _config(kind: str, vocabulary: int, **changes: Any) -> Any:
    from transformers import AutoConfig

    values: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "type_vocab_size": 1,
    }
    if kind == "deberta-v2":
        values |= {
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
        }
    elif kind == "bert":
        values |= {"type_vocab_size": 2}
    else:
        values |= {"pad_token_id": 1, "layer_norm_eps": 1e-5}
    return AutoConfig.for_model(kind, **{**values, **changes})


def save_tiny(folder: Path, kind: str, *, tokenizer: bool = True, **changes: Any) -> Path:
    """Write a tiny random encoder of ``kind``, as ``save_pretrained`` does, and its tokenizer."""
    import torch
    from transformers import AutoModel

    words = _tokenizer(kind)
    torch.manual_seed(7)
    model = AutoModel.from_config(_config(kind, len(words), **changes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Biases and LayerNorms start trivial; a mistake in them would not show.
            if parameter.ndim == 1:
                offset = 1.0 if "LayerNorm.weight" in name else 0.0
                parameter.copy_(offset + 0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if tokenizer:
        words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """``tiny(kind)``: the folder of a tiny encoder of that model type, made once."""
    root = tmp_path_factory.mktemp("encoders")

    def folder(kind: str) -> str:
        path = root / f"tiny-{kind}"
        if not path.is_dir():
            save_tiny(path, kind)
        return str(path)

    return folder


@pytest.fixture(scope="session")
def make_tiny() -> Callable[..., Path]:
    """``make_tiny(folder, kind, tokenizer=True, **config changes)``: an encoder to spoil."""
    return save_tiny


@pytest.fixture(scope="session")
def backbone(tiny: Callable[[str], str]) -> Any:
    """The tiny RoBERTa, loaded."""
    from mtl.backbone import load_backbone

    return load_backbone(tiny("roberta"))


@pytest.fixture
def encoder(backbone: Any) -> Any:
    """A fresh frozen copy of the tiny RoBERTa, ready for adapters."""
    return backbone.encoder()


@pytest.fixture(scope="session")
def tokens(backbone: Any) -> dict[str, Any]:
    """A padded batch of four short sentences for the tiny encoders."""
    texts = [
        "the cat sees a bird",
        "every teacher likes the old house and the river",
        "no dog",
        "some friend brings a small green apple today",
    ]
    batch = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="session")
def jiggle() -> Callable[..., None]:
    """``jiggle(parameters, scale)``: random values, so that zero biases cannot hide mistakes."""
    import torch

    def change(parameters: Any, scale: float = 0.3, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_(scale * noise)

    return change
