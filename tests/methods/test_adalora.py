"""AdaLoRA: golden traces, step by step against ``peft`` itself, files, resume state, settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from low_rank_bench import TYPES, changed, check_round_trip, check_trains_alone, last
from safetensors.torch import load_file
from torch import Tensor, nn

from mtl.backbone import load_backbone
from mtl.backbone.linear import LINEARS, linear_paths
from mtl.errors import RequestError, ZooError
from mtl.files import read_json, read_safetensors, write_safetensors
from mtl.methods import METHODS, RunFacts, attach, count_method, load
from mtl.methods.adalora import AdaLoRASettings
from mtl.methods.modules.adalora import Allocation, make_tuner, orthogonality, warmups
from mtl.methods.peft_files import NAME

GOLDEN = Path(__file__).parents[1] / "golden"
METHOD = METHODS.get("adalora")
FILES = {"adapter_config.json", "adapter_model.safetensors"}


def toy(settings: AdaLoRASettings, steps: int) -> tuple[Any, list[dict[str, nn.Parameter]]]:
    """The golden trace's three matrices under our tuner: it and their A, E, B."""
    linears = [nn.Linear(a, b) for a, b in ((12, 10), (10, 8), (8, 14))]
    model = nn.ModuleDict({f"matrix{index}": linear for index, linear in enumerate(linears)})
    tuner = make_tuner(model.double(), settings, r"matrix\d", steps)
    own = [
        {key: getattr(model[f"matrix{index}"], f"lora_{key}")[NAME] for key in "AEB"}
        for index in range(3)
    ]
    for parameters in own:
        for parameter in parameters.values():
            parameter.data = parameter.data.double()
    return tuner, own


CASES = {
    "case11a_adalora_trace": AdaLoRASettings(
        rank=4, target_rank=2, initial_warmup=8, final_warmup=15, interval=5
    ),
    "case11b_adalora_trace_interval1": AdaLoRASettings(
        rank=4, target_rank=1, initial_warmup=5, final_warmup=20, interval=1
    ),
}


