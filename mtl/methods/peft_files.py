"""Methods that ``peft`` trains: how it is found, and its files.

``adapter_config.json`` is the method's ``peft`` config, ``adapter_model.safetensors`` holds tensors
named ``base_model.model.<module>.<tensor>``: what ``PeftModel.from_pretrained`` reads. Loading
needs no ``peft``: the factors are read from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, ZooError
from mtl.files import read_json, read_safetensors, write_json, write_safetensors
from mtl.methods.tuned import Tuned

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.methods.low_rank import Factors

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
NAME = "default"
"""The adapter's name inside ``peft``; it is no part of the files."""


def require_peft(what: str) -> None:
    """Raises RequestError, with the remedy, where ``peft`` is not installed.

    Args:
        what: who does what through it, for the message: ``Method 'vera' trains``.
    """
    if find_spec("peft") is None:
        raise RequestError(
            f"{what} through the package peft, which is not installed. Install it: pip install peft"
        )


def config_dict(config: Any) -> dict[str, Any]:
    """A ``peft`` config as JSON."""
    found = {}
    for key, value in sorted(config.to_dict().items()):
        if isinstance(value, set | frozenset | tuple):
            value = sorted(value)
        # peft_type and task_type are enumerations; the latter is usually None
        found[key] = getattr(value, "value", value)
    return {**found, "inference_mode": True}


def save_peft(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], base: str
) -> None:
    """Write both files; ``base`` becomes ``base_model_name_or_path``.

    Raises:
        RunError: the system refuses (full disk, read-only folder).
    """
    write_json(folder / CONFIG_FILE, {**config, "base_model_name_or_path": base})
    write_safetensors(folder / WEIGHTS_FILE, tensors)


def read_peft(
    folder: Path, kind: str, expected: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and tensors that :func:`save_peft` wrote.

    Args:
        kind: ``peft_type``.
        expected: further entries of the config, by what the run's settings say.

    Raises:
        ZooError: files missing or damaged, of another method, or of other settings.
    """
    config = read_json(folder / CONFIG_FILE)
    wanted = {"peft_type": kind, **expected}
    found = {key: config.get(key) if isinstance(config, dict) else None for key in wanted}
    if found != wanted:
        raise ZooError(
            f"Cannot load the adapter in {folder}: its {CONFIG_FILE} says {found}; expected "
            f"{wanted}."
        )
    return config, read_safetensors(folder / WEIGHTS_FILE)[0]


def take(folder: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """The stored tensor ``name``.

    Raises:
        ZooError: it is not there.
    """
    if name not in tensors:
        raise ZooError(
            f"Cannot load the adapter in {folder}: {WEIGHTS_FILE} lacks {name!r}, so it is of "
            "other modules or of another base."
        )
    return tensors[name]


Parse = Callable[
    [Any, Any, Path], tuple[dict[str, Any], dict[str, "Tensor"], Mapping[str, "Factors"]]
]
"""(encoder, settings, folder) → a stored entry's config, tensors and factors by site."""


def read_factors(parse: Parse, encoder: Any, settings: Any, folder: Path) -> dict[str, Factors]:
    """The stored factors by site.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    from mtl.methods.modules.low_rank import check_shapes

    return check_shapes(encoder, settings.modules, folder, parse(encoder, settings, folder)[2])


def load_peft(parse: Parse, encoder: Any, settings: Any, name: str, folder: Path) -> Tuned:
    """Add the stored factors, frozen and active; ``peft`` is not needed.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    from mtl.methods.modules.low_rank import check_shapes, install

    config, stored, factors = parse(encoder, settings, folder)
    install(encoder, name, check_shapes(encoder, settings.modules, folder, factors))
    return Tuned([], lambda target, base: save_peft(target, config, stored, base))
