"""HyperFormer and ++: golden tensors and gradients, what tasks and layers share, storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mtl.errors import RequestError, ZooError
from mtl.joint import JOINT
from mtl.joint.hyperformer import HyperFormerSettings
from mtl.joint.modules.hyperformer import HyperNet
from mtl.joint.modules.written import Adapter, WrittenDown, WrittenUp
from mtl.methods import RunFacts

GOLDEN = Path(__file__).parents[1] / "golden"
TASKS = ["x/a", "x/b"]
NAMES = ["hyperformer", "hyperformer++"]
PARTS = (
    "down.{}generate_weight",
    "down.{}generate_bias",
    "up.{}generate_weight",
    "up.{}generate_bias",
    "postnorm.{}generate_gain",
    "postnorm.{}generate_bias",
)


def close(found: Tensor | None, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def generators(g: dict[str, Tensor], shared: bool, what: str, grad: str = "") -> Tensor:
    """The reference's generators in our order: (S,P,C) weights or (S,P) biases."""
    sets = [""] if shared else ["0.", "1."]
    return torch.stack(
        [torch.cat([g[f"{grad}net.{part.format(s)}.{what}"] for part in PARTS]) for s in sets]
    )


def from_golden(g: dict[str, Tensor], shared: bool) -> HyperNet:
    settings = HyperFormerSettings(shared_generators=shared, embedding=8, hidden=10, code=6)
    net = HyperNet(TASKS, 2, 24, 4, settings).double()
    stored = {
        "first.weight": g["net.projection.linear1.weight"],
        "first.bias": g["net.projection.linear1.bias"],
        "second.weight": g["net.projection.linear2.weight"],
        "second.bias": g["net.projection.linear2.bias"],
        "norm.weight": g["net.projection.layernorm.weight"],
        "norm.bias": g["net.projection.layernorm.bias"],
        "weight": generators(g, shared, "weight"),
        "bias": generators(g, shared, "bias"),
        "task.x/a": g["task0.embedding"],
        "task.x/b": g["task1.embedding"],
    }
    if shared:
        stored["layer_ids"] = g["net.layer_id_embeddings.weight"]
    own = net.named()
    assert own.keys() == stored.keys()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(stored[name])
    return net