@pytest.mark.parametrize("resume_at", [None, 3, 20, 40, 46, 55])
@pytest.mark.parametrize("case", CASES)
def test_golden_trace(case: str, resume_at: int | None) -> None:
    """60 steps of the paper's code; also where the allocation is stored and taken back between."""
    g = load_file(GOLDEN / f"{case}.safetensors")
    tuner, own = toy(CASES[case], 60)
    allocation = Allocation(tuner)
    with torch.no_grad():
        for index, parameters in enumerate(own):
            for key, parameter in parameters.items():
                parameter.copy_(g[f"matrix{index}.{key}.initial"])
    smoothed: dict[str, Tensor] = {}
    for step in range(60):
        if step == resume_at:
            tensors, values = copy.deepcopy(allocation.state())
            before = own
            tuner, own = toy(CASES[case], 60)
            with torch.no_grad():
                for new, old in zip(own, before, strict=True):
                    for key, parameter in new.items():
                        parameter.copy_(old[key])
            allocation = Allocation(tuner)
            allocation.load_state(tensors, values)
        with torch.no_grad():
            for index, parameters in enumerate(own):
                for key, parameter in parameters.items():
                    parameter.grad = g[f"matrix{index}.{key}.gradients"][step].double()
                    parameter -= 0.05 * parameter.grad
        budget, _ = tuner.rankallocator.budget_schedule(step)
        assert budget == int(g["budget"][step])
        allocation.after_step(step)
        # the last there is: nothing is smoothed in the final phase, where peft drops it
        smoothed = copy.deepcopy(allocation.state()[0]) or smoothed
        found = torch.stack([parameters["E"].detach().squeeze(1) for parameters in own])
        torch.testing.assert_close(found, g["E.every_step"][step], rtol=0, atol=1e-12)
        assert torch.equal(found != 0, g["E.nonzero"][step].bool())
        if step % 10 == 9:
            kept = g["E.steps_9_19_29"][step // 10]
            torch.testing.assert_close(found, kept, rtol=0, atol=1e-12)
    for index, parameters in enumerate(own):
        for key, parameter in parameters.items():
            torch.testing.assert_close(
                parameter.detach(), g[f"matrix{index}.{key}.final"], rtol=0, atol=1e-12
            )
    names = {id(value): name for name, value in tuner.model.named_parameters()}
    for index, parameters in enumerate(own):
        for key, parameter in parameters.items():
            for kind in ("importance", "uncertainty"):
                torch.testing.assert_close(
                    smoothed[f"{kind}.{names[id(parameter)]}"],
                    g[f"matrix{index}.{key}.{kind}_final"],
                    rtol=0,
                    atol=1e-12,
                )


def test_golden_linear() -> None:
    g = load_file(GOLDEN / "case11c_adalora_linear.safetensors")
    model = nn.ModuleDict({"only": nn.Linear(12, 10)}).double()
    settings = AdaLoRASettings(rank=3, target_rank=3, alpha=16.0, gamma=0.1)
    make_tuner(model, settings, "only", 0)
    layer: Any = model["only"]
    own = {key: getattr(layer, f"lora_{key}")[NAME] for key in "AEB"}
    with torch.no_grad():
        layer.base_layer.weight.copy_(g["frozen.weight"])
        layer.base_layer.bias.copy_(g["frozen.bias"])
        for key, parameter in own.items():
            parameter.data = g[key].clone()
            parameter.requires_grad_(True)
    layer.ranknum[NAME].data = layer.ranknum[NAME].data.double()
    x = g["x"].clone().requires_grad_(True)
    out = layer(x)
    torch.testing.assert_close(out, g["out"], rtol=0, atol=1e-12)
    term = settings.gamma * orthogonality([own["A"]], [own["B"]])
    torch.testing.assert_close(term, g["orthogonality"], rtol=0, atol=1e-12)
    loss = (out * g["cotangent"]).sum()
    torch.testing.assert_close(loss, g["loss_linear"], rtol=0, atol=1e-12)
    frozen = layer.base_layer
    frozen.requires_grad_(True)
    # once more with the frozen linear asking for its gradient: nothing else changes
    out = layer(x)
    ((out * g["cotangent"]).sum() + term).backward()
    base = {f"frozen.{name}": value for name, value in frozen.named_parameters()}
    for name, tensor in {"x": x, **own, **base}.items():
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad, g[f"grad.{name}"], rtol=0, atol=1e-11)


class Judged(nn.Module):
    """An encoder with a fixed loss, as ``peft`` wants one: it adds its own term to ``loss``."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def forward(self, **tokens: Any) -> Any:
        from types import SimpleNamespace

        hidden = self.encoder(**tokens).last_hidden_state
        return SimpleNamespace(loss=(hidden[:, 0] - 0.5).square().mean())


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2"])
def test_step_by_step_as_peft_itself(kind: str, tiny: Any, tokens: Any) -> None:
    """Our seams (penalty, after_step) against ``peft``'s own model in a plain loop."""
    from peft import AdaLoraConfig
    from peft.tuners.adalora.model import AdaLoraModel
    from transformers import AutoModel

    steps = 40
    settings = AdaLoRASettings(
        rank=6, target_rank=2, initial_warmup=5, final_warmup=12, interval=3, gamma=0.2
    )
    torch.manual_seed(0)
    encoder = load_backbone(tiny(kind)).encoder()
    paths = linear_paths(encoder, LINEARS)
    tuned = attach(encoder, METHOD, settings, "mine", RunFacts(steps))
    plain = AutoModel.from_pretrained(tiny(kind)).eval()
    config = AdaLoraConfig(
        init_r=6,
        target_r=2,
        tinit=5,
        tfinal=12,
        deltaT=3,
        total_step=steps,
        orth_reg_weight=0.2,
        lora_alpha=32,
        lora_dropout=0.0,
        target_modules=[f"encoder.{path}" for path in paths.values()],
    )
    judged = Judged(plain)
    theirs = AdaLoraModel(judged, config, "default")
    ours = tuned.parameters
    reference = {
        f"{site}.{key}": getattr(plain.get_submodule(path), f"lora_{key}")["default"]
        for site, path in paths.items()
        for key in "AEB"
    }
    assert reference.keys() == ours.keys()
    with torch.no_grad():
        for name, parameter in reference.items():
            parameter.copy_(ours[name])
    optimisers = [
        torch.optim.AdamW(list(group.values()), lr=2e-2, weight_decay=0.01)
        for group in (ours, reference)
    ]
    masked = []
    for step in range(steps):
        loss = Judged(encoder)(**tokens).loss
        (loss + sum(sum(part().values()) for part in tuned.penalties)).backward()
        theirs(**tokens).loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        for after in tuned.after:
            after(step)
        theirs.update_and_allocate(step)
        for optimiser in optimisers:
            optimiser.zero_grad()
        kept = 0
        for name, parameter in reference.items():
            # the term's mean is summed in another order, hence no equality of bits
            torch.testing.assert_close(ours[name], parameter, rtol=1e-3, atol=1e-4)
            if name.endswith(".E"):
                assert torch.equal(ours[name] == 0, parameter == 0), (step, name)
                kept += int((parameter != 0).sum())
        masked.append(kept)
    assert masked[0] == 12 * 6
    assert masked[-1] == 12 * 2
    assert sorted(masked[12:], reverse=True) != masked[12:]  # masked ones revived in between


