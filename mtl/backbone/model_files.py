"""The files of a model, read by us before a library obeys them.

A model folder or repository is a stranger's. ``transformers`` takes from its JSON files which code
to import (``auto_map``), which to fetch (names of implementations, with the package ``kernels``),
which other model to load instead (``adapter_config.json``), which other files to read
(``configuration_files``, ``transformers_weights``, ``tokenizer_file``), which other name a key has
(``attribute_map``), and any attribute of its config and tokenizer. So we read them first, strictly
(:mod:`mtl.untrusted`), refused where they ask for any of it, and the config that is then built is
the one that was read. Templates of chats and configs of generation are never used.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from shlex import quote
from typing import Any

from mtl.backbone.arch import find_arch
from mtl.backbone.reference import ModelReference
from mtl.errors import RequestError, ZooError
from mtl.typed import given
from mtl.untrusted import ORDERS, asks_for_code, load_json

CONFIG, TOKENIZER, ADAPTER = "config.json", "tokenizer_config.json", "adapter_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"
TEMPLATES = "additional_chat_templates"
INDEX = "model.safetensors.index.json"
_FILES_OF_ITS_OWN = (
    "tokenizer_file", "vocab_file", "merges_file", "gguf_file", "spm_file", "tokenizer_object",
    "__slow_tokenizer", "from_slow", "init_inputs", "fast_tokenizer_files",
)  # fmt: skip
"""What a tokenizer takes from its config, or from its map of special tokens, in place of the files
beside it."""
_PARTS = (
    "text_config", "text_encoder", "decoder", "encoder", "generator", "vision_config",
    "audio_config",
)  # fmt: skip
"""Keys at which ``transformers`` looks for another config inside one, whatever the type."""
_COUNTS = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layers", "n_layer"), 10_000),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 10_000),
    **dict.fromkeys(("num_labels", "_num_labels"), 1_000_000),
}
"""Counts of which a config makes a list, one by one, before it looks at anything else."""
_PLAIN = {"chunk_size_feed_forward": 0}
"""Keys of all types that decide, and what they usually are."""
_DTYPE = re.compile(r"(torch\.)?(b?float\d*|half|double)")


@dataclass(frozen=True)
class ModelFiles:
    """A model whose files ask for nothing but to be read.

    Attributes:
        reference: what the user named.
        config: the ``transformers`` config, built from what was read.
        revision: the commit on the Hub, or None for a folder.
    """

    reference: ModelReference
    config: Any
    revision: str | None


def read_model_files(reference: ModelReference, *, fetch: bool = True) -> ModelFiles:
    """Read and check the JSON files of a model.

    Args:
        fetch: whether files may be fetched from the Hub; else only its client's cache is read.

    Raises:
        RequestError: a file that is damaged or asks for code, other files, or another model; or a
            type that ``transformers`` does not know.
        OSError: not to be had from the Hub (as its client says it).
    """
    path = _config_file(reference, fetch=fetch)
    if path is None:
        if fetch:
            _check_no_adapter(reference, reference.revision)
        raise RequestError(f"Cannot load model {reference.id!r}: it has no {CONFIG}.")
    revision = None if reference.local else _commit(path) or reference.revision
    config = _build(reference, _read(reference, path))
    config._commit_hash = revision
    if fetch:
        _check_others(reference, revision)
    return ModelFiles(reference, config, revision)


def _check_others(reference: ModelReference, revision: str | None) -> None:
    """The files beside the config: the tokenizer's, the list of weights, none of an adapter."""
    _check_no_adapter(reference, revision)
    if reference.local:
        _check_regular(reference)
    for file in (TOKENIZER, SPECIAL_TOKENS):
        path = _beside(reference, file, revision)
        if path is not None:
            _check_tokenizer(reference, _read(reference, path), file)
    path = _beside(reference, INDEX, revision)
    if path is not None:
        listed = _read(reference, path).get("weight_map")
        names = list(listed.values()) if isinstance(listed, dict) else [None]
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or _odd_weights(name):
                raise RequestError(
                    f"Cannot load model {reference.id!r}: its {INDEX} names {name!r:.80} as a file "
                    "of weights; they are safetensors files beside it."
                )


