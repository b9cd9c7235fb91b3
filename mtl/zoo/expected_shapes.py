"""Whether the files of an entry fit what its manifest says about base, task and parents.

Hashes say that a file is the one that was stored; a stranger writes manifest *and* files. So the
shapes that a loader will meet are compared with the manifest before any module is built for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mtl.untrusted import asks_for_code
from mtl.zoo.composition import FILE as COMPOSITION
from mtl.zoo.composition import share_problems, weight_problem
from mtl.zoo.joint_shapes import task_of
from mtl.zoo.manifest import Manifest
from mtl.zoo.names import SHARES, predictions_of, show
from mtl.zoo.problem import Problem

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor → dtype and shape."""

ADAPTER, HEAD = "adapter_config.json", "head_config.json"
FLOATS = {"F16", "BF16", "F32", "F64"}
WEIGHTS = (
    "adapter.safetensors", "adapter_model.safetensors", "delta.safetensors",
    COMPOSITION,
)  # fmt: skip
LAYER = re.compile(r"(?:^|\.)(?:layers?|h|block)\.([0-9]+)\.")
_OWN = re.compile(r"mtl_[a-z0-9_]{1,60}")
ONE_SCORE_PER_OUTPUT = {"classification", "multilabel", "regression"}
STOCK = {"lora", "prefix_tuning", "prompt_tuning", "reft", "union"}
"""Architectures that ``adapters`` knows, beside None, its bottleneck. Ours begin with ``mtl_``."""


def config_problems(name: str, value: Any, manifest: Manifest | None) -> Iterator[Problem]:
    """Problems of a config file: what it asks for, and how it fits the manifest."""
    key = asks_for_code(value)
    if key:
        yield Problem("config", name, f"asks for code ({key!r}); nothing is ever executed.", "")
    base = name.rpartition("/")[2]
    if base not in {ADAPTER, HEAD}:
        return
    if not isinstance(value, dict) or not isinstance(value.get("config", {}), dict):
        yield Problem("config", name, f"is {show(value)}, not a config.", "")
        return
    config = value.get("config", {})
    if base == ADAPTER:
        architecture = config.get("architecture")
        known = architecture is None or (
            isinstance(architecture, str)
            and (architecture in STOCK or _OWN.fullmatch(architecture) is not None)
        )
        if not known:
            yield Problem(
                "config", name, f"is of the unknown architecture {show(architecture)}.", ""
            )
    if manifest is None:
        return
    wanted = {"hidden_size": manifest.base["hidden_size"], "model_type": manifest.base["type"]}
    for what, expected in wanted.items():
        if value.get(what, expected) != expected:
            yield Problem(
                "fit",
                name,
                f"says {what} {show(value[what])}, the manifest's base has {show(expected)}.",
                "",
            )


def tensor_problems(
    name: str, shapes: Shapes, manifest: Manifest, configs: Mapping[str, Any]
) -> Iterator[Problem]:
    """Problems of one safetensors file of an entry against its manifest and head config."""
    base = name.rpartition("/")[2]
    if predictions_of(name):
        yield from _predictions(name, shapes, task_of(name, manifest))
        return
    if name == SHARES:
        yield from (Problem("fit", name, text, "") for text in share_problems(shapes, manifest))
        return
    for tensor, (dtype, shape) in shapes.items():
        index = tensor.endswith("#index")
        if base in {*WEIGHTS, "model_head.safetensors"} and (
            dtype != "I64" if index else dtype not in FLOATS | {"BOOL", "U8"}
        ):
            yield Problem("fit", name, f"{show(tensor)} is {dtype}: weights are floats.", "")
        found = LAYER.search(tensor)
        if found and (len(found[1]) > 6 or int(found[1]) >= manifest.base["layers"]):
            yield Problem(
                "fit",
                name,
                f"{show(tensor)} is of layer {found[1][:20]}; the base has "
                f"{manifest.base['layers']} layers.",
                "",
            )
        message = weight_problem(tensor, shape, manifest) if base == COMPOSITION else None
        if message:
            yield Problem("fit", name, message, "")
    if base == "model_head.safetensors":
        yield from _head(name, shapes, manifest, configs.get(name.replace(base, HEAD)))


def _head(name: str, shapes: Shapes, manifest: Manifest, config: Any) -> Iterator[Problem]:
    matrices = {key: shape for key, (_, shape) in shapes.items() if len(shape) == 2}
    hidden = manifest.base["hidden_size"]
    for key, shape in matrices.items():
        if shape[1] != hidden:
            message = f"{show(key)} has the shape {shape}; its input is {hidden} wide."
            yield Problem("fit", name, message, "")
    outputs = task_of(name, manifest).get("num_outputs")
    widths = {shape[0] for shape in matrices.values()}
    if outputs is not None and matrices and (type(outputs) is not int or outputs not in widths):
        message = f"no layer gives the {show(outputs)} outputs that the manifest's task has."
        yield Problem("fit", name, message, "")
    settings = config.get("config") if isinstance(config, dict) else None
    settings = settings if isinstance(settings, dict) else {}
    declared, layers = settings.get("num_labels"), settings.get("layers")
    if declared is not None and matrices and (type(declared) is not int or declared not in widths):
        message = f"{HEAD} declares {show(declared)} outputs, no layer of the head has them."
        yield Problem("fit", name, message, "")
    if layers is not None and (type(layers) is not int or not 0 < layers <= len(matrices)):
        message = f"{HEAD} declares {show(layers)} layers, the head has {len(matrices)}."
        yield Problem("fit", name, message, "")


def _predictions(name: str, shapes: Shapes, task: Mapping[str, Any]) -> Iterator[Problem]:
    wanted = {"row", "label", "prediction", "scores"}
    if set(shapes) != wanted:
        message = f"holds {show(sorted(shapes))}; predictions have {sorted(wanted)}."
        yield Problem("fit", name, message, "")
        return
    rows = shapes["row"][1][:1]
    for key, (dtype, shape) in shapes.items():
        allowed = {"row": {"I64"}, "scores": {"F32"}}.get(key, {"I64", "F32"})
        if dtype not in allowed or shape[:1] != rows or len(shape) > 2:
            message = f"{key} is {dtype} of shape {shape}; the rows are {rows}."
            yield Problem("fit", name, message, "")
    outputs, scores = task.get("num_outputs"), shapes["scores"][1]
    # of the other kinds the width of a row depends on the data: choices, tokens
    if (
        outputs is not None
        and task.get("kind") in ONE_SCORE_PER_OUTPUT
        and scores[1:] != (outputs,)
    ):
        message = f"its scores have the shape {scores}; the task has {show(outputs)} outputs."
        yield Problem("fit", name, message, "")
