"""Whether an encoder can read what its tokenizer makes of a task's texts.

Three things are compared: tokens with the positions that the encoder has, token types with those
that it knows, and what the tokenizer hands over (``model_input_names``) with what the encoder was
made for. Beyond the first two an embedding is asked for a row that it does not have, which ends in
an ``IndexError`` on a CPU and in an assertion of the device on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl.backbone.arch import find_arch
from mtl.data.encoded import Encoded
from mtl.data.tokenise import has_types
from mtl.errors import RequestError


@dataclass(frozen=True)
class Misfit:
    """Something that encoder and tokenizer do not agree in; a sentence without a full stop.

    ``level`` is ``problem`` (it cannot be computed) or ``remark`` (it may cost accuracy).
    """

    check: str
    level: str
    text: str


def position_limit(config: Any) -> int | None:
    """Tokens that an encoder with ``config`` has positions for; None where nothing limits them.

    M = ``max_position_embeddings``; RoBERTa's first position is ``pad_token_id`` + 1, so that it
    has M − ``pad_token_id`` − 1. DeBERTa without absolute positions has no limit.
    """
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or not getattr(config, "position_biased_input", True):
        return None
    arch = find_arch(config.model_type)
    if arch is not None and arch.from_padding:
        return most - int(config.pad_token_id or 0) - 1
    return most


def misfits(encoded: Encoded, tokenizer: Any, config: Any, texts: int) -> list[Misfit]:
    """In what a split, as ``tokenizer`` encoded it, does not fit an encoder with ``config``.

    Args:
        texts: how many texts a row has.
    """
    found = []
    where, kind = encoded.name, config.model_type
    longest, limit = int(encoded.lengths.max(initial=0)), position_limit(config)
    if limit is not None and longest > limit:
        counted = f"max_position_embeddings {config.max_position_embeddings}"
        if limit != config.max_position_embeddings:
            counted += f", of which the first {config.max_position_embeddings - limit} stay unused"
        text = (
            f"{where}: the longest encoding has {longest} tokens, the encoder has positions for "
            f"{limit} ({kind}: {counted}). Cut there: max_length: {limit} in the task's file, or "
            f'"model_max_length": {limit} in the model\'s tokenizer_config.json'
        )
        found.append(Misfit("positions", "problem", text))
    known = getattr(config, "type_vocab_size", None)
    types = [encoded.types, encoded.shared.types if encoded.shared is not None else None]
    highest = max((int(np.max(part, initial=0)) for part in types if part is not None), default=0)
    if known and highest >= known:
        text = (
            f"{where}: the tokenizer gives texts the token type {highest}, the encoder knows "
            f'{known} (type_vocab_size). Say "model_input_names": ["input_ids", "attention_mask"] '
            "in the model's tokenizer_config.json, or put the encoder's own tokenizer there"
        )
        found.append(Misfit("token-types", "problem", text))
    if known is not None and known > 1 and texts > 1 and not has_types(tokenizer):
        text = (
            f"{where}: the encoder tells two texts apart by {known} token types, but the "
            f"tokenizer's model_input_names are {', '.join(tokenizer.model_input_names)}, so that "
            'every token is of the first. Add "token_type_ids" to them in the model\'s '
            "tokenizer_config.json, unless it was trained without"
        )
        found.append(Misfit("token-types", "remark", text))
    return found


def check_fit(encoded: Encoded, tokenizer: Any, config: Any, task: str, texts: int) -> list[str]:
    """Refuse a split that the encoder cannot read; what may cost accuracy is returned.

    Raises:
        RequestError: names task and split, what does not fit, and where to change it.
    """
    found: Sequence[Misfit] = misfits(encoded, tokenizer, config, texts)
    wrong = [item.text for item in found if item.level == "problem"]
    if wrong:
        raise RequestError(f"Task {task!r} does not fit the model. " + ". ".join(wrong) + ".")
    return [item.text for item in found]
