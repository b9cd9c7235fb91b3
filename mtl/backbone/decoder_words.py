"""What a decoder's tokenizer lacks for classifying, and whether it can join the texts of a task."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import supported
from mtl.data.pairs import check_pairs, check_template, with_pairs
from mtl.errors import RequestError
from mtl.remembered import computed, keep_computed, made_by

if TYPE_CHECKING:
    from mtl.backbone.backbones import Backbone
    from mtl.tasks import TaskSpec


def decoders_tokenizer(tokenizer: Any, model: str) -> Any:
    """A decoder's tokenizer with what classifying needs: padding, behind the text, and pairs.

    The padding token is the end of a text where there is none of its own: nothing reads it.
    """
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise RequestError(
                f"Model {model!r}: its tokenizer has neither a padding token nor one for the end "
                'of a text. Name one of its tokens in tokenizer_config.json: "pad_token": "…"'
            )
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return with_pairs(tokenizer)


def check_texts(backbone: Backbone, spec: TaskSpec) -> None:
    """Refuse a task of two texts that the base cannot join, before anything is encoded.

    What could be joined is kept for later plans, which then load no tokenizer.

    Raises:
        RequestError: says what to put between them.
    """
    base = backbone.base
    if len(spec.inputs) < 2 or not (spec.pair or supported(base.type, base.id).decoder):
        return
    length = min(spec.max_length, backbone.tokens)
    key, made = json.dumps([base.tokenizer, base.type, spec.pair, length]), made_by("tokenizers")
    if computed("pairs", key) == made:
        return
    try:
        if spec.pair:
            check_template(backbone.words, spec.pair, length)
        else:
            check_pairs(backbone.words)
    except RequestError as error:
        raise RequestError(f"Task {spec.id!r}: {error}") from error
    keep_computed("pairs", key, made)
