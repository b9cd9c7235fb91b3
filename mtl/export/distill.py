"""One stock adapter that comes close to a composition that does not fold.

The student is a plain bottleneck at the sources' places, with the entry's head. It starts at what
can be solved: its down maps are those of the sources (random rows where a source has none, as
AdaKron), and at every site U and b are the least-squares fit of the teacher's mixture on unlabelled
text. Then D, c, U and b train on the text, dropout off, to lower::

    mean over layers of E‖h_s − h_t‖² / E‖h_t‖²   +   E(y_s − y_t)² / Var y_t

with h the hidden states of real tokens and y the logits; labels are never seen. The state with the
least logit error on the dev texts is kept, the start included.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mtl.backbone import Network
from mtl.backbone.injection import FusionSite, adapter_parameters, bottleneck_layers
from mtl.compose.sites import NAME as COMPOSITION
from mtl.engine.progress import Progress
from mtl.errors import RequestError
from mtl.export.folding import Folded, Maps, Site
from mtl.export.narrow import Moments, narrow, unit_order
from mtl.export.stock import install
from mtl.methods import as_source
from mtl.methods.placement import signature
from mtl.methods.source import activation, plain_source
from mtl.tasks.spans import MASKED

if TYPE_CHECKING:
    from mtl.export.data import EntryData
    from mtl.runs import Loaded

STUDENT = "student"


@dataclass(frozen=True)
class Distilling:
    """How to distil.

    Attributes:
        width: of the student, 0 for the sum of the sources' bottlenecks.
        epochs: passes over the text; 0 keeps the least-squares start.
        lr: of AdamW, falling linearly to 0.
        rows: training rows whose text is used at most, labels unseen.
        seed: of the random rows and the order of batches.
    """

    width: int = 0
    epochs: int = 10
    lr: float = 1e-3
    rows: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 0 or self.epochs < 0 or self.rows < 1:
            raise RequestError(
                f"--width {self.width} and --epochs {self.epochs} must not be negative, "
                f"--text-rows {self.rows} must be at least 1."
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise RequestError(f"--lr {self.lr} must be above 0.")


def distil(loaded: Loaded, data: EntryData, how: Distilling) -> tuple[Folded, dict[str, Any]]:
    """Train a student of ``loaded`` on the text of its task; the student, and what it took.

    Raises:
        RequestError: the entry has no bottleneck sites, or changes weights of the base.
    """
    began = time.monotonic()
    device = data.device.torch_device
    loaded.network.to(device)
    with torch.random.fork_rng(), loaded.attached.evaluating():
        torch.manual_seed(how.seed)
        start = least_squares_start(loaded, data, how)
        encoder = data.backbone.encoder()
        install(encoder, start, STUDENT)
        student = Network(encoder, loaded.network.head).eval().to(device)
        record = _train(loaded.network, student, data, how)
    found = read_back(encoder, start)
    return found, {
        **record,
        "width": found.width,
        "rows_of_text": min(how.rows, data.task_data.sizes["train"]),
        "epochs": how.epochs,
        "lr": how.lr,
        "seed": how.seed,
        "seconds": round(time.monotonic() - began, 1),
    }


# ------------------------------------------------------------------ the start


@torch.no_grad()
def least_squares_start(loaded: Loaded, data: EntryData, how: Distilling) -> Folded:
    """The sources' down maps, and U and b fitted to the teacher's mixtures."""
    downs, act, placement = _down_maps(loaded, how.width)
    sums: dict[Site, tuple[Tensor, Tensor]] = {}
    functions = {key: _Features(down, bias, act) for key, (down, bias) in downs.items()}

    def add(key: Site, z: Tensor, mixture: Tensor) -> None:
        features = functions[key](z.double())
        both = torch.cat([features, features.new_ones(len(features), 1)], 1)
        gram, cross = both.t() @ both, both.t() @ mixture.double()
        if key in sums:
            gram, cross = gram + sums[key][0], cross + sums[key][1]
        sums[key] = (gram, cross)

    with _watching(loaded, add) as mask:
        for batch in data.batches("train", how.rows, seed=how.seed):
            mask[:] = [batch["attention_mask"].bool()]
            loaded.network(batch)
    sites: dict[Site, Maps] = {}
    moments: dict[Site, Moments] = {}
    for key, (gram, cross) in sums.items():
        down, bias = downs[key]
        fitted = torch.linalg.lstsq(gram.cpu(), cross.cpu(), driver="gelsd").solution
        nobody = torch.full((len(down),), -1)
        sites[key] = Maps(down.cpu(), bias.cpu(), fitted[:-1].t(), fitted[-1], nobody)
        count = float(gram[-1, -1])
        mean = gram[:-1, -1].cpu() / count
        covariance = gram[:-1, :-1].cpu() / count - torch.outer(mean, mean)
        moments[key] = Moments(mean, covariance, int(count))
    folded = Folded(sites, act, placement)
    if how.width and how.width < folded.width:
        orders = {key: unit_order(maps, moments[key], "refit") for key, maps in sites.items()}
        folded = narrow(folded, moments, orders, how.width, "refit")
    return folded.evened()


class _Features(nn.Module):
    def __init__(self, down: Tensor, bias: Tensor, act: str) -> None:
        super().__init__()
        self.down, self.bias, self.act = down, bias, activation(act)

    def forward(self, z: Tensor) -> Tensor:
        down, bias = self.down.to(z.device), self.bias.to(z.device)
        return self.act(nn.functional.linear(z, down, bias))


def _down_maps(
    loaded: Loaded, width: int
) -> tuple[dict[Site, tuple[Tensor, Tensor]], str, Mapping[str, Any]]:
    """Down map and bias per site in fp64, the sources' commonest activation, their placement."""
    encoder: Any = loaded.network.encoder
    if loaded.densify is not None:
        loaded.densify()
    found: dict[Site, tuple[Tensor, Tensor]] = {}
    activations: Counter[str] = Counter()
    for index, location, layer in bottleneck_layers(encoder):
        if loaded.names[0] not in layer.adapters:
            continue
        rows, biases = [], []
        for name in loaded.names:
            source = as_source(layer.adapters[name], layer.adapters_config.get(name))
            plain = plain_source(source)
            if plain is not None:
                activations[plain.activation] += 1
                rows.append(plain.down.double().cpu())
                biases.append(plain.down_bias.double().cpu())
            else:
                size = source.up()[0].shape[1]
                rows.append(0.02 * torch.randn(size, layer.adapters[name].input_size).double())
                biases.append(torch.zeros(size, dtype=torch.float64))
        missing = width - sum(len(part) for part in rows)
        if missing > 0:
            rows.append(0.02 * torch.randn(missing, rows[0].shape[1]).double())
            biases.append(torch.zeros(missing, dtype=torch.float64))
        found[index, location] = (torch.cat(rows), torch.cat(biases))
    if not found:
        raise RequestError(
            f"Cannot distil {loaded.entry.ref}: {loaded.entry.manifest.method} has no bottlenecks."
        )
    act = activations.most_common(1)[0][0] if activations else "gelu"
    return found, act, signature(encoder.adapters_config.get(loaded.names[0]))