def _check_regular(reference: ModelReference) -> None:
    """A pipe among the files of a folder would be waited for, whoever opens it."""
    for folder in (Path(reference.source), Path(reference.source) / TEMPLATES):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.exists() and not path.is_file() and not path.is_dir():
                raise RequestError(
                    f"Cannot load model {reference.id!r}: its {path.name} is not a regular file."
                )


def _check_no_adapter(reference: ModelReference, revision: str | None) -> None:
    path = _beside(reference, ADAPTER, revision)
    if path is None:
        return
    at = f"@{reference.revision}" if reference.revision else ""
    if _is_peft(path):
        place = reference.source if reference.local else f"hub:{reference.source}{at}"
        how = f"Such an adapter goes into a zoo with: python -m mtl.zoo pull --peft {quote(place)}"
    else:
        name = "USER/NAME" if reference.local else f"{reference.source}{at}"
        how = f"An adapter on the Hub goes into a zoo with: python -m mtl.zoo pull {name}"
    raise RequestError(
        f"Cannot load model {reference.id!r}: its {ADAPTER} makes it an adapter, loading "
        f"which loads whatever model that names. Give the model itself with --model. "
        f"{how}{given('--zoo')} --model MODEL."
    )


def _is_peft(path: Path) -> bool:
    try:
        value = load_json(path, ADAPTER, follow=True)
    except (OSError, ZooError):
        return False
    return isinstance(value, dict) and "peft_type" in value


def _odd_weights(name: str) -> bool:
    return "\\" in name or not name.endswith(".safetensors")


def _check_tokenizer(reference: ModelReference, value: dict[str, Any], file: str) -> None:
    for key in _FILES_OF_ITS_OWN:
        if value.get(key) not in (None, False, [], ()):
            raise RequestError(
                f"Cannot load the tokenizer of {reference.id!r}: its {file} has the key "
                f"{key!r}, which takes the place of the files beside it. Remove the key; "
                "tokenizer.json belongs beside it."
            )
    longest = value.get("model_max_length")
    if longest is not None and not (type(longest) in (int, float) and longest >= 1):
        raise RequestError(
            f"Cannot load the tokenizer of {reference.id!r}: its {file} says model_max_length "
            f"{longest!r:.80}, which is no number of tokens."
        )
    _check_class(reference, value.get("tokenizer_class"), file)


def _check_class(reference: ModelReference, name: Any, file: str) -> None:
    """``transformers`` takes a class of that name from wherever it has one, tokenizer or not."""
    if name is not None and not (isinstance(name, str) and name in _tokenizers()):
        raise RequestError(
            f"Cannot load the tokenizer of {reference.id!r}: its {file} names the class "
            f"{name!r:.80}, which is no tokenizer of transformers that has a fast form. With a "
            'tokenizer.json, "PreTrainedTokenizerFast" is always right.'
        )


