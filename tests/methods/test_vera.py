"""VeRA: its formula, its projections, its files in stock ``peft``, wrong settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from low_rank_bench import TYPES, changed, check_round_trip, check_trains_alone, last

from mtl.backbone import load_backbone
from mtl.errors import RequestError, ZooError
from mtl.files import read_safetensors, write_safetensors
from mtl.methods import METHODS, attach, count_method, load
from mtl.methods.modules.vera import projections
from mtl.methods.peft_files import NAME
from mtl.methods.vera import VeRASettings

METHOD = METHODS.get("vera")
FILES = {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize(("kind", "modules"), [*((kind, "all") for kind in TYPES), ("bert", "q,v")])
def test_stored_and_loaded_is_the_same(
    kind: str, stored: bool, modules: str, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    values = {"modules": modules, "rank": 20, "store_projection": stored, "projection_seed": 3}
    # the vectors must be large: two random projections stand between them
    check_round_trip("vera", tiny(kind), tokens, jiggle, tmp_path, FILES, **values)


def test_projections_are_those_of_peft(encoder: Any) -> None:
    settings = VeRASettings(rank=16, projection_seed=5, modules="all")
    down, up = projections(encoder, settings)
    attach(encoder, METHOD, settings, "mine")
    layer = encoder.encoder.layer[0].attention.self.query
    assert torch.equal(layer.vera_A[NAME], down)
    assert torch.equal(layer.vera_B[NAME], up)
    assert (down.shape, up.shape) == ((16, 64), (64, 16))


def test_projections_do_not_depend_on_the_run(encoder: Any) -> None:
    settings = VeRASettings(rank=16)
    torch.manual_seed(1)
    first = projections(encoder, settings)
    torch.manual_seed(2)
    again = projections(encoder, settings)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_trains_alone_and_starts_as_the_base(encoder: Any, tokens: Any, jiggle: Any) -> None:
    before = last(encoder, tokens)
    tuned = attach(encoder, METHOD, VeRASettings(rank=16, d_initial=0.2), "mine")
    assert torch.equal(last(encoder, tokens), before)
    starts = {name[-1]: value for name, value in tuned.parameters.items()}
    assert torch.equal(starts["d"], torch.full((16,), 0.2))
    assert torch.equal(starts["b"], torch.zeros(48))
    jiggle(tuned.parameters.values())
    check_trains_alone(encoder, tuned, tokens)


@pytest.mark.parametrize("stored", [True, False])
def test_stock_peft_reads_the_entry(
    stored: bool, encoder: Any, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModel

    tuned = changed(encoder, "vera", jiggle, rank=16, modules="all", store_projection=stored)
    tuned.save(tmp_path, "some/base")
    model = PeftModel.from_pretrained(AutoModel.from_pretrained(tiny("roberta")), str(tmp_path))
    torch.testing.assert_close(last(model.eval(), tokens), last(encoder, tokens))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "VERA"
    assert config["base_model_name_or_path"] == "some/base"


@pytest.mark.parametrize(
    ("values", "expected"),
    [({"rank": 1024}, 43008), ({}, 24576), ({"rank": 8, "modules": "all"}, 12 * (48 + 9 * 768))],
)
def test_counts(values: dict[str, Any], expected: int) -> None:
    assert count_method("vera", "bert-base-uncased", values=values).method == expected


def test_weights_that_do_not_fit_are_refused(
    encoder: Any, tiny: Any, jiggle: Any, tmp_path: Path
) -> None:
    changed(encoder, "vera", jiggle, rank=16).save(tmp_path, "tiny")
    path = tmp_path / "adapter_model.safetensors"
    tensors, metadata = read_safetensors(path)
    name = next(key for key in tensors if key.endswith("vera_lambda_d"))
    other = load_backbone(tiny("roberta"))
    for said, wrong in (
        ("lambda_d", {k: v for k, v in tensors.items() if k != name}),
        ("vera_A", {k: v for k, v in tensors.items() if not k.endswith("vera_A")}),
        ("vectors of 0.q", {**tensors, name: tensors[name][:3]}),
    ):
        write_safetensors(path, {k: v.contiguous() for k, v in wrong.items()}, metadata)
        with pytest.raises(ZooError, match=said):
            load(other.encoder(), METHOD, VeRASettings(rank=16), "other", tmp_path)
    for values in ({"rank": 8}, {"rank": 16, "projection_seed": 1}):
        with pytest.raises(ZooError, match="expected"):
            load(other.encoder(), METHOD, VeRASettings(**values), "other", tmp_path)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rank": 0}, "rank=0"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"projection_seed": -1}, "projection_seed=-1"),
        ({"modules": "values"}, "values"),
    ],
)
def test_wrong_settings(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        VeRASettings(**values)


@pytest.mark.parametrize("name", ["vera", "adalora"])
def test_without_peft_the_remedy_is_said_and_entries_still_load(
    name: str,
    encoder: Any,
    backbone: Any,
    tokens: Any,
    jiggle: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = METHODS.get(name)
    changed(encoder, name, jiggle, rank=4).save(tmp_path, "tiny")
    expected = last(encoder, tokens)
    monkeypatch.setattr("mtl.methods.peft_files.find_spec", lambda name: None)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)  # an import would fail
    with pytest.raises(RequestError, match=rf"(?s){name}.*pip install peft"):
        attach(backbone.encoder(), method, method.settings(rank=4), "new")
    other = backbone.encoder()
    load(other, method, method.settings(rank=4), "other", tmp_path)
    torch.testing.assert_close(last(other, tokens), expected, rtol=0, atol=1e-5)
