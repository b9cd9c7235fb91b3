"""The encoders of the :class:`~mtl.backbone.arch_row.Arch` table."""

from __future__ import annotations

from dataclasses import replace

from mtl.backbone.arch_row import Arch

_BERT = Arch(
    "bert",
    heads="BertAdapterModel",
    classifier=("bert.pooler.dense", "classifier"),
    linears={
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "attention": "attention.output.dense",
        "intermediate": "intermediate.dense",
        "output": "output.dense",
    },
    norms={"attention": "attention.output.LayerNorm", "output": "output.LayerNorm"},
)
_ROBERTA = replace(
    _BERT,
    type="roberta",
    heads="RobertaAdapterModel",
    classifier=("classifier.dense", "classifier.out_proj"),
    from_padding=True,
)
_NO_PREFIX = "adapters gets into it through an interface, which has no place for prefixes"
_PRE_NORM = "its layers normalise before attention and FFN, so that no LayerNorm stands behind one"
_ONE_LAYER = (
    "its layers are one set of weights, applied again and again, so that one omega per layer would "
    "be one omega for all of them; the ++ forms are that by definition"
)
_SHIFTED = (
    "adapters counts a prefix before the tokens that are looked at, not before those that look, so "
    "that distances are not those that the model has learnt"
)
_ADDED = (
    "in a padded batch the class of adapters for it adds one to the scores of prefixes, so that a "
    "text alone has another answer"
)
_INTERFACE = {"prefix": _NO_PREFIX, "unipelt-ap": _NO_PREFIX, "unipelt-apl": _NO_PREFIX}
_T5 = Arch(
    "t5",
    linears={
        "q": "layer.0.SelfAttention.q",
        "k": "layer.0.SelfAttention.k",
        "v": "layer.0.SelfAttention.v",
        "attention": "layer.0.SelfAttention.o",
        "intermediate": "layer.1.DenseReluDense.wi",
        "output": "layer.1.DenseReluDense.wo",
    },
    # Of a gated one what adapters calls so, too: the module without an activation.
    gated={"intermediate": "layer.1.DenseReluDense.wi_1"},
    dropout="dropout_rate",
    pooling="mean",
    types=False,
    eager=True,
    shared="the first weighs distances for all; a gated FFN has a gate that has no name here",
    refuses={
        **dict.fromkeys(("prefix", "unipelt-ap", "unipelt-apl"), _SHIFTED),
        "hadamard": _PRE_NORM,
        "bitfit": "its linears and norms have no biases",
    },
    auto="AutoModelForTextEncoding",
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "d_ff",
        "max_position_embeddings": "n_positions",  # which limits nothing
    },
    tiny={"d_kv": 16, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20},
)
_BART = Arch(
    "bart",
    entry="interface",
    interface={
        "adapter_methods": ["bottleneck", "lora", "reft"],
        "model_embeddings": "embed_tokens",
        "model_layers": "layers",
        "layer_self_attn": "self_attn",
        "layer_cross_attn": None,
        "attn_q_proj": "q_proj",
        "attn_k_proj": "k_proj",
        "attn_v_proj": "v_proj",
        "attn_o_proj": "out_proj",
        "layer_intermediate_proj": "fc1",
        "layer_output_proj": "fc2",
        # The attention itself is handed its input by name, which hooks before it do not see.
        "layer_pre_self_attn": "self_attn.q_proj",
        "layer_pre_ffn": "fc1",
        "layer_ln_1": "self_attn_layer_norm",
        "layer_ln_2": "final_layer_norm",
    },
    linears={
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "attention": "self_attn.out_proj",
        "intermediate": "fc1",
        "output": "fc2",
    },
    norms={"attention": "self_attn_layer_norm", "output": "final_layer_norm"},
    dropout="dropout",
    pooling="mean",
    types=False,
    refuses=_INTERFACE,
    part="encoder",
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
    },
    tiny={"decoder_layers": 1, "decoder_ffn_dim": 32, "decoder_attention_heads": 2},
)

