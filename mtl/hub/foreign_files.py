"""The files of an adapter that stock ``adapters`` wrote: read as tensors and plain values."""

from __future__ import annotations

import pickle
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone import heads
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, sha256_file, write_json, write_safetensors
from mtl.hub.boundary import file_bytes, json_bytes, json_file
from mtl.hub.remote import Remote, fetch
from mtl.hub.stock import COPIES
from mtl.untrusted import read_header
from mtl.words import printable
from mtl.zoo import admit

if TYPE_CHECKING:
    from torch import Tensor

    from mtl.backbone import Backbone

_LAYERS = 100
"""How often a file may name a tensor again: ``adapters`` names a shared prefix once per layer."""
_KINDS = {"classification": "classification", "multilabel_classification": "multilabel"}


@dataclass(frozen=True)
class FoundHead:
    """A head that is one of our designs, or why there is none.

    Attributes:
        head: the module, or None.
        kind: of the task that it answers.
        labels: in the order of its logits.
        note: why there is no head.
    """

    head: Any
    kind: str
    labels: tuple[str, ...]
    note: str
    layers: int = 0

    @property
    def design(self) -> str | None:
        """Its name among our heads."""
        if self.head is None:
            return None
        return _design(self.layers, self.head.use_pooler, mean=self.head.mean)


def _design(layers: Any, use_pooler: Any, *, mean: bool) -> str | None:
    wanted = heads.HeadDesign(layers, use_pooler, mean=mean)
    return next((name for name in heads.HEADS.names() if heads.HEADS.get(name) == wanted), None)


def at(folder: str, name: str) -> str:
    """Path of a file in ``folder`` of a repository, "" for its root."""
    return f"{folder}/{name}" if folder else name


def read_weights(
    remote: Remote, folder: str, name: str, allow_bin: bool
) -> tuple[dict[str, Tensor], str]:
    """The tensors of a safetensors file or its ``.bin`` copy, and the hash of what was read.

    Raises:
        RequestError: only a ``.bin`` is there, and it may not be read.
        ZooError: there is none, or it holds something else than tensors.
    """
    safe, pickled = at(folder, name), at(folder, COPIES[name])
    if safe in remote.files:
        path = fetch(remote, safe, file_bytes())
        read_header(path, name)  # bounded, before a library takes memory for what it declares
        tensors = read_safetensors(path)[0]
    elif pickled not in remote.files:
        raise ZooError(f"it has neither {name} nor {COPIES[name]}")
    elif not allow_bin:
        raise RequestError(
            f"it has its weights only as {COPIES[name]}, a format that can carry code. Pass "
            "--allow-bin to read it as tensors only (nothing in it is executed), or ask its owner "
            "for safetensors"
        )
    else:
        path = fetch(remote, pickled, file_bytes())
        tensors = _read_bin(path, COPIES[name])
    return tensors, sha256_file(path)


def _read_bin(path: Path, name: str) -> dict[str, Tensor]:
    import torch

    _check_archive(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about protocols that its reader knows in part
            value = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise ZooError(
            f"its {name} is no file of tensors: {' '.join(str(error).split())[:200]}"
        ) from error
    if not isinstance(value, dict) or not all(
        isinstance(key, str) and type(item) is torch.Tensor for key, item in value.items()
    ):
        raise ZooError(f"its {name} holds something else than tensors by name")
    # A view may repeat a few bytes as often as it likes; laid out, it would fill the memory.
    size = path.stat().st_size
    needed = [item.numel() * item.element_size() for item in value.values()]
    if max(needed, default=0) > size or sum(needed) > _LAYERS * size:
        raise ZooError(f"its {name} of {size} bytes declares {sum(needed)} bytes of tensors")
    return {key: item.contiguous() for key, item in value.items()}


def _check_archive(path: Path, name: str) -> None:
    """Refuse a ``.bin`` that unpacks to more than it is: ``torch.save`` compresses nothing."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            items = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ZooError(f"its {name} is a damaged archive: {error}") from error
    if any(item.compress_type != zipfile.ZIP_STORED for item in items):
        raise ZooError(f"its {name} is compressed, which torch.save never does")
    if sum(item.file_size for item in items) > path.stat().st_size:
        raise ZooError(f"its {name} declares more bytes than it has")


def read_head(remote: Remote, folder: str, allow_bin: bool, backbone: Backbone) -> FoundHead:
    """The stored head if it is one of our designs; else the reason why the entry has none."""
    place = at(folder, heads.CONFIG_FILE)
    if place not in remote.files:
        return FoundHead(None, "classification", (), "The repository holds no prediction head.")
    stored = json_file(fetch(remote, place, json_bytes()), "its head")
    config = stored.get("config") if isinstance(stored, dict) else None
    config = config if isinstance(config, dict) else {}
    kind = _KINDS.get(str(config.get("head_type")))
    fits = (
        kind is not None
        and config.get("bias", True) is True
        and _design(config.get("layers"), config.get("use_pooler"), mean="pooling" in config)
        is not None
        and (config.get("layers") == 1 or config.get("activation_function") == "tanh")
    )
    if kind is None or not fits or isinstance(config.get("num_labels"), bool):
        said = printable(config.get("head_type"))[:40]
        return FoundHead(None, "classification", (), f"Its head ({said}) is of no design of mtl.")
    try:
        tensors, _ = read_weights(remote, folder, heads.WEIGHTS_FILE, allow_bin)
        with tempfile.TemporaryDirectory(prefix="mtl-foreign-") as scratch:
            write_json(Path(scratch) / heads.CONFIG_FILE, stored)
            write_safetensors(Path(scratch) / heads.WEIGHTS_FILE, tensors)
            admit(Path(scratch), "the head")
            encoder = backbone.pristine
            head = heads.load_head(Path(scratch), encoder.config, pooler=backbone.pooler)
    except (ZooError, RequestError) as error:
        return FoundHead(None, "classification", (), f"Its head was left out: {error}")
    outputs = int(config["num_labels"])
    labels = _labels(config.get("label2id"), outputs)
    if kind == "classification" and outputs == 1:
        kind, labels = "regression", ()
    return FoundHead(head, kind, labels, "", int(config["layers"]))


def _labels(value: Any, outputs: int) -> tuple[str, ...]:
    """Names in the order of the logits, if that is what ``value`` says."""
    indices = set(map(repr, value.values())) if isinstance(value, dict) else set()
    if not isinstance(value, dict) or indices != set(map(repr, range(outputs))):
        return tuple(f"LABEL_{index}" for index in range(outputs))
    return tuple(printable(name)[:200] for name, _ in sorted(value.items(), key=lambda p: p[1]))
