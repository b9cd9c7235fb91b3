"""Tensorized adapters: golden tensors, thin products, the paper's counts, sources, storage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mtl.backbone import load_backbone
from mtl.backbone.injection import bottleneck_layers
from mtl.compose.bank import Bank
from mtl.engine import Group, RunSettings
from mtl.engine.optimise import Optimiser
from mtl.errors import RequestError, ZooError
from mtl.files import write_safetensors
from mtl.methods import METHODS, as_source, attach, count_method, load
from mtl.methods.modules.tensorized import TensorDown
from mtl.methods.modules.thin import TensorMap
from mtl.methods.tensorized import FORMATS, TensorizedSettings, factor_pair, modes

GOLDEN = Path(__file__).parents[1] / "golden"
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


def fill(matrix: TensorMap, g: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    matrix.double()
    names = {f"factors.{i}": f"{part}.factor{i}" for i in range(3)}
    for own, theirs in (("weights", "weights"), ("core", "core")):
        if hasattr(matrix, own):
            names[own] = f"{part}.{theirs}"
    parameters = dict(matrix.named_parameters())
    assert set(parameters) == set(names)
    with torch.no_grad():
        for own, theirs in names.items():
            parameters[own].copy_(g[theirs])
    return {theirs: parameters[own] for own, theirs in names.items()}


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("format", FORMATS)
def test_golden(format: str, rank: int) -> None:
    g = load_file(GOLDEN / f"case09_tensorized_{format}_rank{rank}.safetensors")
    down = TensorMap(format, (24, 32), (64,), rank)
    up = TensorMap(format, (64,), (24, 32), rank)
    parameters = {**fill(down, g, "down"), **fill(up, g, "up")}
    x = g["x"].clone().requires_grad_(True)
    inner = down(x)
    out = x + up(inner.relu())

    def close(found: Tensor | None, expected: Tensor) -> None:
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)

    close(inner.detach().flatten(0, 1), g["down_out_preactivation"])
    close(out.detach(), g["out"])
    loss = (out * g["cotangent"]).sum()
    close(loss.detach(), g["loss"])
    loss.backward()
    close(x.grad, g["grad.x"])
    for name, parameter in parameters.items():
        close(parameter.grad, g[f"grad.{name}"])
    left, right = down.thin()
    close((left @ right)[g["dense_down.rows"]].detach(), g["dense_down.values"])
    weight, bias = up.dense()
    rows = weight.t()[g["dense_up.rows"]][:, g["dense_up.columns"]]
    close(rows.detach(), g["dense_up.values"])
    assert not bias.any()


def dense_of(matrix: TensorMap) -> Tensor:
    """The full tensor by the definitions of the formats, one einsum each."""
    f = list(matrix.factors)
    letters = "ijkl"[: len(f)]
    if matrix.format == "cp":
        spec = ",".join(f"{x}a" for x in letters)
        return torch.einsum(f"a,{spec}->{letters}", matrix.weights, *f)
    if matrix.format == "tucker":
        core = "abcd"[: len(f)]
        spec = ",".join(f"{x}{y}" for x, y in zip(letters, core, strict=True))
        return torch.einsum(f"{core},{spec}->{letters}", matrix.core, *f)
    ends = "abcdea"[: len(f)] + ("a" if matrix.format == "tr" else "z")
    spec = ",".join(f"{ends[n]}{x}{ends[n + 1]}" for n, x in enumerate(letters))
    return torch.einsum(f"{spec}->{letters}", *f)


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize(
    ("rows", "columns"), [((4, 6), (5,)), ((5,), (4, 6)), ((4, 6), (4, 6)), ((3,), (7,))]
)
@pytest.mark.parametrize("format", FORMATS)
def test_thin_is_dense(format: str, rows: Any, columns: Any, rank: int) -> None:
    torch.manual_seed(0)
    matrix = TensorMap(format, rows, columns, rank).double()
    with torch.no_grad():
        for parameter in matrix.parameters():
            parameter.normal_()
    height = int(torch.tensor(rows).prod())
    full = dense_of(matrix).reshape(height, -1)
    x = torch.randn(3, height, dtype=torch.float64)
    torch.testing.assert_close(matrix(x), x @ full, rtol=1e-12, atol=1e-12)
    left, right = matrix.thin()
    assert left.shape[1] <= (rank if format in {"cp", "tt"} else rank**2)
    torch.testing.assert_close(matrix.dense()[0], full.t(), rtol=1e-12, atol=1e-12)
    matrix.hold(True)
    torch.testing.assert_close(matrix(x), x @ full, rtol=1e-12, atol=1e-12)
    assert right.shape[1] == full.shape[1]


@pytest.mark.parametrize(
    ("format", "rank", "method", "total", "percent"),
    [
        ("cp", 2, 11_616, 51_554, "0.0476"),
        ("tr", 2, 23_040, 62_978, "0.0581"),
        ("tt", 2, 14_208, 54_146, "0.0500"),
        ("tucker", 2, 11_904, 51_842, "0.0479"),
        ("cp", 4, 23_232, 63_170, "0.0583"),
        ("tr", 4, 92_160, 132_098, "0.1219"),
        ("tt", 4, 39_168, 79_106, "0.0730"),
        ("tucker", 4, 26_112, 66_050, "0.0610"),
    ],
)
def test_the_papers_table(format: str, rank: int, method: int, total: int, percent: str) -> None:
    values = {"rank": rank, "placement": "houlsby", "train_layer_norm": True}
    found = count_method(
        f"tensorized-{format}", "bert-base-cased", values=values, head="pooler_linear"
    )
    assert (found.method, found.layer_norm, found.head) == (method, 38_400, 1_538)
    assert found.total == total
    assert f"{found.percent:.4f}" == percent


def test_factor_pairs() -> None:
    assert [factor_pair(n) for n in (768, 1024, 384, 48, 6, 4)] == [
        (24, 32),
        (32, 32),
        (16, 24),
        (6, 8),
        (2, 3),
        (2, 2),
    ]
    assert modes(768) == (24, 32)
    for prime in (2, 3, 13, 127):
        assert factor_pair(prime) is None
        with pytest.raises(RequestError, match=f"{prime} is a prime"):
            modes(prime)


def test_starts_almost_as_the_identity() -> None:
    torch.manual_seed(0)
    matrix = TensorMap("cp", (24, 32), (64,), 2)
    values = torch.cat([p.detach().reshape(-1) for p in matrix.parameters()])
    assert values.abs().max() <= 0.1
    assert values.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.15)
    left, right = matrix.thin()
    assert (left @ right).std() < 1e-4


@pytest.mark.parametrize(("format", "low", "high"), [("cp", 10.0, 31.63), ("tt", 1.0, 3.0)])
def test_the_first_step_under_the_two_forms_of_adamw(format: str, low: float, high: float) -> None:
    """CP's first gradients are of the size of AdamW's eps, which the reference does not correct for
    bias (it then weighs 1/√(1 − 0.999) = 31.6 times as much): an order of magnitude."""

    def moved(adam_form: str) -> float:
        torch.manual_seed(0)
        down, up = TensorMap(format, (24, 32), (64,), 2), TensorMap(format, (64,), (24, 32), 2)
        own = {
            f"{index}.{name}": parameter
            for index, matrix in enumerate((down, up))
            for name, parameter in matrix.named_parameters()
        }
        run = RunSettings(lr=2e-4, adam_form=adam_form)
        optimiser = Optimiser([Group("method", own)], run, 10**9)
        before = torch.cat([value.detach().flatten() for value in own.values()])
        x, label = torch.randn(32, 768), torch.randint(0, 2, (32,)).float()
        logits = (x + up(TensorDown(down)(x))) @ (0.02 * torch.randn(768))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, label).backward()
        optimiser.step(0)
        return float((torch.cat([v.detach().flatten() for v in own.values()]) - before).norm())

    assert low < moved("torch") / moved("hf") < high


class Sizes(TorchDispatchMode):
    """Records the shapes of everything that is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, tuple | list) else (out,):
            if isinstance(item, Tensor):
                self.seen.add(tuple(item.shape))
        return out


