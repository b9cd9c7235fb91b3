"""``--init-from``: adapters that begin as another one, and what is meant where none is named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_bench import leftovers, mtl, refused
from recommended import follow, provoked, recommends

import mtl as face
from mtl.backbone import Backbone, load_backbone
from mtl.errors import RequestError
from mtl.methods import METHODS
from mtl.report.errors import own_adapter
from mtl.runs import Workspace, load, open_workspace
from mtl.runs.settings import Overrides
from mtl.tasks import load_recipe, load_suite, load_task
from mtl.train.init_from import STORED_OTHERWISE
from mtl.train.stage_one import plan_train
from mtl.zoo import Zoo, open_zoo

SHORT = ["--suite", "mini", "--max-steps", "3", "--eval-every", "3"]
SETTINGS: dict[str, dict[str, Any]] = {"adalora": {"target_rank": 1, "rank": 3}}


def planned(workspace: Workspace, backbone: Backbone, task: str, method: str, **values: Any) -> Any:
    suite = load_suite("mini")
    (run,) = plan_train(
        [load_task(f"mini/{task}")],
        suite=suite,
        method=method,
        seeds=[0],
        backbone=backbone,
        recipe=load_recipe("none", suite.name),
        protocol="official",
        overrides=Overrides({"max_steps": 2, "eval_every": 2, **values}),
        workspace=workspace,
    )
    return run


def test_it_begins_as_the_stored_one_or_is_refused(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = os.environ["MTL_MODEL"]
    workspace, backbone = open_workspace(), load_backbone(model)
    batch = {
        "input_ids": torch.tensor([[0, 5, 6, 7, 2], [0, 6, 9, 5, 2]]),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
    }
    for method in METHODS.names():
        more = SETTINGS.get(method, {})
        source = face.train_adapter(
            "mini/mood", method=method, recipe="none", lr=0.05, max_steps=4, eval_every=4, **more
        )
        if method in STORED_OTHERWISE:
            with pytest.raises(RequestError, match=f"so that {method} cannot begin"):
                planned(workspace, backbone, "same", method, init_from=source.ref, **more)
            with monkeypatch.context() as patch:  # the tensors tell it, too
                patch.delitem(STORED_OTHERWISE, method)
                run = planned(workspace, backbone, "same", method, init_from=source.ref, **more)
                with pytest.raises(RequestError, match="stored in other tensors"):
                    run.build(run, None)
            continue
        run = planned(workspace, backbone, "same", method, init_from=source.ref, **more)
        plain = planned(workspace, backbone, "same", method, **more)
        assert run.runhash != plain.runhash
        below = source.ref.partition("/")[2]
        assert run.settings.init_from == f"{below}@{source.digest[:12]}"
        built = run.build(run, None)
        stored = load(source, workspace.zoo, backbone).network.encoder
        drawn = plain.build(plain, None)
        with torch.no_grad():
            ours, theirs, other = (
                encoder.eval()(**batch).last_hidden_state
                for encoder in (built.network.encoder, stored, drawn.network.encoder)
            )
        assert torch.equal(ours, theirs), method
        assert not torch.equal(ours, other), method
        heads = [dict(each.network.head.named_parameters()) for each in (built, drawn)]
        assert all(torch.equal(heads[0][key], heads[1][key]) for key in heads[1])  # of the seed
    assert leftovers(mini) == []


def test_a_run_that_begins_as_another(stocked: Path) -> None:
    """It is trained once, stands beside the plain one, and is verified; other sources, others."""
    line = ["train", *SHORT, "--task", "same", "--lr", "0.01"]
    both = mtl(*line, "--init-from", "mood", "shared", "--json").json["runs"]
    assert [row["status"] for row in both] == ["done", "done"]
    plain = mtl(*line, "--json").json["runs"][0]
    assert len({row["ref"] for row in [*both, plain]}) == 3
    again = mtl(*line, "--init-from", "mood/pfeiffer/seed0", "--json").json["runs"]
    assert [(row["status"], row["digest"]) for row in again] == [("skipped", both[0]["digest"])]
    assert mtl("zoo", "verify", both[0]["ref"]).code == 0
    kept = open_zoo(stocked).get(both[0]["ref"]).manifest.run_settings["init_from"]
    named = mtl(*line, "--init-from", kept, "--json").json["runs"]  # as the manifest says it
    assert [row["status"] for row in named] == ["skipped"]
    assert "init_from=mini/mood/pfeiffer/seed0" in mtl("report", "--target", "same").out
    elsewhere = mtl(*line, "--init-from", "mood", "--zoo", "other")
    refused(elsewhere, "holds no pfeiffer adapter of a task of this name", "--zoo")
    assert leftovers(stocked) == []


def test_side_by_side_is_as_alone(stocked: Path, tmp_path: Path) -> None:
    line = ["train", *SHORT, "--task", "same", "--init-from", "mood", "shared", "--json"]
    other = tmp_path / "other"
    shutil.copytree(stocked, other)
    alone = mtl(*line).json["runs"]
    beside = mtl(*line, "--zoo", other, "--runs", tmp_path / "r", "--side-by-side", "2").json[
        "runs"
    ]
    assert [row["ref"] for row in beside] == [row["ref"] for row in alone]
    for mine, theirs in zip(alone, beside, strict=True):
        assert theirs["dev"] == pytest.approx(mine["dev"], abs=1e-5)
        one, two = (open_zoo(zoo).get(mine["ref"]).manifest for zoo in (stocked, other))
        assert two.training["side_by_side"] == 2
        assert two.training["best_step"] == one.training["best_step"]


def test_the_adapter_of_a_task_is_the_one_that_was_drawn(stocked: Path) -> None:
    begun = face.train_adapter("mini/same", init_from="mood", suite="mini", epochs=1, lr=0.05)
    composed = face.compose_adapters("mini/same", suite="mini", max_steps=2, eval_every=2)
    own = {parent["task"]: parent["digest"] for parent in composed.manifest.parents}["mini/same"]
    drawn = open_zoo(stocked).get(own)
    assert drawn.digest != begun.digest
    assert not drawn.manifest.run_settings.get("init_from")
    named = face.compose_adapters(
        "mini/same", sources=[begun, "mood"], suite="mini", max_steps=2, eval_every=2
    )
    assert begun.digest in {parent["digest"] for parent in named.manifest.parents}
    alone = face.compose_adapters(
        "mini/same", sources=["mood"], own=False, suite="mini", max_steps=2, eval_every=2
    )
    judged = own_adapter(alone, open_zoo(stocked))
    assert not isinstance(judged, str)
    assert judged.ref == drawn.ref
    assert "own adapters fit" not in mtl("graph", "build").err
    (row,) = [
        row
        for row in mtl("report", "--target", "same", "--json").json["rows"]
        if row["kind"] == "composition" and row["sources"] == 1
    ]
    test = [entry.manifest.headline() or {} for entry in (alone, drawn)]
    assert row["gain"]["mean"] == pytest.approx(test[0]["value"] - test[1]["value"])


def test_a_task_goes_before_a_digest_that_begins_alike(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = open_zoo(stocked).get("shared/pfeiffer/seed0")
    monkeypatch.setattr(Zoo, "get", lambda zoo, key: shared)  # as if it began with "mood"
    said = mtl("train", *SHORT, "--task", "same", "--init-from", "mood", "--dry-run")
    assert "init_from=mini/mood/pfeiffer" in said.out.replace("\n", "").replace(" ", "")


@recommends("train/init_from.py", "Name a task, or an entry")
def test_what_cannot_be_begun_with_is_refused(stocked: Path) -> None:
    line = ["train", *SHORT, "--task", "same", "--init-from"]
    said = mtl(*line, "moood")
    refused(said, "holds no pfeiffer adapter", "Did you mean 'mini/mood'?")
    listed = follow(provoked(said.err, "train/init_from.py", "Name a task, or an entry"))
    assert "mini/mood/pfeiffer/seed0" in listed.out
    refused(mtl(*line, "mood/pfeiffer/seed0", "--method", "lora"), "give --method pfeiffer")
    refused(
        mtl(*line, "mood", "--set", "bottleneck=2"), "other settings of pfeiffer", "bottleneck="
    )
    refused(mtl(*line, "same", "--max-train-samples", "20"), "trained on other rows of mini/same")
    composed = ["--target", "same", "--suite", "mini", "--max-steps", "2", "--init-from", "mood"]
    refused(mtl("compose", *composed), "only an adapter of stage one")
    joint = ["--suite", "mini", "--method", "adapter-m", "--max-steps", "2", "--init-from", "mood"]
    refused(mtl("joint", *joint), "only an adapter of stage one")
    more = mtl("train", *SHORT, "--task", "mood", "--lr", "0.02", "--json")
    assert more.code == 0
    refused(mtl(*line, "mood"), "may mean any of", "name one")
    assert leftovers(stocked) == []
