"""Every model type of the table from training to stock libraries, by ``scripts/bases.py``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cli_bench import ROOT, mtl, refused
from recommended import follow, provoked, recommends
from test_light_doors import light

from mtl.backbone import load_backbone
from mtl.backbone.arch import LEFT_OUT, archs
from mtl.runs import load
from mtl.zoo import open_zoo

TYPES = list(archs())
NEVER_REFUSED = ("pfeiffer", "lora", "adakron", "sora", "adalora")
NEVER_ON = ("electra", "distilbert", "modernbert")


@pytest.fixture(scope="module")
def bases() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bases", ROOT / "scripts" / "bases.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def place(bases: ModuleType) -> Iterator[Path]:
    with bases.workplace() as folder:
        yield folder


def numbers(cells: dict[str, Any]) -> dict[str, float | str]:
    return {
        name: cell.difference if cell.reason == "" else "refused" for name, cell in cells.items()
    }


@pytest.mark.parametrize("method", ["pfeiffer", "lora"])
@pytest.mark.parametrize("kind", TYPES)
def test_one_cell_per_type_and_kind(kind: str, method: str, bases: ModuleType, place: Path) -> None:
    """``scalearn++`` is composed wherever it is not refused; what stock gives is the same."""
    (cells,) = bases.try_type(kind, place, [method], ["scalearn++"]).values()
    assert {name: cell.error for name, cell in cells.items() if cell.error} == {}
    found = numbers(cells)
    plugged_norm = kind in ("mpnet", "bart") and method == "pfeiffer"
    assert found["verify"] == found["scalearn++ verify"] == 0
    for what in ("export", "scalearn++ export"):
        assert (found[what] == "refused") == plugged_norm, cells[what]
    if plugged_norm:
        assert "LayerNorm of the last one" in cells["export"].reason


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", TYPES)
def test_the_whole_matrix(kind: str, bases: ModuleType, place: Path) -> None:
    found = bases.try_type(kind, place, bases.METHODS, bases.COMPOSITIONS)
    wrong = {
        (method, name): cell.error
        for method, cells in found.items()
        for name, cell in cells.items()
        if cell.error
    }
    assert wrong == {}
    if kind in NEVER_ON:
        for method in NEVER_REFUSED:
            for name in ("verify", "scalearn verify", "scalearn++ verify"):
                assert found[method][name].reason == "", (method, name)


def test_the_page_is_of_this_table() -> None:
    page = (ROOT / "docs" / "bases.md").read_text(encoding="utf-8")
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")][:-2] == TYPES
    for kind, why in LEFT_OUT.items():
        assert f"- `{kind}`: {why}." in page
    for kind, arch in archs().items():
        part = page.partition(f"## {kind}\n")[2].partition("\n## ")[0]
        for name, why in arch.refuses.items():
            assert f"- no `{name}`: {why}." in part


# ------------------------------------------------------------------ what users see


@pytest.mark.parametrize("model", ["modernbert", "roberta-base", "demo"])
def test_what_works_on_a_model_is_listed_without_weights(model: str) -> None:
    said = light("methods", "ls", "--model", model)
    assert said.code == 0
    assert "pfeiffer" in said.out
    arch = archs()[model if model in archs() else "roberta"]
    for name, why in arch.refuses.items():
        assert f"not {name}: {why}" in said.out
    found = mtl("methods", "ls", "--model", model, "--json").json
    assert found["type"] == arch.type
    refusals = {row["method"]: row["reason"] for row in found["methods"] if not row["works"]}
    assert refusals == dict(arch.refuses)


def test_a_folder_says_its_type_by_its_config_alone(bases: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    assert "not scalearn:" in mtl("methods", "ls", "--model", str(tmp_path)).out
    (tmp_path / "config.json").write_text('{"model_type": "xmod"}')
    refused(mtl("methods", "ls", "--model", str(tmp_path)), LEFT_OUT["xmod"])
    refused(mtl("methods", "ls", "--model", "electr"), "Did you mean 'electra'?")


@recommends("backbone/arch.py", "What can: ")
def test_a_refused_method_says_what_can(mini: Path, bases: ModuleType, tmp_path: Path) -> None:
    model = bases.write_tiny("modernbert", tmp_path / "modernbert")
    line = ["--suite", "mini", "--task", "mood", "--model", model]
    said = mtl("train", *line, "--method", "prefix")
    refused(said, "prefix", "no place for prefixes")
    said = follow(provoked(said.err, "backbone/arch.py", "What can: "))
    assert "not prefix: " in said.out
    refused(mtl("methods", "count", "--method", "bitfit", "--model", str(model)), "no biases")
    said = mtl("methods", "count", "--method", "all", "--model", str(model))
    assert said.code == 0
    assert "bitfit: not counted, its linears" in said.err
    assert "vera: not counted, vera changes whole linear modules" in said.err


def test_composing_on_one_shared_layer_is_refused_with_the_reason(
    mini: Path, bases: ModuleType, tmp_path: Path
) -> None:
    model = bases.write_tiny("albert", tmp_path / "albert")
    said = mtl("methods", "count", "--method", "scalearn", "--model", str(model))
    refused(said, "one omega for all of them", "++")
    said = mtl("methods", "count", "--method", "scalearn++", "--model", str(model), "--json")
    assert said.json["total"] == 8 * 48


def test_modules_of_a_fused_projection_are_named_together(
    mini: Path, bases: ModuleType, tmp_path: Path
) -> None:
    model = bases.write_tiny("modernbert", tmp_path / "modernbert")
    line = ["--suite", "mini", "--task", "mood", "--model", str(model), "--method", "adalora"]
    said = mtl("train", *line, "--set", "modules=q,v")
    assert said.code != 0
    assert "--set modules=q,k,v" in said.err


@pytest.mark.parametrize("kind", ["distilbert", "modernbert", "mpnet", "t5", "bart"])
def test_token_types_of_a_tokenizer_go_no_further(
    kind: str, bases: ModuleType, place: Path, tmp_path: Path
) -> None:
    """A tokenizer that hands over token types, a type that reads none, and a cache of before."""
    from transformers import AutoTokenizer

    from mtl.data import encode, load_data
    from mtl.tasks import load_task

    folder = bases.write_tiny(kind, tmp_path / kind)
    raw = AutoTokenizer.from_pretrained(folder)
    assert "token_type_ids" in raw.model_input_names
    data = load_data(load_task(str(place / "tasks" / "first.yaml")), protocol="official")
    stale = encode(data, "dev", raw, cache=tmp_path / "cache")
    backbone = load_backbone(str(folder))
    encoded = backbone.encode(data, "dev", cache=tmp_path / "cache")
    assert stale.types is not None
    assert encoded.types is None
    batch = encoded.collate(encoded.row[:3])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    assert "token_type_ids" not in batch
    with torch.no_grad():
        assert backbone.encoder()(**inputs).last_hidden_state.shape[0] == 3


def test_a_camembert_is_a_roberta(bases: ModuleType, tmp_path: Path) -> None:
    from transformers import CamembertModel

    folder = bases.write_tiny("camembert", tmp_path / "camembert")
    backbone = load_backbone(str(folder))
    assert backbone.base.type == "roberta"
    theirs = CamembertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[0, 7, 9, 11, 2], [0, 8, 2, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    with torch.no_grad():
        ours = backbone.pristine(**inputs).last_hidden_state
        assert torch.equal(ours, theirs(**inputs).last_hidden_state)


def test_the_card_says_how_adapters_loads_a_camembert(
    mini: Path, bases: ModuleType, tmp_path: Path
) -> None:
    """It knows no such type: ``AutoAdapterModel`` of the folder ends in an error."""
    import mtl as face

    model = bases.write_tiny("camembert", tmp_path / "camembert")
    trained = ["--suite", "mini", "--task", "mood", "--model", str(model), "--lr", "0.02"]
    ref = mtl("train", *trained, "--epochs", "2", "--json").json["runs"][0]["ref"]
    out = tmp_path / "out"
    assert mtl("export", ref, out, "--to", "adapters", "--model", str(model)).code == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    plain, copied = (part.partition("```")[0] for part in card.split("```python\n")[1:3])
    kept = plain.replace(
        "model = AutoAdapterModel.from_pretrained(FOLDER_OF_THE_ENCODER)\n", copied
    )
    assert kept != plain
    texts = ["every cat is happy today", "a bird"]
    code = kept.replace("FOLDER_OF_THE_ENCODER", repr(str(model))).replace("FOLDER", repr(str(out)))
    found: dict[str, Any] = {"print": lambda *_: None}
    exec(code.replace('["text 1"]', repr(texts)), found)
    answers = face.load(ref, zoo=mini, model=str(model)).predict(texts, scores=True)
    torch.testing.assert_close(found["logits"], torch.from_numpy(answers.raw), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("modernbert", "pfeiffer"),
        ("mpnet", "houlsby"),
        ("t5", "pfeiffer"),
        ("bart", "houlsby"),
    ],
)
def test_the_card_loads_what_has_no_heads_in_adapters(
    kind: str, method: str, mini: Path, bases: ModuleType, tmp_path: Path
) -> None:
    """The lines of the card in a process without mtl, with the head applied as it says."""
    model = bases.write_tiny(kind, tmp_path / kind)
    line = ["--suite", "mini", "--task", "mood", "--model", str(model), "--method", method]
    assert mtl("train", *line, "--epochs", "3", "--lr", "0.02", "--json").code == 0
    ref = open_zoo(mini).entries()[0].ref
    said = mtl("export", ref, str(tmp_path / "out"), "--to", "adapters", "--model", str(model))
    assert said.code == 0, said.err
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    code = card.partition("```python\n")[2].partition("\n```")[0]
    mean = kind in ("t5", "bart")
    assert ("the mean over the tokens" if mean else "reads the first token") in card
    kept = "(ids != 1).unsqueeze(-1)"
    read = f"(x * {kept}).sum(1) / {kept}.sum(1)" if mean else "x[:, 0]"
    code = code.replace("FOLDER_OF_THE_ENCODER", repr(str(model)))
    code = code.replace("FOLDER", repr(str(tmp_path / "out")))
    code += (
        "\nimport sys\n"
        "ids = torch.tensor([[0, 9, 11, 13, 2], [0, 10, 2, 1, 1]])\n"
        "x = encoder.eval()(input_ids=ids, attention_mask=(ids != 1).long())\n"
        "x = x.last_hidden_state\n"
        f"x = {read}\n"
        "layers = sorted({int(key.split('.')[2]) for key in head})\n"
        "for place in layers:\n"
        "    weight, bias = (v for k, v in sorted(head.items(), reverse=True)\n"
        "                    if k.split('.')[2] == str(place))\n"
        "    x = torch.nn.functional.linear(x if place == layers[0] else x.tanh(), weight, bias)\n"
        "assert 'mtl' not in sys.modules\n"
        "print(x.tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-1500:]
    theirs = torch.tensor(json.loads(done.stdout.splitlines()[-1]))
    backbone = load_backbone(str(model))
    entry = open_zoo(mini).entries()[0]
    network = load(entry, open_zoo(mini), backbone).network.eval()
    ids = torch.tensor([[0, 9, 11, 13, 2], [0, 10, 2, 1, 1]])
    with torch.no_grad():
        ours = network({"input_ids": ids, "attention_mask": (ids != 1).long()})
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
