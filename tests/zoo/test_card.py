"""Cards: what the Hub reads of them, and what people read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_bench import composed, proven
from huggingface_hub import ModelCard
from zoo_bench import manifest

from mtl.hub import parse_repo
from mtl.hub.cards import check_license, entry_card, zoo_card
from mtl.hub.index import ROOT, listed
from mtl.zoo import Zoo
from mtl.zoo.card import card, header, interval, license_of

REPO = parse_repo("ada/zoo")


def real(**changes: Any) -> Any:
    """A manifest of a base and a task that come from the Hub."""
    plain = manifest()
    task = {
        **plain.task,
        "id": "glue/rte",
        "spec": {"data": {"repo": "nyu-mll/glue", "config": "rte"}},
    }
    base = {**plain.base, "id": "FacebookAI/roberta-base", "revision": "0" * 40}
    metrics = {
        "dev": {"accuracy": {"value": None, "stderr": None, "n": 0}},
        "test": {"accuracy": {"value": 0.75, "stderr": 0.025, "n": 277}},
    }
    return manifest(task=task, base=base, metrics=metrics, **changes)


def test_what_the_hub_reads() -> None:
    data = ModelCard(card(real(), "apache-2.0", library="adapters")).data
    assert data.base_model == "FacebookAI/roberta-base"
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert data.datasets == ["nyu-mll/glue"]
    assert data.license == "apache-2.0"
    assert data.library_name == "adapters"
    assert data.metrics == ["accuracy"]
    assert {"mtl", "pfeiffer", "adapter", "task:glue/rte", "adapter-transformers"} <= set(data.tags)
    (result,) = data.eval_results  # what is undefined is left out
    assert (result.dataset_type, result.dataset_config) == ("nyu-mll/glue", "rte")
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.75)
    assert "adapter-transformers" not in ModelCard(card(real(), library="mtl")).data.tags


@pytest.mark.parametrize(
    ("form", "tags", "relation"),
    [
        ("adapters", {"adapter-transformers"}, "adapter"),
        ("peft", {"peft"}, "adapter"),
        ("onnx", {"onnx"}, "finetune"),
        ("transformers", set(), "finetune"),
    ],
)
def test_an_exported_folder_is_tagged_by_who_loads_it(
    form: str, tags: set[str], relation: str
) -> None:
    """Whatever the entry itself is: this one's own weights are an adapter of ``adapters``."""
    assert real().weights == "adapters"
    data = ModelCard(f"---\n{header(real(), {}, form=form)}\n---\n").data
    assert data.library_name == form
    assert {"adapter-transformers", "peft", "onnx"} & set(data.tags) == tags
    assert data.to_dict()["base_model_relation"] == relation


def test_what_people_read() -> None:
    text = card(real(), "mit")
    # 0.75 ± 1.96 · 0.025, n = 277
    assert "| test | accuracy | 0.7500 | 0.7010 to 0.7990 | 0.0250 | 277 |" in text
    assert "| dev | accuracy | – | – | – | 0 |" in text
    assert "parameters trained | 42 |" in text
    assert "| selected by | – |" in text
    kept = real(training={**manifest().training, "selected_by": "last step"})
    assert "| selected by | last step |" in card(kept)
    assert "python -m mtl.train --suite toy" in text
    assert "## Limits" in text
    assert "mit, as given" in text
    assert "None was given" in card(real())
    assert interval({"value": 0.5, "stderr": None}) == "–"


@pytest.mark.parametrize(
    ("weights", "config", "library", "says"),
    [
        ("adapters", '{"config": {}}', "adapters", 'model.load_adapter("ada/zoo"'),
        ("adapters", '{"config": {"architecture": "mtl_kron"}}', "mtl", "not one that"),
        ("delta", "{}", "mtl", "The package `mtl` reads it"),
        ("peft", "{}", "peft", 'PeftModel.from_pretrained(encoder, "ada/zoo")'),
    ],
)
def test_how_to_load_it(weights: str, config: str, library: str, says: str, zoo: Zoo) -> None:
    entry = proven(zoo, weights=weights)
    (entry.folder / "adapter_config.json").write_text(config)
    text = entry_card(entry, REPO, listed(entry, ROOT), None)
    assert says in text
    assert ModelCard(text).data.library_name == library
    assert f"mtl.zoo pull ada/zoo {entry.ref}" in text
    nested = entry_card(entry, parse_repo("ada/zoo@next"), listed(entry, entry.ref), None)
    if library != "mtl":
        assert f'snapshot_download("ada/zoo", revision="next") + "/{entry.ref}"' in nested


def test_a_composition_names_its_parents(zoo: Zoo) -> None:
    entry, sources = composed(zoo)
    text = entry_card(entry, REPO, listed(entry, entry.ref), None)
    for source in sources:
        assert source.ref in text
        assert source.digest[:16] in text
    assert "this composition (scalearn)" in text
    whole = zoo_card([listed(e, e.ref) for e in zoo.entries()], REPO, "mit")
    assert ModelCard(whole).data.license == "mit"
    assert "| 0.5000 | 0.0100 to 0.9900 | 4 |" in whole


@pytest.mark.parametrize("name", ["MIT License", "a\nb", "", "x" * 90])
def test_licences_that_are_none(name: str) -> None:
    with pytest.raises(Exception, match="no licence"):
        check_license(name)


def test_the_licence_of_a_card(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    for text, expected in (
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [a]\n---\n", None),
        ("---\nlicense: !!python/object/apply:os.system [x]\n---\n", None),
        ("no header", None),
        ("---\n: : :\n---\n", None),
    ):
        path.write_text(text)
        assert license_of(path) == expected
