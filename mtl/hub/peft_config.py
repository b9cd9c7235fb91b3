"""``adapter_config.json`` of ``peft``, read by us: which method, and the values that decide what it
computes.

``peft`` would take any key of it, match its regular expressions against every module, and build
whatever it says. So nothing of the file goes there as it is: keys that decide are known by kind and
checked by type, keys of training alone are passed over, and every other one has to be empty. Which
modules are changed is read off the names of the tensors; no pattern of a stranger is ever run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, ZooError
from mtl.files import model_name
from mtl.typed import given
from mtl.untrusted import asks_for_code
from mtl.words import printable
from mtl.zoo.machine import is_machine_path

if TYPE_CHECKING:
    from mtl.hub.remote import Remote

Check = Callable[[Any], bool]
Value = Mapping[str, Any]

_LARGEST = 1 << 24
_LISTED = 10_000
"""More modules than a config lists; each is compared with every one of the encoder."""
PLAIN = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
"""Names of modules, whole or their end. What has other characters is an expression to match."""


def _count(value: Any) -> bool:
    return type(value) is int and 0 < value <= _LARGEST


def _seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < 1e9


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(*known: Any) -> Check:
    return lambda value: any(type(value) is type(one) and value == one for one in known)


def _per_module(check: Check) -> Check:
    def every(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and len(value) <= _LISTED
            and all(
                PLAIN.fullmatch(key) is not None and check(inner) for key, inner in value.items()
            )
        )

    return every


def _factor(value: Any) -> bool:
    return type(value) is int and (value == -1 or 0 < value <= _LARGEST)


def _wavelet(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[a-z]{2,4}[0-9.]{0,4}", value) is not None


_STARTS = _one_of(True, False, "gaussian", "eva", "orthogonal")
_RANKS = {"r": _count, "rank_pattern": _per_module(_count)}
_ALPHAS = {"alpha": _number, "alpha_pattern": _per_module(_number)}
_RANDOM: dict[str, Check] = {"r": _count, "projection_prng_key": _seed, "save_projection": _flag}
_SPECTRUM = {
    "n_frequency": _count, "scaling": _number, "random_loc_seed": _seed,
    "n_frequency_pattern": _per_module(_count),
}  # fmt: skip
KINDS: dict[str, dict[str, Check]] = {
    "LORA": {
        **_RANKS, "lora_alpha": _number, "alpha_pattern": _per_module(_number),
        "use_rslora": _flag, "use_dora": _flag, "init_lora_weights": _STARTS,
    },
    "ADALORA": {
        "r": _count, "init_r": _count, "lora_alpha": _number,
        "rank_pattern": lambda value: isinstance(value, dict),  # says again what the shapes say
    },
    "LOHA": {**_RANKS, **_ALPHAS},
    "LOKR": {**_RANKS, **_ALPHAS, "decompose_both": _flag, "decompose_factor": _factor},
    "VERA": _RANDOM,
    "RANDLORA": {**_RANDOM, "randlora_alpha": _number, "sparse": _flag, "very_sparse": _flag},
    "C3A": {"block_size": _count, "block_size_pattern": _per_module(_count)},
    "FOURIERFT": _SPECTRUM,
    "WAVEFT": {
        **_SPECTRUM, "wavelet_family": _wavelet, "use_idwt": _flag,
        "proportional_parameters": _flag,
    },
    "MISS": {"r": _count, "mini_r": _count, "init_weights": _one_of(True, False, "bat", "mini")},
}  # fmt: skip
"""``peft_type`` → the keys that decide what it computes, and what each may be."""

_PASSED_OVER = frozenset(
    {
        # who wrote it, on what, and what for: said, or read elsewhere
        "peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision",
        "inference_mode", "auto_mapping", "modules_to_save",
        # which modules: the names of the tensors say that
        "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
        # training alone, or how it began
        "lora_dropout", "vera_dropout", "d_initial", "randlora_dropout", "miss_dropout",
        "rank_dropout", "rank_dropout_scale", "module_dropout", "init_weights", "eva_config",
        "init_lora_weights", "target_r", "tinit", "tfinal", "deltaT", "beta1", "beta2",
        "orth_reg_weight", "total_step",
        # of layers that are not linear, of other libraries, or of options that must be off
        "fan_in_fan_out", "use_effective_conv2d", "loftq_config", "megatron_core",
        "qalora_group_size", "runtime_config", "ensure_weight_tying", "corda_config",
        "lora_ga_config",
    }
)  # fmt: skip
_WHY = {
    "bias": "it trained biases of the base, too",
    "lora_bias": "it adds biases of its own",
    "trainable_token_indices": "it trained embeddings, too",
    "layer_replication": "it repeats layers of the base",
    "alora_invocation_tokens": "it acts on a part of each text only",
    "target_parameters": "it changes parameters that are no linear module's",
    "use_qalora": "it pools what a module reads",
    "init_lora_weights": "its training began with other weights of the base than the base's; peft "
    "can save it for the base itself (path_initial_model_for_weight_conversion)",
}
_MULTIPLIES = (
    "it multiplies the base's weights instead of adding to them, which peft converts to none"
)
_TOKENS = "it adds tokens or prefixes; no linear module is changed"
REFUSED = {
    **dict.fromkeys(("OFT", "BOFT", "HRA", "HIRA", "ROAD", "PSOFT", "OSF"), _MULTIPLIES),
    "IA3": "it scales what modules answer instead of adding to it, which is of no low rank",
    "SHIRA": "it changes scattered entries of the weights, which is of no low rank",
    "LN_TUNING": "it changes LayerNorms, no linear module",
    **dict.fromkeys(
        (
            "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT",
            "ADAPTION_PROMPT", "TRAINABLE_TOKENS", "CARTRIDGE",
        ),
        _TOKENS,
    ),
    **dict.fromkeys(("POLY", "XLORA"), "which of its parts act depends on the task or the text"),
}  # fmt: skip
"""``peft_type`` → why no LoRA is made of it."""


@dataclass(frozen=True)
class PeftConfig:
    """What a config says.

    Attributes:
        kind: ``peft_type``.
        values: the keys of :data:`KINDS` that it has, checked.
        targets: names or ends of names of the modules, None where it gives a pattern, or none.
        some_layers: it is of some layers, or leaves modules out: not all of ``targets`` are meant.
        task_type: ``SEQ_CLS``, …, or None.
        base: ``base_model_name_or_path``; of a folder, what that is called.
        version: the ``peft`` that wrote it.
        dropout: on what modules read, while it was trained.
    """

    kind: str
    values: Value
    targets: tuple[str, ...] | None
    some_layers: bool
    task_type: str | None
    base: str | None
    version: str | None
    dropout: float

    def of_module(self, key: str, pattern: str, module: str, default: Any = None) -> Any:
        """``values[key]``, or what ``values[pattern]`` says of a module of that name.

        The first key counts that is the name or its end, as for ``peft``.
        """
        for name, value in self.values.get(pattern, {}).items():
            if module == name or module.endswith(f".{name}"):
                return value
        return self.values.get(key, default)


def is_peft(value: Any) -> bool:
    """Whether an ``adapter_config.json`` is one of ``peft``."""
    return isinstance(value, Mapping) and "peft_type" in value


def refuse_peft(value: Any, remote: Remote) -> None:
    """Raise RequestError where somebody pulls as stock ``adapters``' what ``peft`` wrote."""
    if is_peft(value):
        raise RequestError(
            f"{remote.where} holds an adapter that peft wrote, not stock adapters. It becomes an "
            f"entry of lora with: python -m mtl.zoo pull --peft hub:{remote.repo} --model MODEL"
            f"{given('--zoo')}"
        )


