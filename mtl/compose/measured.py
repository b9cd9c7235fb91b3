"""What a stored composition makes of its sources, measured on its rows.

**Share of the mixture.** At every site the norm of what source k adds, ``‖ω_k ⊙ u_k‖`` (times the
gate of the row's group, where there are some), over the sum of these norms, a mean over the real
tokens of dev. The mean of omega hides it: its dimensions
move against each other, and a source with small outputs adds little at any omega.

**Error of omega.** A diagonal Laplace approximation at the stored omega: variance
``1 / (F + 1/s²)``, with F the diagonal of the Fisher information of all training rows and s the
start value ``init_scale``/K as the width of a prior around it. F is a mean over labels drawn from
the model's own answers, so that the squared gradient of a few rows together is unbiased for the
sum over them. Head, sources and correlations between the sources are taken as known. It says how
well the rows determine omega, not how far seeds lie apart: those start at one place and stop early,
and with few rows their spread is much smaller (``docs/results.md``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.compose.sites import site_keys
from mtl.data import Passes, eval_order
from mtl.engine.feed import collate, to_device
from mtl.engine.passes import usual_passes
from mtl.errors import RequestError
from mtl.runs.loading import data_of_entry
from mtl.tasks import task_loss
from mtl.zoo.measured import Measured, keep

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.data import Encoded
    from mtl.engine import Device
    from mtl.runs import Loaded
    from mtl.runs.workspace import Workspace
    from mtl.tasks import TaskSpec
    from mtl.zoo import Entry

LIMIT = 512
"""Rows of dev, and of train, that are looked at."""
TOGETHER = 4
"""Training rows whose gradients are squared as one."""
SEED = 0


def measure_sources(
    entry: Entry, workspace: Workspace, backbone: Backbone, device: Device
) -> Measured:
    """Measure a composition of the ScaLearn family, and keep it for pictures.

    Raises:
        RequestError: it weighs its sources by their input, or mixes them before they act; its data
            are not here.
        ZooError: damaged files.
    """
    from mtl.compose.stored import load_composition

    loaded = load_composition(entry, workspace.zoo, backbone)
    sites = _sites(loaded)
    data = data_of_entry(entry, workspace)
    network = loaded.network.to(device.torch_device)
    dev = backbone.encode(data, "dev", workspace.cache)
    mixture, rows = _mixture(loaded, sites, dev, data.spec, device)
    settings = entry.manifest.method_settings
    start = float(settings.get("init_scale", 0.0)) / len(loaded.sources)
    change = omega = stderr = None
    train_rows = 0
    if start and settings.get("learn", True):
        change = [(_omega(site) - start).abs().mean(1) for site in sites.values()]
    learned: Mapping[str, torch.nn.Parameter] = getattr(loaded.composed, "parameters", {})
    plain = bool(start) and settings.get("normalise", "none") == "none"
    if learned and plain and _can_sample(data.spec):
        train = backbone.encode(data, "train", workspace.cache)
        fisher, train_rows = _fisher(loaded, learned, train, data.spec, device)
        variance = {
            id(parameter): 1 / (fisher[name] + 1 / start**2) for name, parameter in learned.items()
        }
        omega = [_omega(site).mean(1) for site in sites.values()]
        stderr = [
            (variance[id(site.omega)].sum(1).sqrt() / site.omega.shape[1])
            for site in sites.values()
        ]
    network.eval()
    found = Measured(
        list(sites),
        _columns(mixture),
        rows,
        None if change is None else _columns(change),
        None if omega is None else _columns(omega),
        None if stderr is None else _columns(stderr),
        train_rows,
    )
    keep(entry, found)
    return found


def _sites(loaded: Loaded) -> dict[str, ScaLearnSite]:
    encoder: Any = loaded.network.encoder
    found = site_keys(encoder)
    low_rank = getattr(encoder, "low_rank_composition", None)
    if low_rank is not None:
        found = {key.replace("_", ".", 1): site for key, site in low_rank.items()}
    fitting = found and all(
        isinstance(site, ScaLearnSite) and site.bank.count == len(loaded.sources)
        for site in found.values()
    )
    if not fitting:
        raise RequestError(
            f"{loaded.entry.ref} ({loaded.entry.manifest.method}) has no omega that is the same "
            "for every input; measured are compositions of the ScaLearn family."
        )
    return found


def _omega(site: ScaLearnSite) -> Tensor:
    return site.omega.detach().double()


def _columns(by_site: list[Tensor]) -> list[list[float]]:
    found: list[list[float]] = torch.stack([value.double().cpu() for value in by_site], 1).tolist()
    return found


@torch.no_grad()
def _mixture(
    loaded: Loaded,
    sites: Mapping[str, ScaLearnSite],
    encoded: Encoded,
    spec: TaskSpec,
    device: Device,
) -> tuple[list[Tensor], int]:
    """(K,) per site: the share of every source, and the rows that were looked at."""
    sums = {key: torch.zeros(site.bank.count, dtype=torch.float64) for key, site in sites.items()}
    mask: list[Tensor] = []
    hooks = []
    for key, site in sites.items():
        weight, each = site.bank.scaled(site.effective())  # by unit, however the bank folds

        def look(
            module: Any,
            inputs: tuple[Tensor, ...],
            key: str = key,
            weight: Tensor = weight,
            each: Tensor = each,
        ) -> None:
            features = module.bank.features(inputs[0])
            norms = []
            for source in range(module.bank.count):
                own = module.bank.owner == source
                norms.append((features[..., own] @ weight[own] + each[source]).norm(dim=-1))
            norm = torch.stack(norms, -1)  # (N,T,K)
            gates = module.row_gates()
            if gates is not None:
                norm = norm * gates.abs().unsqueeze(1)
            total = norm.sum(-1, keepdim=True)
            share = torch.where(total > 0, norm / total, 1 / module.bank.count)
            sums[key] += share[mask[0].bool()].double().sum(0).cpu()

        hooks.append(site.register_forward_pre_hook(look))
    rows = tokens = 0
    try:
        for indices in eval_order(encoded, usual_passes(device.torch_device), _chosen(encoded)):
            batch = to_device(collate(spec.id, encoded, indices), device.torch_device)
            mask[:] = [batch["attention_mask"]]
            loaded.attached.logits(batch)
            rows, tokens = rows + len(indices), tokens + int(batch["attention_mask"].sum())
    finally:
        for hook in hooks:
            hook.remove()
    return [value / tokens for value in sums.values()], rows


def _together(encoded: Encoded) -> Iterator[Any]:
    """The drawn rows, as batches of all rows hold them: a seed's labels are drawn in that order."""
    kept = set(_chosen(encoded).tolist())
    for rows in eval_order(encoded, Passes(rows=TOGETHER)):
        chosen = rows[[int(row) in kept for row in rows]]
        if len(chosen):
            yield chosen


