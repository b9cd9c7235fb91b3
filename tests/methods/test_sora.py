"""SoRA: golden tensors, the threshold, the schedule, what is dropped at storing, settings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from low_rank_bench import TYPES, changed, check_round_trip, check_trains_alone, last
from safetensors.torch import load_file
from torch import Tensor, nn

from mtl.engine import RunSettings
from mtl.engine.optimise import Optimiser
from mtl.errors import RequestError, ZooError
from mtl.files import read_json, read_safetensors, write_safetensors
from mtl.methods import METHODS, attach, count_method, load
from mtl.methods.modules.sora import SoRA, gates, proximal, read
from mtl.methods.sora import SoRASettings

GOLDEN = Path(__file__).parents[1] / "golden"
METHOD = METHODS.get("sora")


@pytest.mark.parametrize("name", ["t0p25_f64", "t0p125_f32", "t3e-4_f64", "t7e-4_f32", "t0_f64"])
def test_golden_proximal_map(name: str) -> None:
    g = load_file(GOLDEN / "case10a_sora_proximal_map.safetensors")
    xi = float(g[f"{name}.threshold"])
    assert torch.equal(proximal(g[f"{name}.before"], xi, "reference"), g[f"{name}.after"])


@pytest.mark.parametrize("name", ["plain", "weight_decay", "no_threshold", "float32"])
def test_golden_trace_of_the_gates(name: str) -> None:
    """20 steps: the reference's Adam written out here, the threshold as the method applies it."""
    g, said = read_safetensors(GOLDEN / "case10b_sora_sparse_optimizer_trace.safetensors")
    now, lr, eps = g[f"{name}.initial"].clone(), float(said["lr"]), float(said["eps"])
    xi = 0.0 if name == "no_threshold" else 0.002
    sora = SoRA({"0.q": nn.Linear(4, 4)}, SoRASettings(rank=12, xi=xi)).to(now.dtype)
    mean, square = torch.zeros_like(now), torch.zeros_like(now)
    tolerance = 1e-7 if name == "float32" else 1e-15
    for step, gradient in enumerate(g[f"{name}.gradients"]):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        rate = lr * math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        decay = lr * 0.1 * now if name == "weight_decay" else 0.0
        with torch.no_grad():
            sora.gate.copy_(now - rate * mean / (square.sqrt() + eps) - decay)
        sora.after_step(step)
        now = sora.gate.detach().clone()
        torch.testing.assert_close(now, g[f"{name}.gates"][step], rtol=0, atol=tolerance)
        assert int((now != 0).sum()) == int(g[f"{name}.nonzero_per_step"][step])
    torch.testing.assert_close(mean, g[f"{name}.exp_avg"], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(square, g[f"{name}.exp_avg_sq"], rtol=tolerance, atol=tolerance)
    died = (g[f"{name}.gates"] == 0).any(0) & (g[f"{name}.gates"][-1] != 0)
    assert bool(died.any()) == (xi > 0)  # some gate died and came back


@pytest.mark.parametrize("name", ["plain", "no_threshold", "float32"])
@pytest.mark.parametrize("adam_form", ["torch", "hf"])
def test_the_engine_trains_the_gates_like_the_reference(name: str, adam_form: str) -> None:
    """All twelve, those with gradients of the size of eps too, whatever form the run has."""
    g, said = read_safetensors(GOLDEN / "case10b_sora_sparse_optimizer_trace.safetensors")
    xi = 0.0 if name == "no_threshold" else 0.002
    start = g[f"{name}.initial"]
    sora = SoRA({"0.q": nn.Linear(4, 4)}, SoRASettings(rank=12, xi=xi)).to(start.dtype)
    with torch.no_grad():
        sora.gate.copy_(start)
    run = RunSettings(lr=float(said["lr"]), warmup=0.0, weight_decay=0.3, adam_form=adam_form)
    optimiser = Optimiser([gates(sora)], run, 10**14)
    tolerance = 1e-7 if name == "float32" else 1e-13  # the rate falls, if slowly
    for step, gradient in enumerate(g[f"{name}.gradients"]):
        sora.gate.grad = gradient.clone()
        optimiser.step(step)
        sora.after_step(step)
        found, expected = sora.gate.detach(), g[f"{name}.gates"][step]
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        assert int((found != 0).sum()) == int(g[f"{name}.nonzero_per_step"][step])
    moments = optimiser.state()
    for key in ("exp_avg", "exp_avg_sq"):
        near = 1e-6 if name == "float32" else 1e-14
        torch.testing.assert_close(moments[f"gate|{key}"], g[f"{name}.{key}"], rtol=near, atol=0)


def test_golden_module() -> None:
    g = load_file(GOLDEN / "case10c_sora_module.safetensors")
    linear = nn.Linear(24, 20)
    sora = SoRA({"0.q": linear}, SoRASettings(rank=6, alpha=16.0)).double().eval()
    with torch.no_grad():
        for own, name in ((sora.down[0], "A"), (sora.up[0], "B"), (sora.gate, "gate")):
            own.copy_(g[name])
    x = g["x"].clone().requires_grad_(True)
    delta = sora.delta(0, x)
    close(delta, g["delta"])
    frozen = {name: g[f"frozen.{name}"].clone().requires_grad_(True) for name in ("weight", "bias")}
    out = nn.functional.linear(x, *frozen.values()) + delta
    close(out, g["out"])
    loss = (out * g["cotangent"]).sum()
    close(loss, g["loss"])
    loss.backward()
    for name, value in frozen.items():
        close(value.grad, g[f"grad.frozen.{name}"])
    for found, name in ((x, "x"), (sora.down[0], "A"), (sora.up[0], "B"), (sora.gate, "gate")):
        close(found.grad, g[f"grad.{name}"])
    assert (sora.gate == 0).sum() == 2


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("xi", [0.25, 1e-3])
def test_soft_threshold(xi: float) -> None:
    torch.manual_seed(0)
    gates = torch.cat([torch.randn(50), torch.tensor([0.0, xi, -xi, 1.5 * xi, -1.5 * xi, 2 * xi])])
    expected = torch.nn.functional.softshrink(gates, xi)
    assert torch.equal(proximal(gates, xi, "soft"), expected)
    found = proximal(gates, xi, "reference")
    # beyond twice the threshold both agree, between once and twice only the soft one lives
    far, between = gates.abs() > 2.01 * xi, (gates.abs() > xi) & (gates.abs() < 1.99 * xi)
    assert torch.equal(found[far], expected[far])
    assert (found[between] == 0).all()
    assert (expected[between] != 0).all()


def test_the_vectorised_threshold_is_the_loop(encoder: Any, jiggle: Any) -> None:
    """One operation over all sites against three boolean masks per site, as the reference does."""
    tuned = attach(encoder, METHOD, SoRASettings(xi=0.1), "mine")
    gate = tuned.parameters["gate"]
    jiggle([gate], 0.2)
    expected = gate.detach().clone()
    for row in expected:
        row[row > 0.1] -= 0.1
        row[row < -0.1] += 0.1
        row[row.abs() < 0.1] = 0.0
    tuned.after[0](0)
    assert torch.equal(gate, expected)
    assert 0 < (gate == 0).sum() < gate.numel()


@pytest.mark.parametrize(
    ("kind", "modules"),
    [*((kind, "all") for kind in TYPES), ("roberta", "q,v"), ("roberta", "output")],
)
def test_stored_and_loaded_is_the_same(
    kind: str, modules: str, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    files = {"adapter_config.json", "adapter.safetensors"}
    check_round_trip("sora", tiny(kind), tokens, jiggle, tmp_path, files, modules=modules, rank=5)


def test_zero_ranks_are_dropped_and_change_nothing(
    encoder: Any, backbone: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    """Gates at zero: their ranks are not stored, one site keeps none; the scale stays alpha/R."""
    tuned = changed(encoder, "sora", jiggle, rank=4)
    gate = tuned.parameters["gate"]
    assert gate.shape == (12, 4)
    with torch.no_grad():
        gate[0] = 0  # 0.q loses all
        gate[1, [0, 2]] = 0
        gate[7, 3] = 0
    gated = last(encoder, tokens)
    assert tuned.finish is not None
    tuned.finish()
    # fewer ranks are summed in another order: a few roundings of fp32, by processor
    torch.testing.assert_close(last(encoder, tokens), gated, rtol=4e-6, atol=2e-6)
    tuned.save(tmp_path / "entry", "tiny")
    stored, _ = read_safetensors(tmp_path / "entry" / "adapter.safetensors")
    assert stored["0.q.A"].shape == (0, 48)
    assert stored["0.q.B"].shape == (48, 0)
    assert stored["0.k.A"].shape == (2, 48)
    assert stored["1.k.B"].shape == (48, 3)
    ranks = read_json(tmp_path / "entry" / "adapter_config.json")["config"]["ranks"]
    assert ranks == {name[:-2]: len(value) for name, value in stored.items() if name[-1] == "A"}
    assert sum(ranks.values()) == int((gate != 0).sum()) == 12 * 4 - 7
    assert sum(value.numel() for value in stored.values()) == sum(
        int((gate[index] != 0).sum()) * width
        for index, width in enumerate([96, 96, 96, 96, 112, 112] * 2)
    )
    other = backbone.encoder()
    load(other, METHOD, SoRASettings(rank=4), "other", tmp_path / "entry")
    torch.testing.assert_close(last(other, tokens), gated, rtol=4e-6, atol=2e-6)


def test_trains_alone_and_starts_as_the_base(encoder: Any, tokens: Any, jiggle: Any) -> None:
    before = last(encoder, tokens)
    tuned = attach(encoder, METHOD, SoRASettings(), "mine")
    assert torch.equal(last(encoder, tokens), before)
    gate = tuned.parameters["gate"]
    assert 0.7 < float(gate.detach().std()) < 1.3  # N(0,1), not ones
    jiggle(tuned.parameters.values())
    check_trains_alone(encoder, tuned, tokens)


def test_a_dead_gate_can_come_back(encoder: Any, tokens: Any, jiggle: Any) -> None:
    tuned = changed(encoder, "sora", jiggle)
    gate = tuned.parameters["gate"]
    with torch.no_grad():
        gate.zero_()
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert gate.grad is not None
    assert (gate.grad != 0).all()


def test_l1_is_the_mean_over_all_gates(encoder: Any, jiggle: Any) -> None:
    tuned = changed(encoder, "sora", jiggle, eta=3.0)
    gate = tuned.parameters["gate"]
    (penalty,) = tuned.penalties
    torch.testing.assert_close(penalty()["l1"], 3.0 * gate.abs().sum() / gate.numel())
    assert attach(encoder, METHOD, SoRASettings(eta=0.0), "other").penalties == ()


def test_the_grid_and_its_stages(encoder: Any) -> None:
    settings = SoRASettings(xi=0.0, xi_max=7e-4, schedule_stages=7, stage_epochs=15)
    assert settings.grid() == pytest.approx(
        [0, 7e-4 / 6, 14e-4 / 6, 3.5e-4, 28e-4 / 6, 35e-4 / 6, 7e-4]
    )
    assert SoRASettings().grid() == [3e-4]
    tuned = attach(encoder, METHOD, settings, "mine")
    assert tuned.plan is not None
    stages = tuned.plan(RunSettings())
    assert [stage.epochs for stage in stages] == [None, *[15] * 6]
    assert [stage.forget for stage in stages] == [False, *[True] * 6]
    gate = tuned.parameters["gate"]
    for stage, xi in zip(stages, settings.grid(), strict=True):
        assert stage.begin is not None
        stage.begin(True)
        with torch.no_grad():
            gate.fill_(1.0)
        tuned.after[0](0)
        torch.testing.assert_close(gate.detach(), torch.full_like(gate, 1 - xi))


@pytest.mark.parametrize(
    ("model", "values", "expected"),
    [
        ("deberta-v3-base", {}, 1327680),
        ("deberta-v3-base", {"rank": 16}, 2 * 1327680),
        ("roberta-base", {"modules": "q,v"}, 294912 + 24 * 8),
    ],
)
def test_counts(model: str, values: dict[str, Any], expected: int) -> None:
    found = count_method("sora", model, values=values)
    assert found.method == expected
    settings = SoRASettings(**values)
    assert found.merged == expected - 12 * settings.rank * len(settings.modules.split(","))


def test_weights_that_do_not_fit_are_refused(
    encoder: Any, backbone: Any, jiggle: Any, tmp_path: Path
) -> None:
    changed(encoder, "sora", jiggle).save(tmp_path, "tiny")
    path = tmp_path / "adapter.safetensors"
    tensors, _ = read_safetensors(path)
    for said, wrong in (
        ("1.v", {k: v for k, v in tensors.items() if k != "1.v.B"}),
        ("0.q", {**tensors, "0.q.A": tensors["0.q.A"][:, 1:]}),
        ("0.q", {**tensors, "0.q.A": tensors["0.q.A"][1:]}),
        ("7.q", {**tensors, "7.q.A": tensors["0.q.A"], "7.q.B": tensors["0.q.B"]}),
    ):
        write_safetensors(path, {key: value.contiguous() for key, value in wrong.items()})
        with pytest.raises(ZooError, match=said):
            load(backbone.encoder(), METHOD, SoRASettings(), "other", tmp_path)
        with pytest.raises(ZooError, match=said):
            read(backbone.encoder(), SoRASettings(), tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rank": 0}, "rank=0"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"threshold": "hard"}, "threshold"),
        ({"threshold": "sofft"}, "Did you mean 'soft'"),
        ({"eta": -1.0}, "eta=-1.0"),
        ({"xi": -1e-4}, "xi=-0.0001"),
        ({"schedule_stages": 0}, "schedule_stages=0"),
        ({"stage_epochs": 0}, "stage_epochs=0"),
        ({"schedule_stages": 3, "xi": 1e-3}, "xi_max"),
        ({"modules": "pooler"}, "pooler"),
    ],
)
def test_wrong_settings(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        SoRASettings(**values)