@pytest.mark.parametrize("format", FORMATS)
def test_no_step_builds_the_dense_matrix(format: str) -> None:
    down, up = TensorMap(format, (24, 32), (67,), 2), TensorMap(format, (67,), (24, 32), 2)
    x = torch.randn(2, 5, 768, requires_grad=True)
    with Sizes() as sizes:
        (x + up(TensorDown(down)(x))).square().sum().backward()
    for shape in sizes.seen:
        assert not {768, 67} <= set(shape), shape
        assert not {24, 32, 67} <= set(shape), shape
    assert any(768 in shape for shape in sizes.seen)


@pytest.mark.parametrize("kind", TYPES)
def test_stored_and_loaded_is_the_same(
    kind: str, tiny: Callable[[str], str], jiggle: Any, tokens: Any, tmp_path: Path
) -> None:
    backbone = load_backbone(tiny(kind))
    for format in FORMATS:
        for number, values in enumerate(
            [
                {"bottleneck": 6},
                {"placement": "houlsby", "bottleneck": 5, "train_layer_norm": True, "rank": 3},
                {"bottleneck_form": False},
            ]
        ):
            method = METHODS.get(f"tensorized-{format}")
            settings = TensorizedSettings(format=format, **values)
            encoder = backbone.encoder()
            tuned = attach(encoder, method, settings, "mine")
            jiggle([p for n, p in tuned.parameters.items() if "LayerNorm" not in n], 0.4)
            with torch.no_grad():
                for name, parameter in tuned.parameters.items():
                    if "LayerNorm" in name:
                        parameter.add_(0.05)
                before = encoder(**tokens).last_hidden_state
            folder = tmp_path / f"{format}{number}"
            folder.mkdir()
            tuned.save(folder, "tiny")
            assert (folder / "delta.safetensors").is_file() == settings.train_layer_norm
            assert method.weights(settings) == (
                "delta" if settings.train_layer_norm else "adapters"
            )
            other = backbone.encoder()
            again = load(other, method, settings, "another", folder, active=True)
            with torch.no_grad():
                assert torch.equal(other(**tokens).last_hidden_state, before)
                with again.caches[0]():
                    assert torch.equal(other(**tokens).last_hidden_state, before)
    wrong = METHODS.get("tensorized-tr")
    with pytest.raises(ZooError, match=r"mtl_tensorized_cp.*expected.*mtl_tensorized_tr"):
        load(backbone.encoder(), wrong, TensorizedSettings(format="tr"), "x", tmp_path / "cp0")


