"""Shapes of well-known encoders, so that counting parameters downloads nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtl.backbone.arch import archs
from mtl.backbone.model_files import CONFIG, read_model_files
from mtl.backbone.reference import resolve_model
from mtl.errors import RequestError, ZooError, unknown
from mtl.untrusted import load_json

_BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12}
_ROBERTA = {"type_vocab_size": 1, "max_position_embeddings": 514, "layer_norm_eps": 1e-5}
_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
_LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_DEBERTA = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "vocab_size": 128100,
}

_KNOWN: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base-uncased": ("bert", {**_BERT, **_BASE, "vocab_size": 30522}),
    "bert-base-cased": ("bert", {**_BERT, **_BASE, "vocab_size": 28996}),
    "bert-large-uncased": ("bert", {**_BERT, **_LARGE, "vocab_size": 30522}),
    "bert-large-cased": ("bert", {**_BERT, **_LARGE, "vocab_size": 28996}),
    "roberta-base": ("roberta", {**_ROBERTA, **_BASE, "vocab_size": 50265}),
    "roberta-large": ("roberta", {**_ROBERTA, **_LARGE, "vocab_size": 50265}),
    "xlm-roberta-base": ("xlm-roberta", {**_ROBERTA, **_BASE, "vocab_size": 250002}),
    "xlm-roberta-large": ("xlm-roberta", {**_ROBERTA, **_LARGE, "vocab_size": 250002}),
    "microsoft/deberta-v3-base": ("deberta-v2", {**_DEBERTA, **_BASE}),
    "microsoft/deberta-v3-large": ("deberta-v2", {**_DEBERTA, **_LARGE}),
}
_MODERN = {"vocab_size": 50368, "num_attention_heads": 12}
_T5 = {
    "d_model": 768,
    "num_layers": 12,
    "num_heads": 12,
    "d_ff": 2048,
    "feed_forward_proj": "gated-gelu",
}
_FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "answerdotai/modernbert-base": (
        "modernbert",
        {**_MODERN, "hidden_size": 768, "num_hidden_layers": 22, "intermediate_size": 1152},
    ),
    "answerdotai/modernbert-large": (
        "modernbert",
        {
            **_MODERN,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "intermediate_size": 2624,
            "num_attention_heads": 16,
        },
    ),
    "google/electra-base-discriminator": (
        "electra",
        {**_BASE, "embedding_size": 768, "vocab_size": 30522},
    ),
    "distilbert/distilbert-base-uncased": ("distilbert", {"vocab_size": 30522, "dim": 768}),
    "albert/albert-base-v2": ("albert", {**_BASE, "embedding_size": 128, "vocab_size": 30000}),
    "microsoft/mpnet-base": ("mpnet", {**_BASE, "vocab_size": 30527}),
    "google-t5/t5-base": (
        "t5",
        {"vocab_size": 32128, "d_model": 768, "num_layers": 12, "num_heads": 12, "d_ff": 3072},
    ),
    "google/flan-t5-base": ("t5", {**_T5, "vocab_size": 32128}),
    "google/mt5-base": ("mt5", {**_T5, "vocab_size": 250112}),
    "facebook/bart-base": (
        "bart",
        {
            "vocab_size": 50265,
            "d_model": 768,
            "encoder_layers": 6,
            "encoder_attention_heads": 12,
            "encoder_ffn_dim": 3072,
        },
    ),
    "openai-community/gpt2": ("gpt2", {"vocab_size": 50257}),
    "meta-llama/Llama-2-7b-hf": (
        "llama",
        {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "intermediate_size": 11008,
        },
    ),
    "Qwen/Qwen3-0.6B": (
        "qwen3",
        {
            "vocab_size": 151936,
            "hidden_size": 1024,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 3072,
        },
    ),
}
"""As :data:`_KNOWN`, of which no counts are shipped: this machine counts them once."""
_OWNERS = ("FacebookAI/", "google-bert/")


def _shapes() -> dict[str, tuple[str, dict[str, Any]]]:
    return {**_KNOWN, **_FURTHER}


def known_width(model: str) -> int | None:
    """The hidden size of a model whose shape is built in; None of others. Loads nothing."""
    found = _shapes().get(_built_in(model))
    if found is None:
        return None
    kind, values = found
    return int(values[archs()[kind].names.get("hidden_size", "hidden_size")])


def known_models() -> list[str]:
    """Names whose shapes are built in, and whose counts are shipped."""
    return list(_KNOWN)


def shape_config(model: str) -> Any:
    """The ``transformers`` config of a model: built in, from a folder, or from the Hub's cache.

    Raises:
        RequestError: none of the three; nothing is downloaded.
    """
    from transformers import AutoConfig

    name = _built_in(model)
    if name in _shapes():
        kind, values = _shapes()[name]
        return AutoConfig.for_model(kind, **values)
    reference = resolve_model(model)
    try:
        return read_model_files(reference, fetch=False).config
    except OSError as error:
        raise unknown(
            "model shape",
            model,
            [*_shapes(), "demo"],
            "Give one of these or a folder with a config.json; counting downloads nothing.",
        ) from error


def type_of(model: str) -> str:
    """The model type of a model, or of a type's own name; reads no more than its config.json.

    Raises:
        RequestError: not known, not at hand (nothing is fetched), or damaged.
    """
    name = _built_in(model)
    if name in _shapes():
        return _shapes()[name][0]
    if model in archs() and not Path(model).is_dir():
        return model
    reference = resolve_model(model)
    found: Any = Path(reference.source) / CONFIG
    if not reference.local:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(reference.source, CONFIG, revision=reference.revision)
    if not isinstance(found, str | Path):
        raise unknown(
            "model",
            model,
            [*_shapes(), "demo", *archs()],
            "Give one of these, a folder with a config.json, or a Hub name whose files are here.",
        )
    try:
        value = load_json(Path(found), f"{CONFIG} of model {reference.id!r}", follow=True)
    except (OSError, ZooError) as error:
        raise RequestError(f"Cannot read model {reference.id!r}: {error}") from error
    kind = value.get("model_type") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise RequestError(f"{CONFIG} of model {reference.id!r} says no model_type.")
    return kind


def shape_mark(model: str) -> Any:
    """What changes when the shape of ``model`` does, as JSON; None where only its config says it.

    Raises:
        RequestError: as :func:`~mtl.backbone.reference.resolve_model`.
    """
    name = _built_in(model)
    if name in _shapes():
        return list(_shapes()[name])
    reference = resolve_model(model)
    if not reference.local:
        return None
    path = Path(reference.source).resolve() / CONFIG
    stat = path.stat()
    return [str(path), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]


def _built_in(model: str) -> str:
    """The name under which a shape is built in, if it is; owners and capitals may be left out."""
    name = model.partition("@")[0]
    for owner in _OWNERS:
        name = name.removeprefix(owner)
    known = {key.lower(): key for key in _shapes()}
    short = {key.rpartition("/")[2].removesuffix("-hf"): known[key] for key in known}
    return known.get(name.lower()) or short.get(name.lower()) or name


def skeleton(model: str) -> Any:
    """The encoder of ``model`` on the meta device (no memory, no weights), ready for adapters."""
    import torch

    from mtl.backbone.backbones import check_supported
    from mtl.backbone.building import build, config_to_load
    from mtl.backbone.injection import freeze, init

    config = shape_config(model)
    arch = check_supported(config, model)
    with torch.device("meta"):
        encoder = init(build(config_to_load(config, arch), arch))
    freeze(encoder)
    return encoder
