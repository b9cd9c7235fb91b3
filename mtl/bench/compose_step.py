"""Cost of stage two, as ratios to the bare frozen encoder.

All variants run in one process, in interleaved rounds, on copies of one randomly initialised
encoder (weights do not change the cost) with its dropout on:

=================  ==========================================================================
bare               forward, and backward through activations down to the first FFN's output:
                   what any method that trains something in every layer must pay
single             one Pfeiffer adapter training
scalearn_folded    ScaLearn over K sources as ``mtl`` trains it
scalearn_looped    the same function, one source after the other
stock_fuse         AdapterFusion as ``adapters`` trains it
fusion             the same function as ``mtl`` trains it
=================  ==========================================================================

Inference (forward only, no dropout): the bare encoder, one adapter of stock ``adapters`` of width
K·R, and the composition of K sources with its fold held, which is the same function.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtl.backbone.arch import arch_of
from mtl.backbone.building import build, config_to_load
from mtl.backbone.encoder_fit import position_limit
from mtl.backbone.injection import bottleneck_layers, init, prepare
from mtl.bench.measuring import (
    Step,
    compile_problem,
    interleaved,
    launches,
    peak_bytes,
    saved_bytes,
)
from mtl.compose import COMPOSITIONS
from mtl.compose.sites import site_keys
from mtl.errors import RequestError
from mtl.methods import METHODS, as_source, attach, source_names
from mtl.methods.pfeiffer import PfeifferSettings, exact_reduction_factor

TRAINING = ("bare", "single", "scalearn_folded", "scalearn_looped", "stock_fuse", "fusion")
INFERENCE = ("bare", "stock_adapter", "composition")


@dataclass(frozen=True)
class Shape:
    """What is measured: K sources of bottleneck R on batches of B × T tokens, in ``rounds`` rounds.

    Attributes:
        bf16: autocast to bf16.
        compiled: encoders through ``torch.compile``.
    """

    sources: int = 8
    bottleneck: int = 48
    batch: int = 16
    tokens: int = 64
    rounds: int = 7
    bf16: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        for name in ("sources", "bottleneck", "batch", "tokens", "rounds"):
            if getattr(self, name) < 1:
                raise RequestError(f"--{name} {getattr(self, name)} must be at least 1.")


def random_encoder(config: Any) -> Any:
    """A frozen encoder of ``config`` with random weights, in training mode."""
    arch = arch_of(config)
    torch.manual_seed(0)
    encoder = build(config_to_load(config, arch), arch)
    encoder.requires_grad_(False)
    return encoder.train()


def measure_compose(
    config: Any,
    shape: Shape,
    device: torch.device,
    *,
    training: Sequence[str] = TRAINING,
    inference: Sequence[str] = INFERENCE,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Seconds (fastest round), peak memory, saved activations and launches of every variant.

    Args:
        clock: what seconds are of; ``time.process_time`` on a CPU that is busy with other work.

    Returns:
        ``training`` and ``inference``: variant → row; ``ratios`` and ``inference_ratios`` to
        ``bare``; ``composition_to_stock_adapter``; shape, device, threads, versions.

    Compiled on a CPU, nothing can be counted (counting sees every call and so keeps torch from
    compiling): ``launches`` is None there.

    Raises:
        RequestError: batches longer than the encoder takes; compiling where there is no compiler.
    """
    problem = compile_problem(device) if shape.compiled else ""
    if problem:
        needed = (
            "a C++ compiler (g++, or CXX)" if device.type == "cpu" else "Triton and a C compiler"
        )
        raise RequestError(
            f"--compile: torch.compile cannot compile for {device.type} here: {problem} It needs "
            f"{needed}; without --compile everything else is measured."
        )
    logging.getLogger("adapters").setLevel(logging.ERROR)
    most = position_limit(config)
    if most is not None and shape.tokens > most:
        raise RequestError(f"--tokens {shape.tokens}: this encoder takes at most {most}.")
    pristine = random_encoder(config)
    batch = _batch(config, shape, device)
    trained = _training_rows(pristine, training, shape, batch, device, clock)
    inferred = _inference_rows(pristine, inference, shape, batch, device, clock)
    found: dict[str, Any] = {
        "training": trained,
        "inference": inferred,
        "ratios": _ratios(trained),
        "inference_ratios": _ratios(inferred),
    }
    if {"stock_adapter", "composition"} <= inferred.keys():
        found["composition_to_stock_adapter"] = round(
            inferred["composition"]["seconds"] / inferred["stock_adapter"]["seconds"], 3
        )
    return {
        **found,
        "shape": {
            **asdict(shape),
            "layers": config.num_hidden_layers,
            "hidden": config.hidden_size,
            "type": config.model_type,
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _batch(config: Any, shape: Shape, device: torch.device) -> dict[str, Tensor]:
    torch.manual_seed(1)
    size = (shape.batch, shape.tokens)
    most = min(1000, config.vocab_size)
    return {
        "input_ids": torch.randint(5, most, size, device=device),
        "attention_mask": torch.ones(size, dtype=torch.long, device=device),
    }


def _training_rows(
    pristine: Any,
    names: Sequence[str],
    shape: Shape,
    batch: dict[str, Tensor],
    device: torch.device,
    clock: Callable[[], float],
) -> dict[str, Any]:
    encoders = {name: _VARIANTS[name](pristine, shape).train().to(device) for name in names}
    steps = {name: _step(encoder, batch, shape) for name, encoder in encoders.items()}
    times = interleaved(steps, shape.rounds, device, clock)
    rows = {}
    for name, encoder in encoders.items():
        trainable = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
        rows[name] = {
            "seconds": round(times[name], 5),
            "peak_mb": round(peak_bytes(steps[name], device) / 2**20, 2),
            "saved_mb": round(saved_bytes(encoder, batch, bf16=shape.bf16) / 2**20, 2),
            "launches": _launches(steps[name], shape, device),
            "trainable": trainable,
        }
    return rows


def _inference_rows(
    pristine: Any,
    names: Sequence[str],
    shape: Shape,
    batch: dict[str, Tensor],
    device: torch.device,
    clock: Callable[[], float],
) -> dict[str, Any]:
    steps: dict[str, Step] = {}
    for name in names:
        encoder, held = _INFERENCES[name](pristine, shape)
        encoder.eval().to(device)
        steps[name] = _forward(encoder, held, batch, shape)
    times = interleaved(steps, shape.rounds, device, clock)
    return {
        name: {
            "seconds": round(times[name], 5),
            "peak_mb": round(peak_bytes(step, device) / 2**20, 2),
            "launches": _launches(step, shape, device),
        }
        for name, step in steps.items()
    }


def _launches(step: Step, shape: Shape, device: torch.device) -> int | None:
    return None if shape.compiled and device.type == "cpu" else launches(step, device)


def _ratios(rows: Mapping[str, Any]) -> dict[str, float]:
    base = rows.get("bare", {}).get("seconds")
    if not base:
        return {}
    return {name: round(row["seconds"] / base, 3) for name, row in rows.items() if name != "bare"}


# ------------------------------------------------------------------ variants


def _bare(pristine: Any, shape: Shape) -> Any:
    encoder = copy.deepcopy(pristine)
    end = f".0.{arch_of(encoder.config).linears['output']}"
    first: Any = next(module for name, module in encoder.named_modules() if name.endswith(end))
    if first.bias is None:
        first.bias = nn.Parameter(first.weight.new_zeros(first.out_features))
    first.bias.requires_grad_(True)
    return encoder


def with_sources(pristine: Any, shape: Shape, count: int) -> tuple[Any, list[str]]:
    """A copy of the encoder with ``count`` Pfeiffer adapters of bottleneck R."""
    encoder = init(copy.deepcopy(pristine))
    names = source_names(count)
    for name in names:
        settings = PfeifferSettings(bottleneck=shape.bottleneck)
        attach(encoder, METHODS.get("pfeiffer"), settings, name)
    return encoder, names


def composed(pristine: Any, shape: Shape, method: str) -> tuple[Any, list[str], Any]:
    """The composition ``method`` of K sources; encoder, names, and what attaching gave."""
    encoder, names = with_sources(pristine, shape, shape.sources)
    encoder.requires_grad_(False)
    chosen = COMPOSITIONS.get(method)
    found = chosen.attach(encoder, names, chosen.settings(**chosen.defaults))
    return encoder, names, found


def _looped(pristine: Any, shape: Shape) -> Any:
    """ScaLearn as a loop over sources, on the same omega."""
    encoder, names, _ = composed(pristine, shape, "scalearn")
    layers = [m for _, key, m in bottleneck_layers(encoder) if key == "output_adapter"]
    for site, layer in zip(site_keys(encoder).values(), layers, strict=True):
        views = [as_source(layer.adapters[n], encoder.adapters_config.get(n)) for n in names]
        site.forward = _Loop(site, views)
    return encoder


class _Loop:
    """``Σ_k omega_k ⊙ (U_k h_k + b_k)``, source by source."""

    def __init__(self, site: Any, views: Sequence[Any]) -> None:
        self.site = site
        self.maps = [(v.down, v.down_bias, v.up_weight, v.up_bias) for v in views]

    def __call__(self, z: Tensor) -> Tensor:
        if self.maps[0][0].device != z.device:  # once: these are no buffers
            self.maps = [tuple(part.to(z.device) for part in each) for each in self.maps]
        omega = self.site.effective()
        total = torch.zeros_like(z)
        for index, (down, down_bias, up, up_bias) in enumerate(self.maps):
            features = torch.relu(nn.functional.linear(z, down, down_bias))
            total = total + omega[index] * nn.functional.linear(features, up, up_bias)
        return total


def _stock_fuse(pristine: Any, shape: Shape) -> Any:
    import adapters
    from adapters.composition import Fuse

    encoder = copy.deepcopy(pristine)
    prepare(encoder)
    names = source_names(shape.sources)
    factor = exact_reduction_factor(shape.bottleneck, encoder.config.hidden_size)
    for name in names:
        encoder.add_adapter(name, config=adapters.SeqBnConfig(reduction_factor=factor))
    encoder.add_adapter_fusion(Fuse(*names))
    encoder.train_adapter_fusion(Fuse(*names))
    return encoder


_VARIANTS: dict[str, Callable[[Any, Shape], Any]] = {
    "bare": _bare,
    "single": lambda pristine, shape: with_sources(pristine, shape, 1)[0],
    "scalearn_folded": lambda pristine, shape: composed(pristine, shape, "scalearn")[0],
    "scalearn_looped": _looped,
    "stock_fuse": _stock_fuse,
    "fusion": lambda pristine, shape: composed(pristine, shape, "fusion")[0],
}


def _wide(pristine: Any, shape: Shape) -> tuple[Any, Any]:
    import adapters

    encoder = copy.deepcopy(pristine)
    prepare(encoder)
    factor = exact_reduction_factor(shape.sources * shape.bottleneck, encoder.config.hidden_size)
    encoder.add_adapter("wide", config=adapters.SeqBnConfig(reduction_factor=factor))
    encoder.set_active_adapters("wide")
    return encoder, None


def _composition(pristine: Any, shape: Shape) -> tuple[Any, Any]:
    encoder, _, found = composed(pristine, shape, "scalearn")
    return encoder, found.evaluating


_INFERENCES: dict[str, Callable[[Any, Shape], tuple[Any, Any]]] = {
    "bare": lambda pristine, shape: (copy.deepcopy(pristine), None),
    "stock_adapter": _wide,
    "composition": _composition,
}


# ------------------------------------------------------------------ steps


def _step(encoder: Any, batch: dict[str, Tensor], shape: Shape) -> Step:
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4)
    regulariser = getattr(encoder, "get_fusion_regularization_loss", lambda: None)
    device = batch["input_ids"].device.type
    model = torch.compile(encoder) if shape.compiled else encoder

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=shape.bf16):
            loss = model(**batch).last_hidden_state[:, 0].float().square().mean()
        extra = regulariser()
        if isinstance(extra, Tensor) and extra.requires_grad:
            loss = loss + extra
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return step


def _forward(encoder: Any, held: Any, batch: dict[str, Tensor], shape: Shape) -> Step:
    device = batch["input_ids"].device.type
    model = torch.compile(encoder) if shape.compiled else encoder
    # Entered for as long as the step lives: a context that nobody holds ends by itself.
    context = held() if held is not None else nullcontext()
    context.__enter__()

    def step(_: Any = context) -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=shape.bf16):
            model(**batch)

    return step