ENCODERS = (
    _BERT,
    _ROBERTA,
    replace(_ROBERTA, type="xlm-roberta", heads="XLMRobertaAdapterModel"),
    replace(
        _BERT,
        type="deberta-v2",
        heads="DebertaV2AdapterModel",
        classifier=("pooler.dense", "classifier"),
        linears={
            **_BERT.linears,
            "q": "attention.self.query_proj",
            "k": "attention.self.key_proj",
            "v": "attention.self.value_proj",
        },
        tiny={
            "type_vocab_size": 0,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
        },
    ),
    replace(
        _BERT,
        type="electra",
        heads="ElectraAdapterModel",
        classifier=(),
        eager=True,
        tiny={"embedding_size": 32},
    ),
    Arch(
        "distilbert",
        heads="DistilBertAdapterModel",
        linears={
            "q": "attention.q_lin",
            "k": "attention.k_lin",
            "v": "attention.v_lin",
            "attention": "attention.out_lin",
            "intermediate": "ffn.lin1",
            "output": "ffn.lin2",
        },
        norms={"attention": "sa_layer_norm", "output": "output_layer_norm"},
        dropout="dropout",
        ffn_dropout="ffn",
        types=False,
        refuses=dict.fromkeys(("prefix", "unipelt-ap", "unipelt-apl"), _ADDED),
        names={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
        },
    ),
    Arch(
        "albert",
        heads="AlbertAdapterModel",
        linears={
            "q": "attention.query",
            "k": "attention.key",
            "v": "attention.value",
            "attention": "attention.dense",
            "intermediate": "ffn",
            "output": "ffn_output",
        },
        norms={"attention": "attention.LayerNorm", "output": "full_layer_layer_norm"},
        shared="one layer applied again and again: an adapter has one site for all of them",
        refuses=dict.fromkeys(("scalearn", "scalearn-uniform", "gated"), _ONE_LAYER),
        tiny={"embedding_size": 32, "hidden_dropout_prob": 0.1},
    ),
    # The class of camembert in transformers is a copy of RoBERTa's.
    replace(_ROBERTA, type="camembert", like="roberta"),
    Arch(
        "modernbert",
        entry="interface",
        linears={
            "q": "attn.Wqkv[0/3]",
            "k": "attn.Wqkv[1/3]",
            "v": "attn.Wqkv[2/3]",
            "attention": "attn.Wo",
            "intermediate": "mlp.Wi",
            "output": "mlp.Wo",
        },
        dropout="mlp_dropout",
        types=False,
        shared="q, k and v are one linear module; its FFN's first one holds value and gate",
        refuses={
            **_INTERFACE,
            "hadamard": _PRE_NORM,
            "bitfit": "its linears and LayerNorms have no biases",
        },
        # Neither changes the function: unpadded flash attention and a compiled FFN pass by hooks.
        load={"attn_implementation": "sdpa"},
        settings={"reference_compile": False},
        tiny={"global_attn_every_n_layers": 2, "local_attention": 16},
    ),
    Arch(
        "mpnet",
        entry="interface",
        interface={
            "adapter_methods": ["bottleneck", "lora", "reft"],
            "model_embeddings": "embeddings",
            "model_layers": "encoder.layer",
            "layer_self_attn": "attention.attn",
            "layer_cross_attn": None,
            "attn_q_proj": "q",
            "attn_k_proj": "k",
            "attn_v_proj": "v",
            "attn_o_proj": "o",
            "layer_intermediate_proj": "intermediate.dense",
            "layer_output_proj": "output.dense",
            "layer_pre_self_attn": "attention",
            "layer_pre_ffn": "intermediate",
            "layer_ln_1": "attention.LayerNorm",
            "layer_ln_2": "output.LayerNorm",
        },
        linears={
            "q": "attention.attn.q",
            "k": "attention.attn.k",
            "v": "attention.attn.v",
            "attention": "attention.attn.o",
            "intermediate": "intermediate.dense",
            "output": "output.dense",
        },
        norms={"attention": "attention.LayerNorm", "output": "output.LayerNorm"},
        types=False,
        from_padding=True,
        refuses=_INTERFACE,
    ),
    Arch(
        "xlm-roberta-xl",
        entry="interface",
        interface={
            "adapter_methods": ["bottleneck", "lora", "reft"],
            "model_embeddings": "embeddings",
            "model_layers": "encoder.layer",
            "layer_self_attn": "attention",
            "layer_cross_attn": None,
            "attn_q_proj": "self.query",
            "attn_k_proj": "self.key",
            "attn_v_proj": "self.value",
            "attn_o_proj": "output.dense",
            "layer_intermediate_proj": "intermediate.dense",
            "layer_output_proj": "output.dense",
            "layer_pre_self_attn": "attention",
            "layer_pre_ffn": "LayerNorm",
        },
        linears=_BERT.linears,
        from_padding=True,
        refuses={**_INTERFACE, "hadamard": _PRE_NORM},
    ),
    _T5,
    replace(_T5, type="mt5"),
    _BART,
    replace(
        _BART,
        type="mbart",
        interface={
            **{key: at for key, at in _BART.interface.items() if not key.startswith("layer_ln_")},
            "layer_pre_self_attn": "self_attn_layer_norm",
            "layer_pre_ffn": "final_layer_norm",
        },
        norms={},
        refuses={**_INTERFACE, "hadamard": _PRE_NORM},
    ),
)

LEFT_OUT = {
    "xmod": (
        "its layers hold an adapter per language already, and adapters loses those weights when it "
        "prepares the model"
    ),
    "deberta": (
        "its fused projection has queries, keys and values interleaved by head, so that none of "
        "them is a part of its outputs; microsoft/deberta-v3-base (deberta-v2) keeps them apart"
    ),
}
"""Types that one could ask for, and why they are no entry."""
