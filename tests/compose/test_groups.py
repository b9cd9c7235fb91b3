"""Gates by group of rows: what a row is answered with, what trains, what is refused."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from test_bank import D, add_sources, compose, hidden, plain, settings_for
from torch import Tensor, nn

from mtl.backbone.injection import bottleneck_layers
from mtl.compose.bank import Bank
from mtl.compose.modules.groups import RowGates
from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.compose.scalearn import ScaLearnSettings
from mtl.errors import RequestError
from mtl.methods.source import as_source

GROUPS = {"ann": 30, "bob": 3}
SET = {"gate": "user", "groups": json.dumps(GROUPS), "grouping": "0" * 64}


def batch_of(names: list[str], choices: int = 1) -> dict[str, Any]:
    return {"group": names, "input_ids": torch.zeros(len(names) * choices, 4)}


def random_gates(found: Any, seed: int = 3) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in found.parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=draw, dtype=torch.float64))


@pytest.mark.parametrize("method", ["scalearn", "scalearn-uniform++", "average"])
@pytest.mark.parametrize("held", [False, True])
def test_each_row_has_the_gates_of_its_group(
    encoder: Any, jiggle: Any, method: str, held: bool
) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, method, **SET)
    encoder.double().eval()
    random_gates(found)
    gates, z = found.parameters["gates.groups"], torch.randn(6, 3, 48, dtype=torch.float64)
    z.requires_grad_()
    sites = [m for m in encoder.modules() if type(m) is ScaLearnSite]
    layers = [layer for _, _, layer in bottleneck_layers(encoder) if layer.adapters]
    rows = ["bob", "ann", "who"]  # two choices each
    for layer, site in zip(layers, sites, strict=True):
        whole: Any = 0.0
        own = torch.stack([gates[1], gates[0], torch.ones(4)]).repeat_interleave(2, 0)
        for k, name in enumerate(names):
            source = as_source(layer.adapters[name], layer.adapters_config.get(name))
            up, bias = source.up()
            output = source.features(z) @ up.t() + bias
            whole = whole + own[:, k, None, None] * site.omega[k] * output
        with found.evaluating() if held else nullcontext(), found.groups.around(batch_of(rows, 2)):
            ours = site(z)
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)
        for one, other in zip(
            torch.autograd.grad(ours.square().sum(), [z, gates], retain_graph=True),
            torch.autograd.grad(whole.square().sum(), [z, gates], retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
    assert found.lr_factors == {"gates.groups": 10.0}
    assert set(found.tensors()) == {"gates.groups", *(n for n in found.tensors() if n[0] == "o")}


def test_gates_of_one_are_no_gates(encoder: Any, tokens: dict[str, Tensor], jiggle: Any) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "scalearn", **SET)
    size = len(tokens["input_ids"])
    with found.groups.around({**tokens, "group": ["ann", *["bob"] * (size - 1)]}):
        gated = hidden(encoder.eval(), tokens)[-1]
    omegas = found.tensors()
    encoder.delete_adapter_fusion("composition")
    plain_one = compose(encoder, names, "scalearn")
    plain_one.load({name: value for name, value in omegas.items() if name != "gates.groups"})
    torch.testing.assert_close(gated, hidden(encoder.eval(), tokens)[-1], rtol=0, atol=1e-5)
    assert plain_one.groups is None


def test_chosen_gates_are_those_of_every_row(
    encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "scalearn", **SET)
    encoder.double().eval()
    random_gates(found)
    size = len(tokens["input_ids"])
    by_row = {}
    for name in ("ann", "bob", "never seen", ""):
        with found.groups.around({**tokens, "group": [name] * size}):
            by_row[name] = hidden(encoder, tokens)[-1]
    torch.testing.assert_close(by_row["never seen"], by_row[""], rtol=0, atol=0)
    assert (by_row["ann"] - by_row["bob"]).abs().max() > 1e-3
    for name, expected in (("ann", "ann"), ("bob", "bob"), (None, "")):
        found.groups.choose(name)
        torch.testing.assert_close(hidden(encoder, tokens)[-1], by_row[expected])
    with pytest.raises(RequestError, match=r"Unknown group \(user\) 'an'. Did you mean 'ann'"):
        found.groups.choose("an")


def test_rows_without_a_group_are_an_error(
    encoder: Any, tokens: dict[str, Tensor], jiggle: Any
) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    found = compose(encoder, names, "scalearn", **SET)
    with (
        pytest.raises(RequestError, match="depend on the column 'user'"),
        found.groups.around(tokens),
    ):
        pass
    with pytest.raises(AssertionError, match="batch in its network"):
        hidden(encoder, tokens)


def fit(gated: bool, std: float = 1.0, rows: int = 64) -> tuple[float, Tensor]:
    """Train one site to give source 0 for one group and source 1 for the other: loss, gates."""
    torch.manual_seed(0)
    site = ScaLearnSite(Bank([plain(4), plain(5)])).eval()
    omega = nn.Parameter(torch.ones(2, D, dtype=torch.float64))
    gates = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
    groups = RowGates("user", {"ann": rows // 2, "bob": rows // 2}, gates)
    site.bind(omega, ScaLearnSettings(dropout=0.0), groups=groups if gated else None)
    z = torch.randn(rows, 2, D, dtype=torch.float64)
    features = site.bank.features(z)
    own = [site.bank.owner == k for k in (0, 1)]
    each = [features[..., mine] @ site.bank.up[mine] for mine in own]
    names = ["ann", "bob"] * (rows // 2)
    wanted = torch.stack(
        [each[row % 2][row] + site.bank.bias[row % 2] for row in range(rows)]
    ).detach()
    optimizer = torch.optim.Adam([omega, gates], lr=0.05)
    loss = torch.zeros(())
    for _ in range(200):
        optimizer.zero_grad()
        with groups.around({"group": names, "input_ids": z}):
            loss = (site(z) - wanted).square().mean()
        (loss + groups.away(std)).backward()
        optimizer.step()
    return float(loss.detach()), gates.detach()


def test_what_depends_on_the_group_is_learned_with_a_gate_alone() -> None:
    without, untouched = fit(False)
    with_gates, gates = fit(True)
    assert with_gates < 0.05 * without
    assert bool((untouched == 1).all())
    assert gates[0, 0] > 3 * gates[0, 1].abs()
    assert gates[1, 1] > 3 * gates[1, 0].abs()


def test_a_narrow_prior_keeps_groups_at_the_pool() -> None:
    _, free = fit(True)
    _, tight = fit(True, std=1e-3)
    assert (tight - 1).abs().max() < 0.05 < (free - 1).abs().max()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate": "task"}, "take --method gated"),
        ({"gate": "user", "gate_std": 0.0}, "gate_std=0.0 must be above 0"),
        ({"gate": "user", "gate_rate": -1.0}, "gate_rate=-1.0 must be above 0"),
        ({"groups": "{}"}, "what a run with gate=COLUMN records"),
    ],
)
def test_settings_that_say_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        ScaLearnSettings(**values)


@pytest.mark.parametrize("groups", ["", "{}", "[1]", '{"a": 0}', '{"a": true}', "{", '"a"'])
def test_groups_that_no_run_recorded(encoder: Any, jiggle: Any, groups: str) -> None:
    names = add_sources(encoder, settings_for("pfeiffer"), jiggle)
    with pytest.raises(RequestError, match="are no groups of rows"):
        compose(encoder, names, "scalearn", gate="user", groups=groups)