def test_the_orthogonality_term_is_the_mean_over_all_matrices(
    encoder: Any, backbone: Any, jiggle: Any
) -> None:
    tuned = changed(encoder, "adalora", jiggle, rank=5, gamma=0.7)
    norms = []
    for name, value in tuned.parameters.items():
        if not name.endswith("E"):
            product = value @ value.t() if name.endswith("A") else value.t() @ value
            norms.append(torch.linalg.matrix_norm(product - torch.eye(5)))
    (penalty,) = tuned.penalties
    torch.testing.assert_close(penalty()["orthogonality"], 0.7 * torch.stack(norms).mean())
    assert len(norms) == 24
    settings = AdaLoRASettings(gamma=0.0)
    assert attach(backbone.encoder(), METHOD, settings, "mine").penalties == ()


@pytest.mark.parametrize(("kind", "modules"), [*((kind, "all") for kind in TYPES), ("bert", "q,v")])
def test_stored_and_loaded_is_the_same(
    kind: str, modules: str, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    values = {"modules": modules, "rank": 5, "alpha": 4.0}
    check_round_trip("adalora", tiny(kind), tokens, jiggle, tmp_path, FILES, **values)


@pytest.mark.parametrize("finished", [True, False])
def test_stock_peft_reads_the_entry_without_its_dropped_ranks(
    finished: bool, encoder: Any, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    tuned = changed(encoder, "adalora", jiggle, rank=4, alpha=4.0)
    with torch.no_grad():
        tuned.parameters["0.k.E"][[0, 2]] = 0
        tuned.parameters["1.output.E"][3] = 0
    expected = last(encoder, tokens)
    assert tuned.finish is not None
    if finished:
        tuned.finish()
    tuned.save(tmp_path, "some/base")
    stored, _ = read_safetensors(tmp_path / "adapter_model.safetensors")
    key = "base_model.model.encoder.layer.0.attention.self.key.lora_A"
    assert stored[key].shape[0] == (2 if finished else 4)
    pattern = read_json(tmp_path / "adapter_config.json")["rank_pattern"]
    if finished:
        assert sum(map(sum, pattern.values())) == 12 * 4 - 3
    else:
        assert pattern is None
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny("roberta")), str(tmp_path))
    torch.testing.assert_close(last(model.eval(), tokens), expected, rtol=0, atol=1e-5)
    other = load_backbone(tiny("roberta")).encoder()
    load(other, METHOD, AdaLoRASettings(rank=4, alpha=4.0), "other", tmp_path)
    torch.testing.assert_close(last(other, tokens), expected, rtol=0, atol=1e-5)