def _chosen(encoded: Encoded) -> np.ndarray:
    """At most ``LIMIT`` rows, drawn once."""
    return torch.randperm(len(encoded), generator=_generator())[:LIMIT].numpy()


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def _can_sample(spec: TaskSpec) -> bool:
    return spec.kind in {"classification", "multiple_choice", "multilabel", "regression"}


def _fisher(
    loaded: Loaded,
    learned: Mapping[str, torch.nn.Parameter],
    encoded: Encoded,
    spec: TaskSpec,
    device: Device,
) -> tuple[dict[str, Tensor], int]:
    """Diagonal of the Fisher information of all training rows, by parameter."""
    found = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in learned.items()}
    spread = _residual(loaded, encoded, spec, device) if spec.kind == "regression" else 1.0
    draws = _generator()
    rows = 0
    with _asking(learned):
        for indices in _together(encoded):
            batch = to_device(collate(spec.id, encoded, indices), device.torch_device)
            logits = loaded.attached.logits(batch).float()
            drawn = _drawn(spec, logits.detach().cpu(), batch["labels"].cpu(), spread, draws)
            loss = task_loss(spec, logits, drawn.to(logits.device)) * len(indices)
            if spec.kind == "regression":
                loss = loss / (2 * spread**2)
            elif spec.kind == "multilabel":
                loss = loss * drawn.shape[1]  # a mean over the labels, too
            gradients = torch.autograd.grad(loss, list(learned.values()))
            for name, gradient in zip(learned, gradients, strict=True):
                found[name] += gradient.detach().double().square()
            rows += len(indices)
    return {name: value * (len(encoded) / rows) for name, value in found.items()}, rows


@contextmanager
def _asking(learned: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    for parameter in learned.values():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in learned.values():
            parameter.requires_grad_(False)


def _drawn(
    spec: TaskSpec, logits: Tensor, labels: Tensor, spread: float, draws: torch.Generator
) -> Tensor:
    """Labels as the model itself would give them, of the shape and type of ``labels``."""
    if spec.kind == "regression":
        return logits[:, 0] + spread * torch.randn(len(logits), generator=draws)
    if spec.kind == "multilabel":
        return torch.bernoulli(logits.sigmoid(), generator=draws).to(labels.dtype)
    chances = logits.reshape(len(labels), -1).softmax(1)
    return torch.multinomial(chances, 1, generator=draws)[:, 0].to(labels.dtype)


@torch.no_grad()
def _residual(loaded: Loaded, encoded: Encoded, spec: TaskSpec, device: Device) -> float:
    """Root mean squared error on the training rows that are looked at."""
    total, rows = 0.0, 0
    for indices in eval_order(encoded, usual_passes(device.torch_device), _chosen(encoded)):
        batch = to_device(collate(spec.id, encoded, indices), device.torch_device)
        logits = loaded.attached.logits(batch).float()
        total += float(task_loss(spec, logits, batch["labels"])) * len(indices)
        rows += len(indices)
    return max((total / rows) ** 0.5, 1e-3)
