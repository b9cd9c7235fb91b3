"""The tensors of a ``peft`` adapter, by the module of the encoder that each belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import arch_of
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, sha256_file
from mtl.hub.boundary import file_bytes
from mtl.hub.foreign_files import at
from mtl.hub.peft_config import PeftConfig
from mtl.hub.remote import Remote, fetch
from mtl.untrusted import read_header
from mtl.words import counted, printable

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
OUTER, PREFIX = "base_model.", "base_model.model."
_SHARED = {
    "VERA": {"vera_A", "vera_B"},
    "RANDLORA": {"randlora_A", "randlora_B"},
}
"""What all modules of a kind share."""


@dataclass
class PeftTensors:
    """The tensors, sorted.

    Attributes:
        modules: path of a linear module in the encoder → what the adapter has there, by name.
        names: the same paths → what the file calls the module.
        shared: what all modules share.
        trained: parameters of the encoder that were trained themselves, by name.
        beside: whatever belongs to no module of the encoder: a head.
        sha256: of the file.
    """

    sha256: str
    modules: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    shared: dict[str, Tensor] = field(default_factory=dict)
    trained: dict[str, Tensor] = field(default_factory=dict)
    beside: dict[str, Tensor] = field(default_factory=dict)


def read_tensors(remote: Remote, folder: str, config: PeftConfig, encoder: Any) -> PeftTensors:
    """Read the weights and find out where in ``encoder`` they belong.

    Raises:
        RequestError: only a pickled file is there.
        ZooError: no file, a damaged one, or names that ``peft`` does not write.
    """
    safe = at(folder, WEIGHTS)
    if safe not in remote.files:
        if at(folder, PICKLED) in remote.files:
            raise RequestError(
                f"it has its weights only as {PICKLED}, a format that can carry code, and mtl "
                "unpickles nothing of peft. Ask its owner for safetensors, or load it with peft, "
                "where you trust it, and save it again (save_pretrained writes them)"
            )
        raise ZooError(f"it has no {WEIGHTS}")
    path = fetch(remote, safe, file_bytes())
    read_header(path, WEIGHTS)  # bounded, before a library takes memory for what it declares
    found = PeftTensors(sha256_file(path))
    modules = dict(encoder.named_modules())
    for name, tensor in read_safetensors(path)[0].items():
        if not tensor.dtype.is_floating_point or not bool(tensor.isfinite().all()):
            raise ZooError(
                f"its tensor {printable(name)[:80]} holds NaN, infinities or no fractions"
            )
        _sort(found, name, tensor.float(), config, modules, _prefixes(encoder))
    _check_complete(found, config, encoder)
    return found


def _sort(
    found: PeftTensors,
    name: str,
    tensor: Tensor,
    config: PeftConfig,
    modules: Mapping[str, Any],
    prefixes: tuple[str, ...],
) -> None:
    inner = name.removeprefix(PREFIX)
    if inner == name:
        shared = name.removeprefix(OUTER)
        if shared == name or shared not in _SHARED.get(config.kind, ()):
            raise ZooError(f"its tensor {printable(name)[:80]} is none that peft writes there")
        found.shared[name] = tensor
        return
    own = next((inner.removeprefix(end) for end in prefixes if inner.startswith(end)), inner)
    parts = own.split(".")
    ends = range(len(parts) - 1, 0, -1)
    path = next((p for end in ends if (p := ".".join(parts[:end])) in modules), None)
    if path is None:
        found.beside[inner] = tensor
        return
    rest = own.removeprefix(f"{path}.")
    outer = inner.removesuffix(f".{rest}")
    if rest in dict(modules[path].named_parameters(recurse=False)):
        place, key = found.trained, own
    elif found.names.setdefault(path, outer) != outer:
        raise ZooError(f"it names the module {path} in two ways")
    else:
        place, key = found.modules.setdefault(path, {}), rest
    if key in place:
        raise ZooError(f"it names the tensor {printable(own)[:80]} in two ways")
    place[key] = tensor


def _check_complete(found: PeftTensors, config: PeftConfig, encoder: Any) -> None:
    """None is of a decoder that is not there; where a config lists modules, all are of these."""
    from torch import nn

    own = ("", *_prefixes(encoder))
    beyond = [name for name in found.beside if name.startswith(tuple(p + "decoder." for p in own))]
    if beyond and arch_of(encoder.config).alone:
        raise RequestError(
            f"it changes a decoder, too ({unused(beyond)}), and this base is an "
            "encoder alone: half of it would be another adapter"
        )
    if not found.modules:
        listed = ", ".join(printable(name)[:60] for name in [*found.beside, *found.trained][:3])
        raise ZooError(
            f"none of its tensors belongs to a module of this encoder ({listed or 'it has none'}): "
            "it is of another base"
        )
    if config.targets is None or config.some_layers:
        return
    prefixes = ("", *_prefixes(encoder))
    linears = [
        name
        for name, item in encoder.named_modules()
        if isinstance(item, nn.Linear) or hasattr(item, "nf")  # GPT-2's Conv1D
    ]
    expected = {name for name in linears if _named(name, prefixes, config.targets)}
    more = sorted({*found.modules} - expected)
    # Models for sequence classification have no pooler where their head has a layer of its own.
    absent = sorted(name for name in expected - {*found.modules} if not is_pooler(name))
    if absent or more:
        what = "that it names have no weights" if absent else "that have weights are not named"
        raise ZooError(
            f"its weights and its config differ: {counted(len(absent or more), 'module')} {what} "
            f"there ({', '.join((absent or more)[:3])}). It is incomplete, or of another base"
        )


def _prefixes(encoder: Any) -> tuple[str, ...]:
    """How models around the encoder call it: a decoder ``model``, whatever its class says."""
    outer = (f"{encoder.base_model_prefix}.", "model.")
    part = arch_of(encoder.config).part
    return (*(f"{name}{part}." for name in (*outer, "")), *outer) if part else outer


def _named(name: str, prefixes: tuple[str, ...], targets: tuple[str, ...]) -> bool:
    names = [prefix + name for prefix in prefixes]
    return any(one == end or one.endswith(f".{end}") for one in names for end in targets)


def is_pooler(name: str) -> bool:
    """Whether a module or parameter of this name is the base's pooler, which only heads read."""
    return name.startswith("pooler.")


def unused(tensors: Iterable[str]) -> str:
    """The first names of ``tensors``, for a message."""
    names = [printable(name)[:80] for name in sorted(tensors)]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