def test_a_module_without_any_rank_is_stored_and_loaded(
    encoder: Any, backbone: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    tuned = changed(encoder, "adalora", jiggle, rank=3)
    with torch.no_grad():
        tuned.parameters["0.q.E"].zero_()
    expected = last(encoder, tokens)
    assert tuned.finish is not None
    tuned.finish()
    tuned.save(tmp_path, "some/base")
    other = backbone.encoder()
    load(other, METHOD, AdaLoRASettings(rank=3), "other", tmp_path)
    torch.testing.assert_close(last(other, tokens), expected, rtol=0, atol=1e-5)


def test_trains_alone_and_starts_as_the_base(encoder: Any, tokens: Any, jiggle: Any) -> None:
    before = last(encoder, tokens)
    tuned = attach(encoder, METHOD, AdaLoRASettings(), "mine")
    assert torch.equal(last(encoder, tokens), before)
    downs = torch.cat([v.detach().flatten() for k, v in tuned.parameters.items() if k[-1] in "AB"])
    assert float(downs.std()) == pytest.approx(0.02, rel=0.05)
    jiggle(tuned.parameters.values(), 0.1)
    check_trains_alone(encoder, tuned, tokens)


def test_nothing_is_dealt_out_where_the_target_is_the_rank(encoder: Any) -> None:
    settings = AdaLoRASettings(rank=4, target_rank=4)
    tuned = attach(encoder, METHOD, settings, "mine", RunFacts(3))  # too short for any warm-up
    assert tuned.after == ()
    assert tuned.state is None


@pytest.mark.parametrize(("rank", "target"), [(1, 1), (2, 2), (3, 2), (4, 3), (12, 8), (13, 9)])
def test_default_target_is_two_thirds(rank: int, target: int) -> None:
    assert AdaLoRASettings(rank=rank).target == target
    assert AdaLoRASettings(rank=rank, target_rank=1).target == 1


def test_warmups() -> None:
    assert warmups(AdaLoRASettings(), 1000) == (100, 400)
    assert warmups(AdaLoRASettings(initial_warmup=5, final_warmup=7), 13) == (5, 7)
    with pytest.raises(RequestError, match=r"12 steps.*initial_warmup=5.*final_warmup=7"):
        warmups(AdaLoRASettings(initial_warmup=5, final_warmup=7), 12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rank": 1}, 165960),
        ({"rank": 2}, 331920),
        ({"rank": 8}, 1327680),
        ({}, 1991520),
    ],
)
def test_counts(values: dict[str, Any], expected: int) -> None:
    found = count_method("adalora", "deberta-v3-base", values=values)
    assert found.method == expected
    assert found.merged == expected - 72 * AdaLoRASettings(**values).rank


def test_weights_that_do_not_fit_are_refused(
    encoder: Any, backbone: Any, jiggle: Any, tmp_path: Path
) -> None:
    changed(encoder, "adalora", jiggle).save(tmp_path, "tiny")
    path = tmp_path / "adapter_model.safetensors"
    tensors, metadata = read_safetensors(path)
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_"

    def attempt(values: dict[str, Any], wrong: dict[str, Tensor], said: str) -> None:
        write_safetensors(path, {k: v.contiguous() for k, v in wrong.items()}, metadata)
        with pytest.raises(ZooError, match=said):
            load(backbone.encoder(), METHOD, AdaLoRASettings(**values), "other", tmp_path)

    attempt({}, {k: v for k, v in tensors.items() if k != f"{name}E"}, "lora_E")
    attempt({}, {**tensors, f"{name}E": tensors[f"{name}E"][1:]}, "lora_E")
    attempt({}, {**tensors, f"{name}B": tensors[f"{name}B"][1:]}, "0.q")
    attempt({"rank": 4}, tensors, "init_r")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rank": 0}, "rank=0"),
        ({"target_rank": 13}, "target_rank=13"),
        ({"target_rank": -1}, "target_rank=-1"),
        ({"gamma": -0.1}, "gamma=-0.1"),
        ({"initial_warmup": -1}, "initial_warmup=-1"),
        ({"interval": 0}, "interval=0"),
        ({"beta1": 1.0}, "beta1=1.0"),
        ({"beta2": 0.0}, "beta2=0.0"),
        ({"modules": "query"}, "query"),
    ],
)
def test_wrong_settings(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        AdaLoRASettings(**values)
