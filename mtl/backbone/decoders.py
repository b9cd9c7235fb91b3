"""The decoders of the :class:`~mtl.backbone.arch_row.Arch` table, as classifiers.

A token sees those before it, so that a head reads the last real one. None of them has token types
or a LayerNorm behind attention or FFN.
"""

from __future__ import annotations

from dataclasses import replace

from mtl.backbone.arch_row import Arch

_PRE_NORM = "its layers normalise before attention and FFN, so that no LayerNorm stands behind one"
_NO_PREFIX = "adapters gets into it through an interface, which has no place for prefixes"
_NO_BIAS = "its linears and norms have no biases"
_HIDDEN = (
    "in a padded batch the classes of adapters for it hide prefixes, so that a text alone has "
    "another answer"
)
_HOOKED = {"prefix": _NO_PREFIX, "unipelt-ap": _NO_PREFIX, "unipelt-apl": _NO_PREFIX}
_PREFIXES = dict.fromkeys(_HOOKED, _HIDDEN)

_LLAMA = Arch(
    "llama",
    heads="LlamaAdapterModel",
    linears={
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "attention": "self_attn.o_proj",
        "intermediate": "mlp.up_proj",
        "output": "mlp.down_proj",
    },
    # The classes of adapters call them the other way round.
    lora_names={"intermediate": "output", "output": "intermediate"},
    dropout="",
    pooling="last",
    types=False,
    decoder=True,
    shared="its FFN multiplies the first linear module's outputs by a gate that has no name here",
    refuses={**_PREFIXES, "hadamard": _PRE_NORM, "bitfit": _NO_BIAS},
    settings={"use_cache": False},
    tiny={"num_key_value_heads": 2},
)
_PLUGGED = replace(
    _LLAMA,
    entry="interface",
    heads="",
    lora_names={},
    refuses={**_LLAMA.refuses, **_HOOKED},
)
_PLACES = {
    "adapter_methods": ["bottleneck", "lora", "reft"],
    "model_embeddings": "embed_tokens",
    "model_layers": "layers",
    "layer_self_attn": "self_attn",
    "layer_cross_attn": None,
    "attn_q_proj": "q_proj",
    "attn_k_proj": "k_proj",
    "attn_v_proj": "v_proj",
    "attn_o_proj": "o_proj",
    "layer_intermediate_proj": "mlp.up_proj",
    "layer_output_proj": "mlp.down_proj",
    "layer_pre_self_attn": "input_layernorm",
}
# The interface of adapters names Gemma's norms behind attention and FFN; they normalise what is
# about to be added to the residual, and not the sum that an adapter reads.
_GEMMA2 = replace(
    _PLUGGED,
    type="gemma2",
    interface={**_PLACES, "layer_pre_ffn": "pre_feedforward_layernorm"},
    tiny={"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8},
)

DECODERS = (
    Arch(
        "gpt2",
        heads="GPT2AdapterModel",
        linears={
            "q": "attn.c_attn[0/3]",
            "k": "attn.c_attn[1/3]",
            "v": "attn.c_attn[2/3]",
            "attention": "attn.c_proj",
            "intermediate": "mlp.c_fc",
            "output": "mlp.c_proj",
        },
        dropout="resid_pdrop",
        ffn_dropout="mlp",
        pooling="last",
        types=False,
        decoder=True,
        shared="q, k and v are one linear module",
        refuses={**_PREFIXES, "hadamard": _PRE_NORM},
        settings={"use_cache": False},
        names={
            "hidden_size": "n_embd",
            "num_hidden_layers": "n_layer",
            "num_attention_heads": "n_head",
            "intermediate_size": "n_inner",
            "max_position_embeddings": "n_positions",
        },
    ),
    _LLAMA,
    replace(_LLAMA, type="mistral", heads="MistralAdapterModel"),
    replace(
        _PLUGGED,
        type="qwen2",
        refuses={key: why for key, why in _PLUGGED.refuses.items() if key != "bitfit"},
    ),
    replace(_PLUGGED, type="qwen3", tiny={"num_key_value_heads": 2, "head_dim": 16}),
    _GEMMA2,
    # Its class names no prefix for weights of the layers alone, and adapters reads none without.
    replace(_GEMMA2, type="gemma3_text", interface={**_GEMMA2.interface, "base_model": "model"}),
    replace(
        _PLUGGED,
        type="smollm3",
        interface={**_PLACES, "layer_pre_ffn": "post_attention_layernorm"},
    ),
)

LEFT_OUT = {
    "gemma3": (
        "it reads images, too; its models for text alone (google/gemma-3-1b-pt) are of type "
        "gemma3_text"
    ),
    "phi3": "adapters adds a random bias to its fused projection of queries, keys and values",
}
"""Types that one could ask for, and why they are no entry."""