@lru_cache(maxsize=1)
def _tokenizers() -> frozenset[str]:
    """Names of the fast tokenizers of ``transformers``, and of the slow ones they stand for."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

    fast = {"PreTrainedTokenizerFast"}
    for _, name in TOKENIZER_MAPPING_NAMES.values():
        if name:
            fast |= {name, name.removesuffix("Fast")}
    return frozenset(fast)


def _build(reference: ModelReference, value: dict[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING

    kind = value.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise RequestError(
            f"Cannot load model {reference.id!r}: its {CONFIG} says model_type {kind!r:.80}, which "
            "transformers does not know."
        )
    _check_class(reference, value.get("tokenizer_class"), CONFIG)
    _check_keys(reference, value, CONFIG_MAPPING[kind])
    adapters = value.get("adapters")
    if isinstance(adapters, dict) and adapters.get("adapters"):
        raise RequestError(
            f"Cannot load model {reference.id!r}: its {CONFIG} says that there are adapters in it. "
            "Give the plain encoder that they were made for."
        )
    try:
        # An order that is empty orders nothing, but a library looks whether the key is there.
        config = CONFIG_MAPPING[kind].from_dict({k: v for k, v in value.items() if k not in ORDERS})
    except Exception as error:  # whatever a library makes of values that it did not expect
        raise RequestError(
            f"Cannot read {reference.source}/{CONFIG}: {' '.join(str(error).split())[:200]}"
        ) from error
    # How it answers is ours to say, see `mtl.backbone.identity.NOT_DECIDING`.
    config.return_dict, config.torchscript = True, False
    config.output_attentions = config.output_hidden_states = False
    return config


def _check_keys(reference: ModelReference, value: dict[str, Any], config: Any) -> None:
    """What ``transformers`` makes of a key before it asks whether the type has such a one."""
    known = find_arch(value["model_type"]) is not None  # of others numbers may be lists
    parameters = inspect.signature(config.__init__).parameters if known else {}
    for key, inner in value.items():
        own = inspect.getattr_static(config, key, None)
        why = ""
        if key.startswith("__") or inspect.isroutine(own) or isinstance(own, dict):
            why = "it takes the place of a part of transformers' own class"
        elif key in _PARTS and inner is not None and key not in config.sub_configs:
            why = f"a model of type {value['model_type']!r} has no such part"
        elif key in _COUNTS and not (type(inner) is int and 0 <= inner <= _COUNTS[key]):
            why = f"it is no number from 0 to {_COUNTS[key]}" if inner is not None else ""
        elif key in ("dtype", "torch_dtype") and inner is not None:
            named = isinstance(inner, str) and _DTYPE.fullmatch(inner)
            why = "" if named else "it is no type of numbers with a fraction"
        else:
            why = _other_kind(key, inner, parameters)
        if why:
            raise RequestError(
                f"Cannot load model {reference.id!r}: its {CONFIG} has the key {key[:80]!r} with "
                f"the value {inner!r:.80}: {why}."
            )


def _other_kind(key: str, inner: Any, parameters: Mapping[str, inspect.Parameter]) -> str:
    """Why a value is of another kind than its key's usual one; "" where it is of that."""
    usual: Any = parameters[key].default if key in parameters else _PLAIN.get(key)
    if key == "adapters":
        return "" if inner is None or isinstance(inner, dict) else "it is no object"
    if type(usual) in (int, float) and not key.endswith("_token_id"):
        lacking = inner is None and key.endswith("eps")
        return "it is no number" if lacking or isinstance(inner, (str, list, dict)) else ""
    if type(usual) is str and inner is not None:
        return "" if isinstance(inner, str) else "it is no text"
    return ""


def _read(reference: ModelReference, path: Path) -> dict[str, Any]:
    where = f"{path.name} of model {reference.id!r}"
    try:
        value = load_json(path, where, follow=True)  # a cache of the Hub consists of links
    except (OSError, ZooError) as error:
        raise RequestError(f"Cannot load model {reference.id!r}: {error}") from error
    if not isinstance(value, dict):
        raise RequestError(f"Cannot load model {reference.id!r}: {path.name} holds no JSON object.")
    key = asks_for_code(value)
    if key:
        raise RequestError(
            f"Cannot load model {reference.id!r}: its {path.name} asks for code, or for other "
            f"files than those beside it, by {key!r}. mtl runs nothing that a model brings along. "
            "If you know what the key is for and that the model is right without it, remove it "
            "from a copy of the folder and give that with --model FOLDER."
        )
    return value


def _config_file(reference: ModelReference, *, fetch: bool) -> Path | None:
    if reference.local:
        return _beside(reference, CONFIG, None)
    from transformers.utils import cached_file

    found = cached_file(
        reference.source,
        CONFIG,
        revision=reference.revision or "main",
        local_files_only=not fetch,
    )
    return Path(found) if found else None


def _beside(reference: ModelReference, name: str, commit: str | None) -> Path | None:
    """Where a file of the model is, or None where the model has none of that name.

    A failing connection is no answer: what could not be looked at could be fetched a moment later.
    """
    if reference.local:
        path = Path(reference.source) / name
        return path if os.path.lexists(path) else None
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from transformers.utils.hub import TRANSFORMERS_CACHE

    place = {"revision": commit or "main", "cache_dir": TRANSFORMERS_CACHE}
    known = try_to_load_from_cache(reference.source, name, **place)
    if known is not None:  # else a mark that there is no such file
        return Path(known) if isinstance(known, str) else None
    try:
        return Path(hf_hub_download(reference.source, name, **place))
    except LocalEntryNotFoundError:
        if constants.HF_HUB_OFFLINE:
            return None  # nor will anything else fetch it
        raise
    except EntryNotFoundError:
        return None


def _commit(path: Path) -> str | None:
    from transformers.utils import extract_commit_hash

    found: str | None = extract_commit_hash(str(path), None)
    return found
