"""Adapters in an encoder: what trains, what is stored, and that stock ``adapters`` reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl.backbone import Network, build_head, load_backbone, load_head, save_adapter, save_head
from mtl.backbone.injection import set_aside
from mtl.errors import ZooError
from mtl.files import read_safetensors, write_safetensors
from mtl.methods import METHODS, attach, load, source_names
from mtl.methods.pfeiffer import PfeifferSettings, bottleneck_config
from mtl.methods.placement import signature

METHOD = METHODS.get("pfeiffer")
TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]
PLACEMENTS = ["pfeiffer", "houlsby", "parallel"]


def last(encoder: Any, tokens: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return encoder(**tokens).last_hidden_state


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_attach_trains_the_adapter_and_nothing_else(
    placement: str, kind: str, tiny: Any, tokens: dict[str, torch.Tensor], jiggle: Any
) -> None:
    encoder = load_backbone(tiny(kind)).encoder()
    before = last(encoder, tokens)
    settings = PfeifferSettings(placement=placement, activation="tanh")  # no unit is dead
    parameters = attach(encoder, METHOD, settings, "mine").parameters
    assert {id(p) for p in encoder.parameters() if p.requires_grad} == {
        id(p) for p in parameters.values()
    }
    sites = 4 if placement == "houlsby" else 2
    assert sum(p.numel() for p in parameters.values()) == sites * (2 * 48 * 3 + 3 + 48)
    assert not any("mine" in name for name in parameters)
    jiggle(parameters.values(), 0.2)
    assert (last(encoder, tokens) - before).abs().max() > 1e-3
    encoder(**tokens).last_hidden_state.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters.values())


def test_initial_values(encoder: Any) -> None:
    parameters = attach(encoder, METHOD, PfeifferSettings(reduction_factor=2), "mine").parameters
    weights = torch.cat([p.detach().reshape(-1) for p in parameters.values() if p.ndim == 2])
    assert weights.std().item() == pytest.approx(0.02, rel=0.1)
    assert all(p.abs().max() == 0 for p in parameters.values() if p.ndim == 1)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", TYPES)
def test_saved_and_loaded_is_the_same(
    placement: str,
    kind: str,
    tiny: Any,
    tokens: dict[str, torch.Tensor],
    jiggle: Any,
    tmp_path: Path,
) -> None:
    backbone = load_backbone(tiny(kind))
    settings = PfeifferSettings(placement=placement, bottleneck=7, activation="gelu")
    encoder = backbone.encoder()
    jiggle(attach(encoder, METHOD, settings, "mine").parameters.values(), 0.2)
    folder = tmp_path / "saved"
    save_adapter(encoder, "mine", folder, "some/model")
    assert json.loads((folder / "adapter_config.json").read_text())["model_name"] == "some/model"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.safetensors",
        "adapter_config.json",
    ]
    other = backbone.encoder()
    load(other, METHOD, settings, "another", folder)
    assert not any(p.requires_grad for p in other.parameters())
    assert not torch.equal(last(other, tokens), last(encoder, tokens))  # loaded, not active
    other.set_active_adapters("another")
    assert torch.equal(last(other, tokens), last(encoder, tokens))


@pytest.fixture
def stored(encoder: Any, jiggle: Any, tmp_path: Path) -> Path:
    jiggle(attach(encoder, METHOD, PfeifferSettings(), "mine").parameters.values(), 0.2)
    save_adapter(encoder, "mine", tmp_path / "entry", "tiny")
    return tmp_path / "entry"


@pytest.mark.parametrize("damage", ["missing", "surplus", "shape", "truncated", "config", "gone"])
def test_weights_that_do_not_fit_are_refused_and_leave_nothing(
    damage: str, stored: Path, backbone: Any, tokens: dict[str, torch.Tensor]
) -> None:
    path = stored / "adapter.safetensors"
    tensors, metadata = read_safetensors(path)
    name = next(key for key in tensors if "adapter_down" in key and key.endswith("weight"))
    if damage == "missing":
        del tensors[name]
    elif damage == "surplus":
        tensors[name.replace("layer.0", "layer.9")] = tensors[name].clone()
    elif damage == "shape":
        tensors[name] = tensors[name][:1].clone()
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "config":
        (stored / "adapter_config.json").write_text("{")
    elif damage == "gone":
        path.unlink()
    else:
        write_safetensors(path, tensors, metadata)
    encoder = backbone.encoder()
    before = last(encoder, tokens)
    with pytest.raises(ZooError, match="entry"):
        load(encoder, METHOD, PfeifferSettings(), "other", stored)
    assert "other" not in encoder.adapters_config.adapters
    assert torch.equal(last(encoder, tokens), before)
    # The encoder still takes a good one under the same name.
    attach(encoder, METHOD, PfeifferSettings(), "other")


def test_an_adapter_of_another_width_is_refused(
    stored: Path, make_tiny: Any, tmp_path: Path
) -> None:
    wide = load_backbone(str(make_tiny(tmp_path / "wide", "roberta", hidden_size=64)))
    with pytest.raises(ZooError, match="hidden size 48, the encoder has 64"):
        load(wide.encoder(), METHOD, PfeifferSettings(), "other", stored)


def test_many_sources_do_not_mix_up(
    backbone: Any, tokens: dict[str, torch.Tensor], jiggle: Any, tmp_path: Path
) -> None:
    """Twelve adapters, so that source0001 and source0010 would meet if prefixes did."""
    names = source_names(12)
    assert all(len(name) == len(names[0]) for name in names)
    alone = []
    for index in range(12):
        encoder = backbone.encoder()
        jiggle(
            attach(encoder, METHOD, PfeifferSettings(), "mine").parameters.values(), 0.2, seed=index
        )
        save_adapter(encoder, "mine", tmp_path / str(index), "tiny")
        alone.append(last(encoder, tokens))
    together = backbone.encoder()
    for index, name in enumerate(names):
        load(together, METHOD, PfeifferSettings(), name, tmp_path / str(index))
    for name, expected in zip(names, alone, strict=True):
        together.set_active_adapters(name)
        assert torch.equal(last(together, tokens), expected)


def test_a_source_is_loaded_past_those_that_are_there(
    stored: Path, backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = torch.nn.Module._load_from_state_dict

    def looking(module: torch.nn.Module, tensors: Any, prefix: str, *rest: Any) -> None:
        looked.append(prefix)
        real(module, tensors, prefix, *rest)

    monkeypatch.setattr(torch.nn.Module, "_load_from_state_dict", looking)
    encoder, counts = backbone.encoder(), []
    names = source_names(4)
    with set_aside(encoder) as take:
        for name in names:
            looked.clear()
            load(encoder, METHOD, PfeifferSettings(), name, stored)
            take(name)
            assert any(f".{name}." in prefix for prefix in looked)
            counts.append(len(looked))
    assert len(set(counts)) == 1
    plain = backbone.encoder()
    for name in names:
        load(plain, METHOD, PfeifferSettings(), name, stored)
    expected = plain.state_dict()
    assert list(encoder.state_dict()) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in encoder.state_dict().items())


def test_training_leaves_the_base_as_it_was(backbone: Any, tokens: dict[str, torch.Tensor]) -> None:
    from mtl.backbone import tensors_fingerprint

    encoder = backbone.encoder()
    base = [(n, p) for n, p in encoder.named_parameters() if not n.startswith("pooler.")]
    assert tensors_fingerprint(base) == backbone.base.weights
    parameters = attach(encoder, METHOD, PfeifferSettings(), "mine").parameters
    adam = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=0.1)
    encoder.train()
    for _ in range(3):
        encoder(**tokens).last_hidden_state.square().sum().backward()
        adam.step()
        adam.zero_grad()
    assert any(p.abs().max() > 0.05 for p in parameters.values())
    assert tensors_fingerprint(base) == backbone.base.weights
    pristine = [
        (n, p) for n, p in backbone.pristine.named_parameters() if not n.startswith("pooler.")
    ]
    assert tensors_fingerprint(pristine) == backbone.base.weights


def test_placement_signatures(backbone: Any) -> None:
    def of(**values: Any) -> Any:
        return signature(bottleneck_config(PfeifferSettings(**values), 48))

    assert of() == of(bottleneck=9, activation="tanh", dropout=0.3)
    found = [of(placement=placement) for placement in PLACEMENTS]
    assert found[0] != found[1] != found[2] != found[0]
    json.dumps(found)


STOCK = """
import json, sys
import torch
from adapters import AutoAdapterModel
jobs = json.load(open(sys.argv[1]))
for job in jobs:
    model = AutoAdapterModel.from_pretrained(job["base"])
    info = {}
    name = model.load_adapter(
        job["folder"], use_safetensors=True, set_active=True, loading_info=info, with_head=True
    )
    model.eval()
    tokens = {key: torch.tensor(value) for key, value in job["tokens"].items()}
    with torch.no_grad():
        logits = model(**tokens).logits
    job.update(found=name, logits=logits.tolist(), got=model.get_labels(),
               missing=info.get("missing_keys"))