@contextmanager
def _watching(loaded: Loaded, add: Any) -> Iterator[list[Tensor]]:
    """Call ``add(site, z, mixture)`` with the real tokens (n,D) at every site in every forward.

    Yields a list into which the batch's mask goes.
    """
    mask: list[Tensor] = []
    handles = []
    encoder: Any = loaded.network.encoder

    def watch(key: Site) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            mixture = output if isinstance(module, FusionSite) else output[2]  # (out, down, up)
            add(key, args[0][mask[0]], mixture[mask[0]])

        return hook

    for index, location, layer in bottleneck_layers(encoder):
        if loaded.names[0] in layer.adapters:
            fusion = layer.adapter_fusion_layer
            module = (
                fusion[COMPOSITION] if COMPOSITION in fusion else layer.adapters[loaded.names[0]]
            )
            handles.append(module.register_forward_hook(watch((index, location))))
    try:
        yield mask
    finally:
        for handle in handles:
            handle.remove()


# ------------------------------------------------------------------ training


@contextmanager
def _states(network: Network) -> Iterator[list[Tensor]]:
    """Yields a list that holds every layer's hidden states after a forward."""
    states: list[Tensor] = []
    encoder: Any = network.encoder

    def hook(module: Any, args: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(hook) for _, layer in encoder.iter_layers()]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def matching_loss(
    ours: list[Tensor], theirs: list[Tensor], logits: Tensor, wanted: Tensor, mask: Tensor
) -> Tensor:
    """The loss of the module's docstring for one batch."""
    hidden = [
        (a[mask] - b[mask]).square().mean() / b[mask].square().mean()
        for a, b in zip(ours, theirs, strict=True)
    ]
    real = wanted > MASKED  # of answer spans, padding has no logits
    logits, wanted = logits[real], wanted[real]
    spread = wanted.var(unbiased=False).clamp_min(1e-6)
    return torch.stack(hidden).mean() + (logits - wanted).square().mean() / spread


def _train(teacher: Network, student: Network, data: EntryData, how: Distilling) -> dict[str, Any]:
    encoder: Any = student.encoder
    parameters = adapter_parameters(encoder, STUDENT)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    wanted = data.score(teacher, "dev").logits
    real = wanted > MASKED
    spread = max(float(wanted[real].var()), 1e-12)

    def error() -> float:
        found = data.score(student, "dev").logits
        return float(((found - wanted)[real] ** 2).mean()) / spread

    errors = [error()]
    best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    rows = min(how.rows, data.task_data.sizes["train"])
    optimiser = torch.optim.AdamW(parameters.values(), lr=how.lr, weight_decay=0.0)
    total = max(1, how.epochs * sum(1 for _ in data.batches("train", rows)))
    progress = Progress("distil", total, 0, shown=True)
    step = 0
    for epoch in range(how.epochs):
        for batch in data.batches("train", rows, seed=how.seed + epoch):
            mask = batch["attention_mask"].bool()
            with _states(teacher) as theirs, torch.no_grad():
                target = teacher(batch)
            with _states(student) as ours:
                loss = matching_loss(ours, theirs, student(batch), target, mask)
            for group in optimiser.param_groups:
                group["lr"] = how.lr * (1 - step / total)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters.values(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            step += 1
            progress.step()
        errors.append(error())
        if errors[-1] < min(errors[:-1]):
            best = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    progress.close()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(best[name])
            parameter.requires_grad_(False)
    return {
        "steps": step,
        "dev_logit_error": errors,  # relative to the variance of the teacher's logits
        "kept_epoch": errors.index(min(errors)),
    }


@torch.no_grad()
def read_back(encoder: Any, start: Folded) -> Folded:
    """The student's maps as they are now."""
    sites = {}
    for index, location, layer in bottleneck_layers(encoder):
        if STUDENT in layer.adapters:
            adapter = layer.adapters[STUDENT]
            found = [part.detach().double().cpu() for part in _tensors(adapter)]
            sites[index, location] = Maps(
                found[0], found[1], found[2], found[3], start.sites[index, location].owner
            )
    return Folded(sites, start.activation, start.placement)


def _tensors(adapter: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    down, up = adapter.adapter_down[0], adapter.adapter_up
    return down.weight, down.bias, up.weight, up.bias
