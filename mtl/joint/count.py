"""Exact parameter counts of joint methods, from the real modules on the meta device."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mtl.backbone.arch import check_method
from mtl.joint.joint_method import JOINT, JointMethod
from mtl.methods import Count, RunFacts
from mtl.methods.count import count_head, known_count, numel


def count_joint(
    name: str,
    settings: Any,
    model: str,
    *,
    tasks: int,
    head: str | None = None,
    labels: int = 2,
) -> Count:
    """Count joint method ``name`` over T ``tasks`` on ``model``, with T heads where one is named.

    Raises:
        RequestError: unknown method, setting or model shape.
    """
    method = JOINT.get(name)
    what = ["joint", name, asdict(settings), tasks, head, labels]

    def count() -> Count:
        return _count(method, settings, model, tasks, head, labels)

    return known_count(what, model, count, JOINT.ours(method, name))


def _count(
    method: JointMethod, settings: Any, model: str, tasks: int, head: str | None, labels: int
) -> Count:
    import torch

    from mtl.backbone import skeleton

    encoder = skeleton(model)
    check_method(encoder.config.model_type, method.name)
    base = numel(encoder.parameters())
    with torch.device("meta"):
        ids = [f"task/{number}" for number in range(tasks)]
        shared = method.attach(encoder, ids, settings, "counted", RunFacts(head=head or ""))
    groups = {group.name: numel(group.parameters.values()) for group in shared.tuned.groups}
    own = sum(size for part, size in groups.items() if part != "masks")
    heads = tasks * count_head(head, encoder.config, labels)
    everything = base + (own if method.adds else 0) + heads
    return Count(own, 0, heads, own, shared.tuned.mask_entries, everything)
