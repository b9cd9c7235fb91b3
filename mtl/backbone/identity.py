"""Which base is it, really? What of a model decides its function, and in what two bases differ.

A base is the same function if and only if four things are the same: the weights, the model type,
the keys of its config that decide what is computed with them, and the tokenizer. Its *fingerprint*
is a hash over all four (sources of one encoder), so everything that
groups by fingerprint keeps two functions apart.

Entries of before schema version 3 know the weights alone; their fingerprint *is* the weights' hash.
They are compared by what they know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mtl.data.tokenise import tokenizer_options
from mtl.files import sha256_json, slug

NOT_DECIDING = frozenset(
    {
        # names, and who wrote the file
        "model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "name",
        "version", "language", "license", "tags", "tokenizer_class", "finetuning_task",
        "task_specific_params", "prefix",
        # heads that are not ours: ours have labels and dropout of their own
        "id2label", "label2id", "num_labels", "problem_type", "classifier_dropout",
        "prediction_heads", "adapters", "adapter_config", "custom_heads",
        # what is returned, how, and how much memory that takes
        "return_dict", "output_attentions", "output_hidden_states", "torchscript", "use_cache",
        "gradient_checkpointing", "chunk_size_feed_forward", "attn_implementation",
        "reference_compile",
        # of decoders and of other libraries
        "is_decoder", "is_encoder_decoder", "add_cross_attention", "cross_attention_hidden_size",
        "tie_encoder_decoder", "tie_word_embeddings", "bos_token_id", "eos_token_id",
        "sep_token_id", "cls_token_id", "mask_token_id", "unk_token_id", "decoder_start_token_id",
        "num_decoder_layers", "decoder_layers", "decoder_ffn_dim", "decoder_attention_heads",
        "decoder_layerdrop", "tf_legacy_loss", "use_bfloat16",
    }
)  # fmt: skip
"""Keys of a config that decide nothing of what a frozen encoder computes. Every other key counts,
unknown ones, too: a key too many costs a run, one too few gives another model's result."""


@dataclass(frozen=True)
class Base:
    """Identity of a frozen base, as every manifest records it.

    Attributes:
        id: Hub name, folder name, or ``demo``.
        revision: the Hub commit the weights came from, or None for a folder.
        fingerprint: sha256 of the function: weights, type, config and tokenizer
            (:func:`function_fingerprint`).
        weights: sha256 of the weights as loaded, in fp32, without the pooler.
        pooler: sha256 of the pooler's weights, None where the checkpoint has none.
        config: what of config and tokenizer decides the function
            (:func:`deciding`).
        type: ``transformers`` model type.
        hidden_size: D.
        layers: L.
        tokenizer: sha256 of the tokenizer's state.
    """

    id: str
    revision: str | None
    fingerprint: str
    type: str
    hidden_size: int
    layers: int
    tokenizer: str
    weights: str
    pooler: str | None
    config: Mapping[str, Any]

    @property
    def slug(self) -> str:
        """Folder name of this base in a zoo: its id and the first 8 of its fingerprint."""
        return f"{slug(self.id)}-{self.fingerprint[:8]}"

    def to_dict(self) -> dict[str, Any]:
        """As the manifest stores it."""
        return asdict(self)


def deciding(config: Any, tokenizer: Any) -> dict[str, Any]:
    """What decides the function beside weights and the tokenizer's own state, as JSON.

    Values that are the default of the model type are left out: a file that spells them and one
    that does not are one base, and a default that a later ``transformers`` adds changes nothing.

    Args:
        config: the loaded ``transformers`` config.
        tokenizer: the loaded tokenizer; what it hands to the encoder counts, under ``tokenizer.…``.
    """
    from transformers import GenerationConfig

    # Every config carries these. The padding id is more: RoBERTa counts positions from it.
    ignored = NOT_DECIDING | (GenerationConfig().to_dict().keys() - {"pad_token_id"})
    usual = type(config)().to_dict()
    found = {
        key: value
        for key, value in config.to_dict().items()
        if key not in ignored
        and not key.startswith("_")
        and (key not in usual or usual[key] != value)
    }
    found |= {f"tokenizer.{key}": value for key, value in tokenizer_options(tokenizer).items()}
    # As a manifest holds it: keys that are numbers (of `pruned_heads`) become texts.
    return dict(json.loads(json.dumps(found, sort_keys=True)))


def function_fingerprint(
    weights: str, kind: str, config: Mapping[str, Any], tokenizer: str | None
) -> str:
    """Hex sha256 over the weights' hash, the type, :func:`deciding` and the tokenizer's hash."""
    return sha256_json(
        {"weights": weights, "type": kind, "config": dict(config), "tokenizer": tokenizer}
    )


def knows_function(base: Mapping[str, Any]) -> bool:
    """Whether a manifest's ``base`` says more than the weights (schema version 3)."""
    return "weights" in base


def weights_of(base: Mapping[str, Any]) -> str:
    """Hash of the weights of a manifest's ``base``."""
    return str(base.get("weights", base["fingerprint"]))


def base_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In what two ``base`` sections differ, for messages; empty where they are one function.

    What one of them does not know is not compared.
    """
    found = [
        f"{name} {one[key]} and {other[key]}"
        for key, name in (("type", "type"), ("hidden_size", "hidden size"), ("layers", "layers"))
        if one[key] != other[key]
    ]
    if weights_of(one) != weights_of(other):
        found.append(f"weights {weights_of(one)[:8]} and {weights_of(other)[:8]}")
    ours, theirs = one.get("tokenizer"), other.get("tokenizer")
    if ours and theirs and ours != theirs:
        found.append(f"tokenizer {ours[:8]} and {theirs[:8]}")
    if knows_function(one) and knows_function(other):
        first, second = one["config"], other["config"]
        found += [
            f"{key} {_shown(first, key)} and {_shown(second, key)}"
            for key in sorted({*first, *second})
            if first.get(key, _shown) != second.get(key, _shown)
        ]
    return found


def same_base(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two ``base`` sections are one function, as far as both know."""
    if knows_function(one) and knows_function(other):
        return bool(one["fingerprint"] == other["fingerprint"])
    return not base_differences(one, other)


def _shown(config: Mapping[str, Any], key: str) -> str:
    text = repr(config[key]) if key in config else "its default"
    return text if len(text) <= 60 else f"{text[:57]}…"
