"""Exports with the head of every kind of task answer the same in a process without ``mtl``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mirror_bench
import pytest
import torch
from cli_bench import mtl

ALONE = """
import json, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mtl":
            raise ImportError("mtl is not there")
sys.meta_path.insert(0, Wall())
import adapters, torch
from safetensors.torch import load_file
found = {}
for job in json.loads(sys.argv[1]):
    batch = load_file(job["batch"])
    model = adapters.AutoAdapterModel.from_pretrained(job["base"])
    info = {}
    name = model.load_adapter(job["folder"], set_active=True, loading_info=info)
    assert not any(info.values()), info
    assert model.active_head == name, (model.active_head, name)
    with torch.no_grad():
        out = model.eval()(**batch)
    if hasattr(out, "start_logits"):
        logits = torch.stack([out.start_logits, out.end_logits], -1)
    else:
        logits = out.logits
    found[job["folder"]] = {"logits": logits.tolist(), "labels": model.get_labels(),
                            "head": type(model.heads[name]).__name__}
assert not [name for name in sys.modules if name.split(".")[0] == "mtl"]
print("FOUND", json.dumps(found))
"""

HEADS = {
    "superglue/copa": "MultipleChoiceHead",
    "squad/squad": "QuestionAnsweringHead",
    "superglue/record": "ClassificationHead",
    "superglue/boolq": "ClassificationHead",
    "humset/sectors": "MultiLabelClassificationHead",
    "mini/shared": "ClassificationHead",
}
"""Task → the head of stock adapters; choices, spans, candidates, classes, label sets, numbers."""


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_bench.write_mirror(tmp_path_factory.mktemp("mirror"))


def made(task: str, mirror: Path, model: str) -> tuple[str, str]:
    """References of the task's own adapter and of a composition of it and another."""
    run = ["--model", model, "--data-root", mirror, "--json"]
    run += ["--set", "max_steps=3", "batch_size=8", "eval_batch_size=8", "lr=0.1"]
    own = task.startswith("mini")
    other, protocol = ("mini/same", "official") if own else ("superglue/wic", "scalearn")
    refs = []
    for name in (task, other):
        said = mtl("train", "--task", name, "--protocol", protocol, *run)
        assert said.code == 0, said.err
        refs.append(said.json["runs"][0]["ref"])
    line = ["--target", task, "--sources", other, task, "--protocol", protocol]
    said = mtl("compose", *line, *run)
    assert said.code == 0, said.err
    return refs[0], said.json["runs"][0]["ref"]


@torch.no_grad()
def ours(ref: str, zoo: Path, model: str, mirror: Path) -> tuple[dict[str, Any], Any, Any]:
    """A batch of the task's test split as stock takes it, what the entry answers, and its mask."""
    from mtl.backbone import load_backbone
    from mtl.export.data import EntryData
    from mtl.runs import load, open_workspace
    from mtl.zoo import open_zoo

    entry = open_zoo(zoo).get(ref)
    backbone = load_backbone(model)
    loaded = load(entry, open_zoo(zoo), backbone)
    data = EntryData(
        entry, backbone, open_workspace(zoo=zoo, data_root=str(mirror), command="test")
    )
    encoded = data.split("test").encoded
    batch = encoded.collate(list(range(4)))
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    return inputs, loaded.network(batch), encoded.choices


@pytest.mark.parametrize(
    ("kind", "tasks"), [("roberta", list(HEADS)), ("bert", ["superglue/copa", "squad/squad"])]
)
def test_every_kind_of_head(
    kind: str,
    tasks: list[str],
    mini: Path,
    mirror: Path,
    tiny: Callable[[str], str],
    tmp_path: Path,
) -> None:
    from safetensors.torch import save_file

    jobs, expected = [], {}
    for task in tasks:
        model = tiny(kind)
        for ref in made(task, mirror, model):
            folder = tmp_path / "out" / ref.replace("/", "_")
            said = mtl("export", ref, folder, "--to", "adapters", "--model", model, "--json")
            assert said.code == 0, said.err
            proof = said.json["proof"]
            assert proof["max_logit_difference"] <= 1e-5
            assert proof["adapter_effect"] > 20 * 1e-5  # an adapter that is lost would be seen
            inputs, logits, choices = ours(ref, mini, model, mirror)
            mask = inputs["attention_mask"].bool()
            if choices > 1:
                inputs = {k: v.reshape(-1, choices, v.shape[-1]) for k, v in inputs.items()}
                logits = logits.reshape(-1, choices)
            file = tmp_path / f"{len(jobs)}.safetensors"
            save_file(inputs, file)
            jobs.append({"batch": str(file), "base": model, "folder": str(folder)})
            expected[str(folder)] = (task, logits, mask)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(jobs)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.rpartition("FOUND ")[2])
    for folder, (task, logits, mask) in expected.items():
        assert found[folder]["head"] == HEADS[task]
        again = torch.tensor(found[folder]["logits"])
        assert again.shape == logits.shape
        if task == "squad/squad":  # what padding answers, stock leaves to its reader
            again, logits = again[mask], logits[mask]
        assert float((again - logits).abs().max()) <= 1e-5
        if task == "superglue/boolq":
            assert found[folder]["labels"] == ["False", "True"]


@pytest.mark.parametrize("task", ["superglue/copa", "squad/squad"])
def test_choices_and_spans_are_narrowed_and_distilled(
    task: str, mini: Path, mirror: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model = tiny("roberta")
    _, composition = made(task, mirror, model)
    line = ["--to", "adapters", "--model", model, "--data-root", mirror, "--json"]
    said = mtl("export", composition, tmp_path / "n", *line, "--width", "2", "--tolerance", "1")
    assert said.code == 0, said.err
    assert said.json["width"] == 2
    assert said.json["proof"]["max_logit_difference"] <= said.json["proof"]["limit"]
    change = said.json["changes"]["narrowing"]["test"]
    assert 0 < change["max_logit_difference"] < 100  # padding's logits are no difference
    said = mtl("export", composition, tmp_path / "d", *line, "--distill", "--epochs", "1")
    assert said.code == 0, said.err
    # it folds, so that the least-squares start is exact, and nothing can be nearer
    assert said.json["distilled"]["dev_logit_error"][0] < 1e-6
    assert said.json["distilled"]["kept_epoch"] == 0
    assert said.json["changes"]["distilling"]["test"]["equal_predictions"] == 1.0