def read_config(value: Any) -> PeftConfig:
    """Check a config.

    Raises:
        RequestError: no config of ``peft``, a kind of which no LoRA is made, or an option that mtl
            does not take over.
        ZooError: it asks for code, or a value is none of its key's.
    """
    if not is_peft(value):
        raise RequestError("its adapter_config.json is none of peft: it has no peft_type")
    key = asks_for_code(value)
    if key:
        raise ZooError(f"its adapter_config.json asks for code ({key!r}); nothing is ever executed")
    kind = value["peft_type"]
    if not isinstance(kind, str) or kind not in KINDS:
        said = printable(kind)[:40]
        why = REFUSED.get(kind) if isinstance(kind, str) else None
        raise RequestError(
            f"it is a {said} adapter, of which no LoRA is made: {why}"
            if why
            else f"its peft_type is {said}; mtl converts {', '.join(KINDS)}"
        )
    known = KINDS[kind]
    values = {}
    for name, inner in value.items():
        if name in known and inner is not None:
            if not known[name](inner):
                raise _refusal(kind, name, inner)
            values[name] = inner
        elif name not in known and name not in _PASSED_OVER and not _empty(name, inner):
            raise _refusal(kind, name, inner)
    return PeftConfig(
        kind,
        values,
        _names(value.get("target_modules")),
        any(value.get(key) not in (None, [], "") for key in _SOME),
        _text(value, "task_type"),
        _base(value),
        _text(value, "peft_version"),
        _dropout(value),
    )


_SOME = ("layers_to_transform", "exclude_modules")


def _empty(name: str, value: Any) -> bool:
    return value in (None, False, [], {}) or (name == "bias" and value == "none")


def _refusal(kind: str, name: str, value: Any) -> ZooError | RequestError:
    said = f"its config says {printable(name)[:60]}={printable(value)[:60]!r}"
    if name in _WHY:
        return RequestError(f"{said}: {_WHY[name]}, which no LoRA of mtl holds")
    if name in KINDS[kind]:
        return ZooError(f"{said}, which is no value of that key that mtl knows")
    return RequestError(f"{said}, an option that mtl does not know, so it cannot leave it out")


def _text(value: Value, key: str) -> str | None:
    found = value.get(key)
    return printable(found)[:200] if isinstance(found, str) and found else None


def _base(value: Value) -> str | None:
    said = _text(value, "base_model_name_or_path")
    return model_name(said.rstrip("/\\")) if said and is_machine_path(said) else said


def _names(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list) and len(value) > _LISTED:
        raise ZooError(f"its config lists {len(value)} modules")
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return tuple(value) if all(PLAIN.fullmatch(item) for item in value) else None
    return None


def _dropout(value: Value) -> float:
    found = value.get("lora_dropout")
    return float(found) if isinstance(found, float) and 0 <= found < 1 else 0.0