assert not [m for m in sys.modules if m == "mtl" or m.startswith("mtl.")]
json.dump(jobs, open(sys.argv[1], "w"))
"""
CASES: list[tuple[str, str, str, str, str, tuple[str, ...]]] = [
    ("roberta", "pfeiffer", "two_layer", "glue_rte", "classification", ("yes", "no")),
    ("bert", "houlsby", "pooler_linear", "x_0_9", "classification", ("ä b", "c/d", "e.f")),
    ("deberta-v2", "parallel", "two_layer", "a", "regression", ()),
    ("xlm-roberta", "pfeiffer", "two_layer", "multi", "multilabel", ("p", "q", "r", "s")),
]


def test_stock_adapters_loads_our_folders_and_gives_the_same_logits(
    tiny: Any, tokens: dict[str, torch.Tensor], jiggle: Any, tmp_path: Path
) -> None:
    """One process without mtl loads an entry of each model type; it imports torch only once."""
    jobs, logits = [], []
    for kind, placement, head_name, name, task, labels in CASES:
        backbone = load_backbone(tiny(kind))
        encoder = backbone.encoder()
        settings = PfeifferSettings(placement=placement, bottleneck=7)
        jiggle(attach(encoder, METHOD, settings, name).parameters.values(), 0.2)
        head = build_head(head_name, encoder.config, len(labels) or 1, pooler=backbone.pooler)
        jiggle(head.parameters(), 0.3)
        network = Network(encoder, head).eval()
        with torch.no_grad():
            logits.append(network(tokens))
        folder = tmp_path / f"an entry, ü {kind}"
        model_id = backbone.base.id
        save_adapter(encoder, name, folder, model_id)
        save_head(head, folder, name, encoder.config, kind=task, labels=labels, model_id=model_id)
        again = load_head(folder, encoder.config, pooler=backbone.pooler)
        with torch.no_grad():
            assert torch.equal(Network(encoder, again).eval()(tokens), logits[-1])
        ids = {key: value.tolist() for key, value in tokens.items()}
        jobs.append({"base": tiny(kind), "folder": str(folder), "tokens": ids})
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(path.read_text())
    for case, answer, expected in zip(CASES, answers, logits, strict=True):
        assert answer["found"] == case[3]
        assert not answer["missing"]
        found = torch.tensor(answer["logits"]).reshape(expected.shape)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
        assert expected.std() > 1e-3
        if case[5]:
            assert answer["got"] == list(case[5])
