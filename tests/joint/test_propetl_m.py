"""ProPETL-m: golden layers, gradients through both masks, ties, storage as bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mtl.backbone import load_backbone
from mtl.errors import RequestError, ZooError
from mtl.files import write_safetensors
from mtl.joint import JOINT
from mtl.joint.modules.propetl_m import MaskedPrototype, combine_masks
from mtl.joint.modules.written import WrittenDown, WrittenUp
from mtl.joint.propetl_m import ProPETLMSettings
from mtl.methods import RunFacts
from mtl.methods.masks import keep_mask, keep_masks

GOLDEN = Path(__file__).parents[1] / "golden"
TASKS = ["x/a", "x/b", "x/c"]


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("how", ["or", "and", "add"])
def test_golden_layers_and_gradients(how: str) -> None:
    g = load_file(GOLDEN / f"case05b_propetl_m_layer_{how}.safetensors")
    masked = MaskedPrototype(TASKS[:2], 1, 24, 4, ProPETLMSettings(combine=how)).double()
    scores = masked.scores()
    with torch.no_grad():
        for part in ("down", "up"):
            linear = getattr(masked.prototype, part)
            linear.weight.copy_(g[f"adapter.{part}.weight"])
            linear.bias.copy_(g[f"adapter.{part}.bias"])
            for t, task in enumerate(TASKS[:2]):
                scores[f"task.{task}.{part}"].copy_(g[f"task{t}.{part}.scores"])
            scores[f"layers.{part}"][0] = g[f"layer.{part}.scores"]
    weight, bias = (g[f"ln.{what}"].clone().requires_grad_(True) for what in ("weight", "bias"))
    for part in ("down", "up"):
        for t, task in enumerate(TASKS[:2]):
            close(keep_mask(scores[f"task.{task}.{part}"], 0.3).detach(), g[f"task{t}.{part}.mask"])
        close(keep_mask(scores[f"layers.{part}"][0], 0.3).detach(), g[f"layer.{part}.mask"])
    down, up = WrittenDown("relu"), WrittenUp()
    loss = torch.zeros((), dtype=torch.float64)
    inputs = {}
    for t, task in enumerate(TASKS[:2]):
        close(masked.down(t)[0].detach(), g[f"task{t}.combined.down.mask"])
        close(masked.up(t)[0].detach(), g[f"task{t}.combined.up.mask"])
        (adapter,) = masked(task)
        down.set(adapter)
        up.set(adapter)
        h, x = (g[f"task{t}.{name}"].clone().requires_grad_(True) for name in "hx")
        inputs[f"task{t}.h"], inputs[f"task{t}.x"] = h, x
        z = functional.layer_norm(h + x, (24,), weight, bias, 1e-5)
        out = functional.layer_norm(up(down(z)) + h + x, (24,), weight, bias, 1e-5)
        close(out.detach(), g[f"task{t}.out"])
        loss = loss + (out * g[f"task{t}.cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    for name, value in {**inputs, "ln.weight": weight, "ln.bias": bias}.items():
        close(value.grad, g[f"grad.{name}"])
    for part in ("down", "up"):
        linear = getattr(masked.prototype, part)
        close(linear.weight.grad, g[f"grad.adapter.{part}.weight"])
        close(linear.bias.grad, g[f"grad.adapter.{part}.bias"])
        for t, task in enumerate(TASKS[:2]):
            close(scores[f"task.{task}.{part}"].grad, g[f"grad.task{t}.{part}.scores"])
        layer = scores[f"layers.{part}"].grad
        assert layer is not None
        close(layer[0], g[f"grad.layer.{part}.scores"])


def test_gradient_of_an_or_mask() -> None:
    """Acceptance check 5: a score's gradient is multiplied by 1 − the other mask."""
    torch.manual_seed(0)
    one, other = (torch.randn(6, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    cotangent = torch.randn(6, 8, dtype=torch.float64)
    mask = combine_masks(keep_mask(one, 0.3), keep_masks(other[None], 0.3), "or")[0]
    assert torch.equal(mask.detach(), torch.maximum(keep_mask(one, 0.3), keep_mask(other, 0.3)))
    (mask * cotangent).sum().backward()
    close(one.grad, cotangent * (1 - keep_mask(other, 0.3).detach()) * one.detach().sign())


@pytest.mark.parametrize("keep", [0.3, 0.5, 1.0])
def test_density_and_many_masks_at_once(keep: float) -> None:
    scores = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(0))
    masks = keep_masks(scores, keep)
    assert masks.sum((1, 2)).tolist() == [63 - int((1 - keep) * 63)] * 5
    for many, single in zip(masks, scores, strict=True):
        assert torch.equal(many, keep_mask(single, keep))


def test_union_of_two_masks_has_the_density_of_the_specification() -> None:
    torch.manual_seed(0)
    masked = MaskedPrototype(TASKS, 4, 96, 24, ProPETLMSettings())
    assert masked.down(0).mean().item() == pytest.approx(0.51, abs=0.02)


def test_scores_start_as_in_the_reference() -> None:
    torch.manual_seed(0)
    scores = MaskedPrototype(TASKS, 4, 96, 24, ProPETLMSettings()).scores()
    for name, value in scores.items():
        bound = (96 if name.endswith("down") else 24) ** -0.5
        assert value.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert value.shape[-2:] == ((24, 96) if name.endswith("down") else (96, 24))


def test_tied_scores_are_one_parameter() -> None:
    tied = MaskedPrototype(TASKS, 4, 24, 6, ProPETLMSettings(tie_layer_scores=True))
    free = MaskedPrototype(TASKS, 4, 24, 6, ProPETLMSettings())
    entries = 2 * 24 * 6
    assert sum(s.numel() for s in free.scores().values()) == (3 + 4) * entries
    assert sum(s.numel() for s in tied.scores().values()) == (3 + 3) * entries
    own = keep_mask(tied.down.tasks[0], 0.3)
    last = keep_mask(tied.down.tasks[2], 0.3)
    assert torch.equal(tied.down(0)[0], torch.maximum(own, last))
    assert torch.equal(tied.down(2)[0], last)
    assert tied.down.layers is not None
    layer = keep_masks(tied.down.layers, 0.3)[0]
    assert torch.equal(tied.down(0)[1], torch.maximum(own, layer))
    tied.down(0).sum().backward()
    assert tied.down.tasks[2].grad is not None  # through layer 0
    assert tied.down.tasks[1].grad is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_layer_scores": True},
        {"combine": "and", "keep": 0.5},
        {"combine": "add"},
        {"combine": "task"},
    ],
)
def test_in_an_encoder(
    changes: dict[str, Any], encoder: Any, tokens: dict[str, Any], tmp_path: Path, jiggle: Any
) -> None:
    method = JOINT.get("propetl-m")
    settings = ProPETLMSettings(reduction_factor=4.0, **changes)
    torch.manual_seed(0)
    shared = method.attach(encoder, TASKS, settings, "joint", RunFacts())
    jiggle(shared.tuned.groups[0].parameters.values())

    def run(model: Any, used: Any, task: str) -> Tensor:
        with used(task):
            return model(**tokens).last_hidden_state

    outputs = {task: run(encoder, shared.use, task) for task in TASKS}
    assert (outputs["x/a"] - outputs["x/b"]).abs().max() > 1e-3
    outputs["x/a"].square().sum().backward()
    parameters = shared.tuned.parameters
    touched = {name for name, value in parameters.items() if value.grad is not None}
    untouched = {"task.x/b.down", "task.x/b.up"}
    if not settings.tie_layer_scores:
        untouched |= {"task.x/c.down", "task.x/c.up"}
    assert touched == set(parameters) - untouched
    shared.tuned.save(tmp_path, "tiny")
    stored = load_file(tmp_path / "adapter.safetensors")
    floats = sum(value.numel() for name, value in stored.items() if not name.endswith(".mask"))
    bits = [value for name, value in stored.items() if name.endswith(".mask")]
    assert floats == 2 * 48 * 12 + 48 + 12
    assert {value.dtype for value in bits} == {torch.uint8}
    assert 8 * sum(value.numel() for value in bits) == shared.tuned.mask_entries
    assert shared.tuned.mask_entries == sum(
        value.numel() for group in shared.tuned.groups[1:] for value in group.parameters.values()
    )
    other = load_backbone(encoder.config._name_or_path).encoder()
    loaded = method.load(other, TASKS, settings, "joint", tmp_path)
    assert not any(parameter.requires_grad for parameter in other.parameters())
    (cache,) = loaded.tuned.caches
    with cache(), torch.no_grad():
        for task, expected in outputs.items():
            assert torch.equal(run(other, loaded.use, task), expected)
    loaded.tuned.save(tmp_path / "again", "tiny")
    assert (tmp_path / "again" / "adapter.safetensors").read_bytes() == (
        tmp_path / "adapter.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "deberta-v2"])
@pytest.mark.parametrize("name", ["propetl-m", "hyperformer++"])
def test_other_encoders(name: str, kind: str, tiny: Any, tokens: dict[str, Any]) -> None:
    method = JOINT.get(name)
    settings = method.settings(**method.defaults, reduction_factor=4.0)
    encoder = load_backbone(tiny(kind)).encoder()
    torch.manual_seed(0)
    shared = method.attach(encoder, TASKS, settings, "joint", RunFacts())
    outputs = []
    for task in TASKS[:2]:
        with shared.use(task):
            outputs.append(encoder(**tokens).last_hidden_state)
    assert (outputs[0] - outputs[1]).abs().max() > 1e-5
    sum(out.square().sum() for out in outputs).backward()
    touched = {k for k, p in shared.tuned.parameters.items() if p.grad is not None}
    assert touched == {k for k in shared.tuned.parameters if "x/c" not in k}


@pytest.mark.parametrize("damage", ["missing", "short", "more"])
def test_stored_masks_that_do_not_fit(damage: str, encoder: Any, tmp_path: Path) -> None:
    method = JOINT.get("propetl-m")
    settings = ProPETLMSettings()
    method.attach(encoder, TASKS, settings, "joint", RunFacts()).tuned.save(tmp_path, "tiny")
    path = tmp_path / "adapter.safetensors"
    stored = load_file(path)
    if damage == "missing":
        del stored["layer.1.up.mask"]
    elif damage == "short":
        stored["layer.1.up.mask"] = stored["layer.1.up.mask"][:-1]
    else:
        stored["layer.7.up.mask"] = stored["layer.1.up.mask"]
    write_safetensors(path, stored)
    other = load_backbone(encoder.config._name_or_path).encoder()
    with pytest.raises(ZooError, match=r"layer\.[17]\.up\.mask"):
        method.load(other, TASKS, settings, "joint", tmp_path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"keep": 0.0}, "keep=0.0"),
        ({"combine": "orr"}, "'or'"),
        ({"mask_lr_factor": -1.0}, "mask_lr_factor"),
        ({"tie_layer_scores": True, "combine": "task"}, "needs layer masks"),
        ({"sampler_seed": -3}, "sampler_seed"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        ProPETLMSettings(**changes)
