r"""How a tokenizer joins two texts, where it has no format for pairs of its own.

Tokenizers of decoders mostly write two texts one behind the other. There a *template* says what
stands around and between them, ``{first}\n{second}`` where nobody says otherwise; it becomes part
of the tokenizer, as formats for pairs are, so that texts are cut as those of any pair, and every
fingerprint of the tokenizer covers it. The texts are tokenised by themselves, as always.
"""

from __future__ import annotations

import copy
import json
import shlex
from typing import Any

from mtl.errors import RequestError
from mtl.tasks.spec import pair_parts

DEFAULT_PAIR = "{first}\n{second}"
_OTHERS = ("{first} | {second}", "{first} / {second}", "{first} - {second}", "{first} and {second}")
"""What to propose where a tokenizer makes no token of what was asked for."""


def with_pairs(tokenizer: Any) -> Any:
    """A decoder's tokenizer that joins pairs: its own way, or by :data:`DEFAULT_PAIR`.

    One that makes no token of a line break stays as it is, and :func:`check_pairs` refuses it.
    """
    if separates(tokenizer) or not _ids(tokenizer, pair_parts(DEFAULT_PAIR)[1]):
        return tokenizer
    return paired(tokenizer, DEFAULT_PAIR)


def check_pairs(tokenizer: Any) -> None:
    """Refuse a tokenizer in whose pairs the texts run together.

    Raises:
        RequestError: says how to part them.
    """
    if not separates(tokenizer):
        raise RequestError(
            "The tokenizer of this base joins two texts with nothing between them, and makes no "
            f"token of a line break. {_proposal(tokenizer)}"
        )


def check_template(tokenizer: Any, template: str, length: int) -> None:
    """Refuse a template for pairs by which ``tokenizer`` cannot join two texts.

    Args:
        length: tokens of an encoding at most.

    Raises:
        RequestError: as :func:`paired`, or it leaves no room for a token of each text.
    """
    size = sum(map(len, _specials(paired(tokenizer, template), "a", "a")))
    if size + 2 > length:
        raise RequestError(
            f"pair={template!r} cannot be used here: it is {size} tokens itself, which leaves no "
            f"room for the texts in max_length={length}. Shorten it, or give more --max-length."
        )


def _proposal(tokenizer: Any) -> str:
    """What to put between two texts, as a sentence."""
    for text in _OTHERS:
        if _ids(tokenizer, pair_parts(text)[1]):
            return f"Take --set {shlex.quote(f'pair={text}')}."
    return "Put a word that it knows between them."


def separates(tokenizer: Any) -> bool:
    """Whether something stands between the texts of a pair that does not begin every text."""
    lead, middle, _ = _specials(tokenizer, "a", "a")
    return bool(middle) and middle != lead


def paired(tokenizer: Any, template: str) -> Any:
    """A copy of ``tokenizer`` that joins pairs by ``template``; single texts are as they were.

    What it puts before and behind every text (``<s>``) stays around the whole.

    Raises:
        RequestError: no such template, the tokenizer tells texts apart by token types, or makes no
            token of what stands between them.
    """
    from tokenizers import processors

    before, between, behind = pair_parts(template)
    if "token_type_ids" in tokenizer.model_input_names:
        raise RequestError(
            f"pair={template!r} cannot be used with this base: its encoder tells the texts of a "
            "pair apart by token types, as its tokenizer joins them. Leave pair out."
        )
    found = copy.deepcopy(tokenizer)
    lead, _, tail = _specials(tokenizer, "a")
    pieces = {
        "lead": lead,
        "tail": tail,
        "before": _ids(tokenizer, before),
        "between": _ids(tokenizer, between),
        "behind": _ids(tokenizer, behind),
    }
    if not pieces["between"]:
        leave = "Or leave pair out: it has a way of its own. " if separates(tokenizer) else ""
        raise RequestError(
            f"pair={template!r} cannot be used with this base: its tokenizer makes no token of "
            f"{between!r}, and the texts would run together. "
            f"{_proposal(tokenizer)} {leave}".rstrip()
        )
    names = {key: f"<{key} of a pair>" for key, ids in pieces.items() if ids}
    pair = ["lead", "before", "$A", "between", "$B", "behind", "tail"]
    format_of = processors.TemplateProcessing(
        single=[names.get(part, part) for part in ("lead", "$A", "tail") if _is(part, names)],
        pair=[names.get(part, part) for part in pair if _is(part, names)],
        special_tokens=[
            {
                "id": name,
                "ids": pieces[key],
                "tokens": tokenizer.convert_ids_to_tokens(pieces[key]),
            }
            for key, name in names.items()
        ],
    )
    trims = _byte_level(tokenizer)
    found.backend_tokenizer.post_processor = (
        processors.Sequence([trims, format_of]) if trims else format_of
    )
    return found


def _is(part: str, names: dict[str, str]) -> bool:
    return part in names or part.startswith("$")


def _byte_level(tokenizer: Any) -> Any:
    """The part of its post-processor that says which characters a token covers, if there is one."""
    from tokenizers import processors

    own = json.loads(tokenizer.backend_tokenizer.to_str())["post_processor"] or {}
    for part in own.get("processors", [own]):
        if part.get("type") == "ByteLevel":
            keys = ("add_prefix_space", "trim_offsets", "use_regex")
            return processors.ByteLevel(**{key: part[key] for key in keys if key in part})
    return None


def _ids(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []


def _specials(tokenizer: Any, *texts: str) -> tuple[list[int], list[int], list[int]]:
    """The tokens before, between and behind ``texts``."""
    found = tokenizer(*texts, verbose=False)
    ids, of = found["input_ids"], found.sequence_ids(0)
    own = [place for place, text in enumerate(of) if text is not None]
    inside = [ids[place] for place in range(own[0], own[-1]) if of[place] is None]
    return ids[: own[0]], inside, ids[own[-1] + 1 :]
