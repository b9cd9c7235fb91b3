"""An entry as one ONNX model: batch and length are free, names and labels in its metadata."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone.network import INPUTS
from mtl.errors import RequestError, RunError

if TYPE_CHECKING:
    from mtl.backbone import Network
    from mtl.zoo import Entry

FILE, SMALL = "model.onnx", "model_int8.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
LARGEST = 1_900_000_000
"""Bytes of weights that one file of protobuf holds; of more, they lie in a file beside it."""


class _Plain(nn.Module):
    """A network whose inputs are tensors with places, as an exporter wants them."""

    def __init__(self, network: Network, names: list[str]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.network(dict(zip(self.names, tensors, strict=True)))
        return logits


class OnnxNetwork(nn.Module):
    """An ONNX model as a network: batch → logits, by onnxruntime on the CPU."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        super().__init__()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.names = [item.name for item in self.session.get_inputs()]

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        given = {name: batch[name].cpu().numpy() for name in self.names}
        return torch.from_numpy(self.session.run(None, given)[0])


def require_onnx() -> None:
    """Refuse where a library is missing. Raises RequestError."""
    lacking = [name for name in PACKAGES if find_spec(name) is None]
    if lacking:
        raise RequestError(
            f"--to onnx writes through {', '.join(lacking)}, which is not installed. Install it: "
            f"pip install {' '.join(lacking)}"
        )


def write_onnx(folder: Path, entry: Entry, network: Network, batch: dict[str, Tensor]) -> Path:
    """Write ``network`` as ``model.onnx`` into ``folder``; returns its path.

    Inputs ``input_ids``, ``attention_mask`` (and ``token_type_ids`` where the base has them), each
    (batch, length) of int64; output ``logits``. Metadata: see :func:`metadata`.

    Args:
        batch: shows names and types of the inputs.

    Raises:
        RunError: the exporter of torch cannot say what the network computes.
    """
    names = [name for name in INPUTS if name in batch]
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    path = folder / FILE
    with torch.no_grad(), _silent(), _gathering(network):
        try:
            program = torch.onnx.export(
                _Plain(network, names).eval(),
                tuple(batch[name] for name in names),
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple(free for _ in names),),
            )
        except Exception as error:  # whatever the tracer, the decomposer or the translator raises
            raise RunError(
                f"Cannot export {entry.ref} to onnx: {_first_line(error)}. Nothing was written."
            ) from error
    assert program is not None
    program.model.metadata_props.update(metadata(entry))
    size = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    program.save(str(path), external_data=size > LARGEST)
    return path


@contextlib.contextmanager
def _gathering(network: nn.Module) -> Iterator[None]:
    """Let what ``adapters`` adds to a fused module (GPT-2's queries, keys and values) gather.

    It puts its outputs into their places by a mask of booleans, for which ONNX has no operation.
    """
    from adapters.methods.lora import LoRAMergedLinear

    fused = [module for module in network.modules() if isinstance(module, LoRAMergedLinear)]
    for module in fused:
        module.__dict__["pad"] = partial(_placed, module.out_features)
    try:
        yield
    finally:
        for module in fused:
            del module.__dict__["pad"]


def _placed(width: int, x: Tensor, lora: Any, fill_value: float | None = None) -> Tensor:
    """The outputs ``x`` at their places among ``width``, the others 0, or 1 where it multiplies."""
    if fill_value is None:
        fill_value = 0.0 if lora.composition_mode == "add" else 1.0
    kept = lora.lora_ind.cpu()
    order = torch.where(kept, kept.long().cumsum(0) - 1, int(kept.sum()))
    rest = x.new_full((*x.shape[:-1], 1), fill_value)
    return torch.cat([x, rest], -1).index_select(-1, order.to(x.device))


def metadata(entry: Entry) -> dict[str, str]:
    """What a model says of itself, as texts: lists and templates are JSON."""
    manifest = entry.manifest
    spec = manifest.task.get("spec")
    found: dict[str, Any] = {
        "mtl.entry": entry.ref,
        "mtl.digest": entry.digest,
        "mtl.task": manifest.task["id"],
        "mtl.kind": manifest.task.get("kind"),
        "mtl.labels": manifest.task.get("labels") or [],
        "mtl.head": manifest.head.get("design") or manifest.head.get("name"),
        "mtl.base": manifest.base["id"],
        "mtl.base_fingerprint": manifest.base["fingerprint"],
    }
    if isinstance(spec, Mapping):
        found |= {f"mtl.{key}": spec.get(key) for key in ("inputs", "max_length", "truncate")}
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in found.items()
        if value is not None
    }


def quantise(path: Path) -> Path:
    """Weights of ``model.onnx`` in int8 beside it, activations quantised as they come.

    Returns:
        The path of ``model_int8.onnx``.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = path.with_name(SMALL)
    with _silent():
        quantize_dynamic(str(path), str(small), weight_type=QuantType.QInt8)
    return small


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporters say much that no user can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
