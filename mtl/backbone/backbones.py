"""Load a pretrained encoder and its tokenizer: from a folder, the Hub, or the demo's own.

The encoder comes back frozen, in fp32, in evaluation mode and ready for adapters.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import Arch, find_arch, supported
from mtl.backbone.building import config_to_load, part_of
from mtl.backbone.decoder_words import decoders_tokenizer
from mtl.backbone.identity import Base, base_differences
from mtl.backbone.known import (
    KnownBase,
    Marks,
    find_place,
    forget_base,
    marks_of,
    recall_base,
    remember_base,
)
from mtl.backbone.model_files import ModelFiles, read_model_files
from mtl.backbone.reference import ModelReference, resolve_model
from mtl.data.pairs import check_pairs
from mtl.errors import RequestError

if TYPE_CHECKING:
    from torch import nn

    from mtl.data import Encoded, TaskData


@dataclass(frozen=True)
class Loaded:
    """What loading a base gives: the pristine encoder, its tokenizer, its identity."""

    pristine: nn.Module
    tokenizer: Any
    known: KnownBase


class Backbone:
    """A base: its identity, and, loaded when they are first asked for, encoder and tokenizer.

    Attributes:
        base: its identity.
        tokens: how many its tokenizer allows in one encoding.
        held_in: the precision of its encoders' frozen weights.

    Args:
        known: its identity, from this machine's record or from loading it.
        load: loads it.
        words: loads its tokenizer alone.
    """

    def __init__(
        self,
        known: KnownBase,
        load: Callable[[], Loaded],
        words: Callable[[], Any] | None = None,
    ) -> None:
        self.base = known.base
        self.tokens = known.tokens
        self._load = load
        self._load_words = words or (lambda: self._loaded.tokenizer)

    held_in = "fp32"

    @cached_property
    def _loaded(self) -> Loaded:
        return self._load()

    @property
    def pristine(self) -> Any:
        """The encoder as it was loaded; :meth:`encoder` gives copies to work with."""
        return self._loaded.pristine

    @property
    def config(self) -> Any:
        """The encoder's ``transformers`` config."""
        return self.pristine.config

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer."""
        return self._loaded.tokenizer

    @property
    def pooler(self) -> bool:
        """Whether the checkpoint really held pooler weights.

        A missing pooler would be random, so heads that need one refuse.
        """
        return self.base.pooler is not None

    @cached_property
    def words(self) -> Any:
        """:attr:`tokenizer`, for which the encoder need not be loaded."""
        return self._loaded.tokenizer if "_loaded" in self.__dict__ else self._load_words()

    def encode(self, data: TaskData, split: str, cache: Path | None = None) -> Encoded:
        """A split tokenised for this encoder (:func:`mtl.data.encode`).

        Raises:
            RequestError: as there, or the encoder cannot read it: too long, or of more token types.
        """
        from mtl.backbone.encoder_fit import check_fit
        from mtl.data import encode

        texts = len(data.splits[split].texts)
        if texts > 1 and not data.spec.pair and supported(self.base.type, self.base.id).decoder:
            check_pairs(self.tokenizer)
        words = self.base.tokenizer
        encoded = encode(data, split, self.tokenizer, cache=cache, words=words)
        notes = check_fit(encoded, self.tokenizer, self.config, data.spec.id, texts)
        for note in notes if split == "train" else ():
            logging.getLogger("mtl").warning("%s, %s", data.spec.id, note)
        return encoded

    def encoder(self) -> Any:
        """A fresh frozen copy of the encoder, prepared for adapters, in evaluation mode."""
        from mtl.backbone.injection import freeze, init

        encoder = init(copy.deepcopy(self.pristine))
        freeze(encoder)
        return encoder.eval()


def check_supported(config: Any, model: str) -> Arch:
    """The :class:`~mtl.backbone.arch_row.Arch` of a model; refuse all others.

    Raises:
        RequestError: an encoder made a decoder, or a type that we do not know.
    """
    arch = supported(config.model_type, repr(model))
    if getattr(config, "is_decoder", False) and not arch.decoder:
        raise RequestError(
            f"Model {model!r} is a decoder of type {arch.type!r}; mtl composes adapters on it as "
            "an encoder alone (is_decoder false in its config.json)."
        )
    return arch


def _unreachable(reference: ModelReference, error: Exception) -> RequestError:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        reason = "HF_HUB_OFFLINE is set, and the local cache does not hold it."
    else:
        reason = " ".join(str(error).split())[:300]
    return RequestError(
        f"Cannot load model {reference.id!r} from the Hub: {reason} Check the name and the "
        "network, or give a folder with --model FOLDER (and the data with --data-root DIR); the "
        "embedded suite needs neither: --suite demo."
    )


def load_tokenizer(model: str) -> Any:
    """The fast tokenizer of ``model`` (as :func:`load_backbone` takes it).

    Raises:
        RequestError: none in the folder, not to be reached, or no fast one.
    """
    return load_words(model)[0]


def load_words(model: str) -> tuple[Any, Any]:
    """The fast tokenizer of ``model`` and the config of its encoder. Raises as the former."""
    files = checked_files(resolve_model(model))
    return _load_tokenizer(model, files), files.config


def checked_files(reference: ModelReference) -> ModelFiles:
    """The model's files, read by us and found to ask for nothing (:mod:`mtl.backbone.model_files`).

    Raises:
        RequestError: they do, are damaged, or are not to be reached.
    """
    try:
        return read_model_files(reference)
    except OSError as error:
        raise _unreachable(reference, error) from error


def _load_tokenizer(model: str, files: ModelFiles) -> Any:
    from transformers import AutoTokenizer

    reference = files.reference
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            reference.source,
            revision=files.revision or "main",
            config=files.config,
            use_fast=True,
            trust_remote_code=False,
        )
    except Exception as error:
        if reference.local:
            raise RequestError(
                f"Folder {reference.source!r} holds a model but no tokenizer that can be loaded "
                f"({' '.join(str(error).split())[:200]}). Put tokenizer.json and "
                "tokenizer_config.json of the same model beside config.json."
            ) from error
        raise _unreachable(reference, error) from error
    if not tokenizer.is_fast:
        raise RequestError(
            f"Model {model!r} has no fast tokenizer (tokenizer.json); mtl needs one. Convert it "
            "once with AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER)."
        )
    arch = find_arch(files.config.model_type)
    if arch is not None and not arch.types:  # what it hands over is what is tokenised and cached
        tokenizer.model_input_names = [
            name for name in tokenizer.model_input_names if name != "token_type_ids"
        ]
    if arch is not None and arch.decoder:
        tokenizer = decoders_tokenizer(tokenizer, model)
    known = getattr(files.config, "vocab_size", None)
    if known is not None and not isinstance(known, int):
        raise RequestError(f"Model {model!r}: config.json says vocab_size {known!r}, no number.")
    if known is not None and len(tokenizer) > known:  # `vocab_size` leaves added tokens out
        raise RequestError(
            f"Model {model!r}: its tokenizer knows {len(tokenizer)} tokens, its embedding "
            f"holds {known}. They do not belong together."
        )
    return tokenizer


def load_text_encoder(model: str) -> tuple[Any, Any]:
    """Any encoder of texts that ``transformers`` ships, and its tokenizer; for sentence vectors.

    Its files are a stranger's as those of a base are, and read as strictly.

    Raises:
        RequestError: files that ask for code or other models, or no encoder of texts.
        Exception: whatever the libraries raise where it cannot be had.
    """
    from transformers.models.auto import modeling_auto as known

    files = read_model_files(resolve_model(model))
    kind = files.config.model_type
    if kind not in (
        known.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.keys()
        | known.MODEL_FOR_MASKED_LM_MAPPING_NAMES.keys()
    ):
        raise RequestError(f"A model of type {kind!r} is no encoder of texts.")
    tokenizer = _load_tokenizer(model, files)
    arch = find_arch(kind)
    model = _load_weights(files, auto=arch.auto if arch else "AutoModel")
    return part_of(model, arch).eval(), tokenizer


def _load_weights(
    files: ModelFiles, config: Any = None, auto: str = "AutoModel", **more: Any
) -> Any:
    import transformers

    said = logging.getLogger("transformers")
    level = said.level
    said.setLevel(logging.ERROR)  # which weights are lacking is said below
    try:
        return getattr(transformers, auto).from_pretrained(
            files.reference.source,
            config=files.config if config is None else config,
            revision=files.revision or "main",
            use_safetensors=True,  # nothing is ever unpickled
            trust_remote_code=False,
            **more,
        )
    finally:
        said.setLevel(level)


def load_backbone(model: str) -> Backbone:
    """The base ``model``: ``demo``, a folder, or a Hub name (``name@revision``).

    One that this machine has loaded before, and whose files are untouched, is loaded when its
    encoder or tokenizer is first used (:mod:`mtl.backbone.known`), any other at once. The last one
    stays in memory, so a sweep over tasks and seeds reads the weights once; a folder whose files
    changed since then is read again, for its fingerprint goes into manifests.

    Raises:
        RequestError: unknown, unreachable, unsupported type, or weights missing in the checkpoint.
    """
    reference = resolve_model(model)
    place = find_place(reference)
    known = recall_base(reference, place) if place else None
    if known is not None:
        words = partial(load_tokenizer, model)
        return Backbone(known, partial(_load_known, model, reference, known), words)
    loaded = _load(model, reference, _stamp(reference))
    if place:
        remember_base(reference, place, loaded.known)
    return Backbone(loaded.known, lambda: loaded)


def _load_known(model: str, reference: ModelReference, known: KnownBase) -> Loaded:
    """Load the base that a run was planned with.

    Raises:
        RequestError: as :func:`load_backbone`, or it is another one.
    """
    loaded = _load(model, reference, _stamp(reference))
    if loaded.known == known:
        return loaded
    forget_base(reference)
    differing = base_differences(known.base.to_dict(), loaded.known.base.to_dict())
    raise RequestError(
        f"The base {model!r} is not the one that this run was planned with "
        f"({'; '.join(differing) or 'pooler, revision or token limit differ'}): its files changed "
        "meanwhile, or what this machine had recorded of it was wrong. The record is removed: run "
        "the same command again."
    )


def _stamp(reference: ModelReference) -> Marks:
    """Marks of a folder's files; nothing for a Hub name."""
    return marks_of(Path(reference.source).resolve()) if reference.local else ()