def test_sources_together_are_sources_alone(backbone: Any, jiggle: Any) -> None:
    encoder = backbone.encoder()
    kinds = [("cp", 2, 6, True), ("tt", 2, 6, True), ("tr", 2, 6, True), ("tucker", 3, 5, True)]
    kinds.append(("cp", 2, 6, False))
    for index, (format, rank, size, form) in enumerate(kinds):
        settings = TensorizedSettings(
            format=format, rank=rank, bottleneck=size, bottleneck_form=form
        )
        tuned = attach(encoder, METHODS.get(f"tensorized-{format}"), settings, f"source{index}")
        jiggle(tuned.parameters.values(), 0.7, seed=index)
    encoder.double()
    z = torch.randn(2, 5, 48, dtype=torch.float64)
    omega = torch.randn(len(kinds), 48, dtype=torch.float64)
    names = [f"source{index}" for index in range(len(kinds))]
    for _, _, layer in bottleneck_layers(encoder):
        if names[0] in layer.adapters:
            bank = Bank(
                [as_source(layer.adapters[n], encoder.adapters_config.get(n)) for n in names]
            )
            assert len(bank.groups) == 4  # cp and tt share k = 2 and R = 6
            expected = torch.zeros_like(z)
            for name, scale in zip(names, omega, strict=True):
                adapter = layer.adapters[name]
                expected += scale * adapter.adapter_up(adapter.adapter_down(z))
            found = bank.mix(z, *bank.fold(omega))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_format_under_the_name_of_another_is_refused() -> None:
    with pytest.raises(RequestError, match="--method tensorized-tt"):
        count_method("tensorized-cp", "roberta-base", values={"format": "tt"})


def test_an_incomplete_delta_is_refused(encoder: Any, backbone: Any, tmp_path: Path) -> None:
    method = METHODS.get("tensorized-tt")
    settings = TensorizedSettings(train_layer_norm=True)
    attach(encoder, method, settings, "mine").save(tmp_path, "tiny")
    path = tmp_path / "delta.safetensors"
    stored = load_file(path)
    assert len(stored) == 2 * (1 + 2 * 2)  # embeddings, and two per layer
    del stored["encoder.layer.1.output.LayerNorm.bias"]
    write_safetensors(path, stored)
    with pytest.raises(ZooError, match=r"differ in encoder\.layer\.1\.output\.LayerNorm\.bias"):
        load(backbone.encoder(), method, settings, "other", tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"format": "tensor-train"}, "Unknown format"),
        ({"rank": 0}, "rank=0"),
        ({"bottleneck": 0}, "bottleneck=0"),
        ({"placement": "huolsby"}, "Did you mean 'houlsby'"),
    ],
)
def test_wrong_settings(values: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        TensorizedSettings(**values)