@pytest.mark.parametrize("shared", [False, True])
def test_golden_layers_and_gradients(shared: bool) -> None:
    case = "case04b_hyperformer_pp" if shared else "case04a_hyperformer"
    g = load_file(GOLDEN / f"{case}.safetensors")
    net = from_golden(g, shared)
    down, up = WrittenDown("gelu_new"), WrittenUp()
    loss = torch.zeros((), dtype=torch.float64)
    inputs = {
        name: g[name].clone().requires_grad_(True)
        for name in (f"layer{i}.ln.{what}" for i in (0, 1) for what in ("weight", "bias"))
    }
    for t, task in enumerate(TASKS):
        codes = net.codes(task)
        for layer, written in enumerate(net(task)):
            at = f"task{t}.layer{layer}"
            close(codes[layer if shared else 0].detach(), g[f"{at}.code"])
            for name, part in (
                ("down.weight", written.down),
                ("down.bias", written.down_bias),
                ("up.weight", written.up),
                ("up.bias", written.up_bias),
                ("postnorm.gain", written.gain),
                ("postnorm.bias", written.shift),
            ):
                close(part.detach(), g[f"{at}.{name}"])
            h, x = (g[f"{at}.{name}"].clone().requires_grad_(True) for name in "hx")
            inputs[f"{at}.h"], inputs[f"{at}.x"] = h, x
            weight, bias = inputs[f"layer{layer}.ln.weight"], inputs[f"layer{layer}.ln.bias"]
            down.set(written)
            up.set(written)
            z = functional.layer_norm(h + x, (24,), weight, bias, 1e-5)
            out = functional.layer_norm(up(down(z)) + h + x, (24,), weight, bias, 1e-5)
            close(out.detach(), g[f"{at}.out"])
            loss = loss + (out * g[f"{at}.cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    for name, value in inputs.items():
        close(value.grad, g[f"grad.{name}"])
    expected = {
        "first.weight": g["grad.net.projection.linear1.weight"],
        "first.bias": g["grad.net.projection.linear1.bias"],
        "second.weight": g["grad.net.projection.linear2.weight"],
        "second.bias": g["grad.net.projection.linear2.bias"],
        "norm.weight": g["grad.net.projection.layernorm.weight"],
        "norm.bias": g["grad.net.projection.layernorm.bias"],
        "weight": generators(g, shared, "weight", "grad."),
        "bias": generators(g, shared, "bias", "grad."),
        "task.x/a": g["grad.task0.embedding"],
        "task.x/b": g["grad.task1.embedding"],
    }
    if shared:
        expected["layer_ids"] = g["grad.net.layer_id_embeddings.weight"]
    assert expected.keys() == net.named().keys()
    for name, value in expected.items():
        close(net.named()[name].grad, value)


def test_layers_differ_only_through_what_they_should(jiggle: Any) -> None:
    """Acceptance check 6: layer embeddings in ++, the layers' own generators in HyperFormer."""
    for shared in (False, True):
        settings = HyperFormerSettings(shared_generators=shared, embedding=8, hidden=10, code=6)
        net = HyperNet(TASKS, 2, 24, 4, settings)
        jiggle(net.parameters())
        first, second = net(TASKS[0])
        assert not torch.equal(first.down, second.down)
        with torch.no_grad():
            if net.layer_ids is not None:
                net.layer_ids[1] = net.layer_ids[0]
            else:
                net.weight[1], net.bias[1] = net.weight[0], net.bias[0]
        for one, other in zip(*net(TASKS[0]), strict=True):
            torch.testing.assert_close(one, other)
        assert not torch.equal(net(TASKS[0])[0].down, net(TASKS[1])[0].down)


def test_initial_values() -> None:
    torch.manual_seed(0)
    net = HyperNet(TASKS, 3, 48, 12, HyperFormerSettings(shared_generators=True))
    for part in (net.weight, net.first.weight, net.layer_ids):
        assert part is not None
        assert part.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.tasks[0].std().item() == pytest.approx(1.0, rel=0.15)
    assert not net.bias.any()
    assert not net.first.bias.any()
    assert net.norm.eps == 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_in_an_encoder(name: str, encoder: Any, tokens: dict[str, Any], tmp_path: Path) -> None:
    method = JOINT.get(name)
    settings = method.settings(**method.defaults, embedding=8, hidden=10, code=6)
    torch.manual_seed(0)
    shared = method.attach(encoder, TASKS, settings, "joint", RunFacts())

    def run(model: Any, used: Any, task: str) -> Tensor:
        with used(task):
            return model(**tokens).last_hidden_state

    outputs = [run(encoder, shared.use, task) for task in TASKS]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3
    outputs[0].square().sum().backward()
    parameters = shared.tuned.parameters
    assert all(p.grad is not None and p.grad.any() for k, p in parameters.items() if "x/b" not in k)
    assert parameters["task.x/b"].grad is None  # another task's batch does not touch it
    with pytest.raises(RuntimeError, match="outside of a task"):
        encoder(**tokens)
    (cache,) = shared.tuned.caches
    with cache(), torch.no_grad():
        for _ in range(2):
            for task, expected in zip(TASKS, outputs, strict=True):
                torch.testing.assert_close(run(encoder, shared.use, task), expected)
    shared.tuned.save(tmp_path, "tiny")

    from mtl.backbone import load_backbone

    other = load_backbone(encoder.config._name_or_path).encoder()
    loaded = method.load(other, TASKS, settings, "joint", tmp_path)
    assert not any(parameter.requires_grad for parameter in other.parameters())
    for task, expected in zip(TASKS, outputs, strict=True):
        assert torch.equal(run(other, loaded.use, task), expected)
    third = load_backbone(encoder.config._name_or_path).encoder()
    with pytest.raises(ZooError, match="x/c"):
        method.load(third, ["x/a", "x/c"], settings, "joint", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_tasks_adapters_are_written_once_while_evaluating(
    name: str, encoder: Any, tokens: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = JOINT.get(name)
    settings = method.settings(**method.defaults, embedding=8, hidden=10, code=6)
    shared = method.attach(encoder, TASKS, settings, "joint", RunFacts())
    calls: list[str] = []
    real = HyperNet.forward

    def counted(self: HyperNet, task: str) -> list[Adapter]:
        calls.append(task)
        return real(self, task)

    monkeypatch.setattr(HyperNet, "forward", counted)
    (cache,) = shared.tuned.caches
    with cache(), torch.no_grad():
        for task in (*TASKS, *TASKS):
            with shared.use(task):
                encoder(**tokens)
    assert calls == TASKS
    with shared.use("x/b"):
        encoder(**tokens)
    assert calls == [*TASKS, "x/b"]  # one product for all layers, and nothing of the cache is left


def test_settings_are_checked() -> None:
    for wrong in ({"code": 0}, {"reduction_factor": -1.0}, {"activation": "rellu"}):
        with pytest.raises(RequestError, match=next(iter(wrong.values())).__str__()):
            HyperFormerSettings(**wrong)
    with pytest.raises(RequestError, match="temperature"):
        HyperFormerSettings(temperature=-1.0)