@lru_cache(maxsize=1)
def _load(model: str, reference: ModelReference, stamp: Marks) -> Loaded:
    import torch

    from mtl.backbone.fingerprint import tensors_fingerprint
    from mtl.backbone.identity import deciding, function_fingerprint
    from mtl.data import token_limit, tokenizer_fingerprint

    files = checked_files(reference)
    arch = check_supported(files.config, model)
    tokenizer = _load_tokenizer(model, files)
    config = config_to_load(files.config, arch)
    if arch.decoder:  # the heads of stock adapters count from it which token is the last
        config.pad_token_id = tokenizer.pad_token_id
    try:
        encoder, info = _load_weights(
            files, config, arch.auto, dtype=torch.float32, output_loading_info=True, **arch.load
        )
    except Exception as error:
        if reference.local:
            raise RequestError(
                f"Cannot load weights from folder {reference.source!r}: "
                f"{' '.join(str(error).split())[:200]} A model.safetensors is expected there."
            ) from error
        if "safetensors" in str(error):
            raise RequestError(
                f"Model {model!r} has no model.safetensors on the Hub, and mtl reads no pickled "
                "weights. Convert it once (AutoModel.from_pretrained(...).save_pretrained(FOLDER)) "
                "and pass --model FOLDER."
            ) from error
        raise _unreachable(reference, error) from error
    encoder = part_of(encoder, arch)
    gone = info["missing_keys"]
    if arch.part:
        gone = [name for name in gone if name.startswith((f"{arch.part}.", "shared."))]
    missing = [name for name in gone if not name.startswith("pooler.")]
    if missing or info["mismatched_keys"]:
        raise RequestError(
            f"Model {model!r} lacks weights of its own architecture: {len(missing)} missing "
            f"({', '.join(sorted(missing)[:3])}…), {len(info['mismatched_keys'])} of another "
            "shape. Training on random weights would be silent nonsense; give a complete model."
        )
    named = [(n, p) for n, p in encoder.named_parameters() if not n.startswith("pooler.")]
    pooler = [(n, p) for n, p in encoder.named_parameters() if n.startswith("pooler.")]
    has_pooler = bool(pooler) and not any(n.startswith("pooler.") for n in info["missing_keys"])
    weights, words = tensors_fingerprint(named), tokenizer_fingerprint(tokenizer)
    decides = deciding(config, tokenizer)
    base = Base(
        id=reference.id,
        revision=files.revision,
        fingerprint=function_fingerprint(weights, config.model_type, decides, words),
        type=config.model_type,
        hidden_size=config.hidden_size,
        layers=config.num_hidden_layers,
        tokenizer=words,
        weights=weights,
        pooler=tensors_fingerprint(pooler) if has_pooler else None,
        config=decides,
    )
    return Loaded(encoder.eval(), tokenizer, KnownBase(base, token_limit(tokenizer)))
