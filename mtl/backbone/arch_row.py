"""One row of the table of model types (:mod:`mtl.backbone.arch`): how a type is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

POOLINGS = ("first", "last", "mean")


@dataclass(frozen=True)
class Place:
    """A linear module of a layer: the module at ``path``, or one of its ``parts`` equal outputs.

    Written ``attn.Wqkv`` for a whole module and ``attn.Wqkv[1/3]`` for the second third of the
    outputs of a fused one.
    """

    path: str
    part: int = 0
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> Place:
        """``"attn.Wqkv[1/3]"`` → ``Place("attn.Wqkv", 1, 3)``."""
        path, _, rest = text.partition("[")
        if not rest:
            return cls(path)
        part, _, parts = rest.rstrip("]").partition("/")
        return cls(path, int(part), int(parts))


@dataclass(frozen=True)
class Arch:
    """How the models of one type are built, and what of ours works on them.

    Paths are those of submodules, with dots; those of a layer start in the layer.

    Attributes:
        type: ``model_type`` of its config.
        entry: how adapters get in: ``native`` (classes of ``adapters`` for this type) or
            ``interface`` (hooks of ``adapters`` at the places that an interface names).
        interface: the fields of ``adapters``' ``AdapterModelInterface``; empty for a native type,
            and where ``adapters`` has one for the type.
        like: the type whose class it is loaded as, where the two differ in their name alone; the
            rest of such an entry is that type's.
        linears: the linear modules of a layer by our names (:data:`mtl.backbone.linear.LINEARS`),
            as :class:`Place` reads them.
        gated: those of them that are elsewhere where the config says ``is_gated_act``.
        lora_names: our name → the name under which the LoRA of ``adapters`` has it, where they
            differ.
        norms: LayerNorms behind ``attention`` and ``output`` of a layer; none in layers that
            normalise before them.
        heads: the class of ``adapters`` with flexible heads, "" where it has none for the type.
        classifier: of ``AutoModelForSequenceClassification``, the two linear layers with tanh
            between them; none where its classifier is another function than our heads.
        dropout: the config setting that a head's dropout follows; "" where the type has none.
        ffn_dropout: the module whose ``dropout`` stands before the site behind the FFN, where it is
            not the site itself; "" also where there is none, or where adapters sit before it.
        pooling: what a head reads that is not told otherwise: the ``first`` token, the ``last``
            real one by the attention mask, or the ``mean`` over the real ones.
        types: whether its forward takes ``token_type_ids``.
        from_padding: whether its first position is the padding id plus one.
        eager: whether its attention has no fused kernel, so that its sums depend on how query, key
            and value lie in memory; ``adapters``' class for it copies them, ours does not.
        decoder: whether a token sees only those before it.
        shared: what its layers share or compute side by side, for people; "" for nothing.
        refuses: name of a method or composition → why it cannot be used.
        auto: the class of ``transformers`` that loads the layers alone, without a decoder beside.
        part: the submodule of what it loads that is our model, where it is not all of it.
        load: further arguments of that class.
        settings: config settings that are fixed before it is loaded; none of them decides what the
            model computes.
        names: ``hidden_size``, ``num_hidden_layers``, … → what its config.json calls them, where
            it does so otherwise.
        tiny: config values, by its own names, that a tiny model of the type needs besides.
    """

    type: str
    entry: str = "native"
    interface: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    linears: Mapping[str, str] = field(default_factory=dict)
    gated: Mapping[str, str] = field(default_factory=dict)
    lora_names: Mapping[str, str] = field(default_factory=dict)
    norms: Mapping[str, str] = field(default_factory=dict)
    heads: str = ""
    classifier: tuple[str, ...] = ()
    dropout: str = "hidden_dropout_prob"
    ffn_dropout: str = ""
    pooling: str = "first"
    types: bool = True
    from_padding: bool = False
    eager: bool = False
    decoder: bool = False
    shared: str = ""
    refuses: Mapping[str, str] = field(default_factory=dict)
    auto: str = "AutoModel"
    part: str = ""
    load: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.entry in ("native", "interface"), self.entry
        assert self.pooling in POOLINGS, self.pooling

    @property
    def alone(self) -> bool:
        """Whether it is the encoder of models that have a decoder, too."""
        return bool(self.part) or self.auto == "AutoModelForTextEncoding"

    def place(self, module: str) -> Place | None:
        """Where a layer has the linear ``module``; None where it has no such one."""
        text = self.linears.get(module)
        return Place.parse(text) if text else None

    def head_dropout(self, config: Any) -> float:
        """The dropout of a head on a model with ``config``."""
        return float(getattr(config, self.dropout)) if self.dropout else 0.0

    def named(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Config values by BERT's names → by this type's."""
        return {self.names.get(key, key): value for key, value in values.items()}
