"""The same weights as another function: other runs, refused as sources; older entries know less."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import TARGET, TASKS, digests, entries, mtl, refused

from mtl.backbone import load_backbone
from mtl.zoo import open_zoo
from mtl.zoo.check import file_table
from mtl.zoo.manifest import Manifest, record


@pytest.fixture
def twin(tiny: Callable[[str], str], tmp_path: Path) -> Path:
    """The encoder of the suite with two attention heads in place of four: weights alike."""
    folder = tmp_path / "twin" / "tiny-roberta"  # even the name is the same
    shutil.copytree(tiny("roberta"), folder)
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "num_attention_heads": 2}))
    return folder


SAID = "num_attention_heads 4 and 2"


def test_a_run_on_another_function_is_another_run(stocked: Path, twin: Path) -> None:
    line = ["--suite", "mini", "--task", "mood", "--json"]
    (row,) = mtl("train", *line).json["runs"]
    assert row["status"] == "skipped"
    (other,) = mtl("train", *line, "--model", twin, "--max-steps", "0").json["runs"]
    assert other["status"] == "done"
    assert other["ref"] != row["ref"]
    assert len(entries(stocked)) == len(TASKS) + 1


def test_another_function_is_refused_wherever_a_base_is_compared(
    stocked: Path, twin: Path, tmp_path: Path
) -> None:
    before = digests(stocked)
    model = ["--model", twin]
    refused(mtl("compose", "--target", TARGET, *model), "trained on 'tiny-roberta'", SAID)
    one = f"mood:pfeiffer/{next(p.name for p in entries(stocked) if 'mood' in str(p))}"
    refused(mtl("compose", "--target", TARGET, "--sources", one, *model), SAID)
    refused(mtl("zoo", "verify", "mood/pfeiffer/seed0", *model), SAID)
    refused(
        mtl("export", "mood/pfeiffer/seed0", tmp_path / "out", "--to", "adapters", *model), SAID
    )
    said = mtl("graph", "suggest", "--target", TARGET, *model, "--json")
    assert SAID in said.out + said.err, said
    line = ["--suite", "mini", "--method", "full-ft-m", "--max-steps", "2"]
    assert mtl("joint", *line).code == 0
    refused(mtl("zoo", "verify", "_joint/full-ft-m/seed0", *model), SAID)
    assert digests(stocked).items() >= before.items()
    assert not (tmp_path / "out").exists()


def test_a_head_that_reads_the_pooler_asks_for_the_same_pooler(
    mini: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    other = tmp_path / "other" / "tiny-roberta"
    shutil.copytree(tiny("roberta"), other)
    tensors = load_file(other / "model.safetensors")
    tensors["pooler.dense.bias"] += 1.0
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    line = ["--suite", "mini", "--task", "mood", "--max-steps", "1", "--json"]
    found = {}
    for head in ("linear", "pooler_linear"):
        rows = [
            mtl("train", *line, "--head", head, *model).json["runs"][0]
            for model in ([], ["--model", other])
        ]
        found[head] = [row["status"] for row in rows]
        said = mtl("zoo", "verify", rows[0]["ref"], "--model", other)
        if head == "linear":
            assert said.code == 0, said
        else:
            refused(said, "differ in pooler ")
    assert found == {"linear": ["done", "skipped"], "pooler_linear": ["done", "done"]}


def age(folder: Path, version: int) -> str:
    """Rewrite an entry as an mtl of before schema version 3 would have stored it; its digest."""
    value = json.loads((folder / "manifest.json").read_text())
    value = {k: v for k, v in value.items() if k not in {"digest", "files"}}
    base = value["base"]
    base["fingerprint"] = base.pop("weights")
    del base["config"], base["pooler"]
    stored = record(Manifest.from_dict(value, "x"), file_table(folder, "x"))
    stored["schema_version"] = version
    if version == 1:
        for item in stored["files"].values():
            item.pop("tensors", None)
    (folder / "manifest.json").write_text(json.dumps(stored))
    return str(stored["digest"])


@pytest.mark.parametrize("version", [1, 2])
def test_entries_of_before_are_compared_by_weights_and_that_is_said(
    version: int, stocked: Path, tiny: Callable[[str], str], twin: Path
) -> None:
    old = {folder: age(folder, version) for folder in entries(stocked)}
    note = "stored before mtl recorded the config of the base"
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--tolerance", "0")
    assert said.code == 0, said
    assert note in said.err
    said = mtl("compose", "--target", TARGET, "--max-steps", "2")
    assert said.code == 0, said
    assert note in said.err
    refused(mtl("compose", "--target", TARGET, "--model", tiny("bert")), "type roberta and bert")
    # what it does not know cannot be refused, but the answers of another function differ
    said = mtl("zoo", "verify", "mood/pfeiffer/seed0", "--model", twin, "--tolerance", "1e-6")
    assert said.code == 1, said
    assert mtl("zoo", "migrate", "--yes").code == 0
    zoo = open_zoo(stocked)
    for folder, digest in old.items():
        assert zoo.get(folder.relative_to(stocked).as_posix()).digest == digest
    assert zoo.fsck() == []


def test_an_entry_that_knows_the_function_goes_before_one_that_does_not(stocked: Path) -> None:
    for folder in entries(stocked):
        age(folder, 2)
    assert mtl("train", "--suite", "mini", "--task", "mood", "--max-steps", "2").code == 0
    said = mtl("compose", "--target", TARGET, "--sources", "mood", "--without-own", "--dry-run")
    assert said.code == 0, said
    assert "stored before" not in said.err


def test_a_fingerprint_that_is_not_that_of_its_parts_is_refused(stocked: Path) -> None:
    folder = entries(stocked)[0]
    value = json.loads((folder / "manifest.json").read_text())
    value["base"]["config"]["num_attention_heads"] = 3
    (folder / "manifest.json").write_text(json.dumps(value))
    said = " ".join(map(str, open_zoo(stocked).fsck()))
    assert "not that of the weights, config and tokenizer" in said


def test_the_number_of_processes_is_part_of_a_run(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process draws its own dropout: in two of them it is another run."""

    def hashes(*line: Any) -> list[str]:
        said = mtl(*line, "--suite", "mini", "--dry-run", "--json")
        return [row["runhash"] for row in said.json["runs"]]

    joint = ("joint", "--method", "hyperformer++")
    alone = hashes(*joint) + hashes("train")
    monkeypatch.setattr("mtl.runs.run.processes", lambda: 2)
    assert not {*alone} & {*hashes(*joint), *hashes("train")}


def test_the_fingerprint_of_a_manifest_is_that_of_its_base(
    stocked: Path, tiny: Callable[[str], str]
) -> None:
    base = load_backbone(tiny("roberta")).base
    for entry in open_zoo(stocked).entries():
        assert entry.manifest.base == base.to_dict()
        assert entry.ref.startswith(f"{base.slug}/")
