"""``--sources best``: from the command line and from Python, to an entry that tells the choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_bench import mtl, refused
from study_bench import write_study

import mtl as face
from mtl.zoo import open_zoo

LINE = ["--target", "same", "--sources", "best", "--epochs", "2"]


def test_the_best_is_searched_on_dev_and_told(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.backbone.backbones import Backbone

    real, splits = Backbone.encode, []

    def watched(self: Any, data: Any, split: str, cache: Any = None) -> Any:
        splits.append(split)
        return real(self, data, split, cache)

    monkeypatch.setattr(Backbone, "encode", watched)
    said = mtl("compose", *LINE, "--json")
    assert said.code == 0, said
    choice, (row,) = said.json["choice"], said.json["runs"]
    first_test = splits.index("test")
    assert splits[:first_test].count("dev") > len(choice["tried"]) - 1  # test rows only afterwards
    assert choice["cost"] <= choice["budget"] == 12
    assert choice["rows"] == 32 + 96  # dev is small: folds of train and dev judge
    assert choice["by"].startswith("train and dev (3 folds)")
    assert list(choice["beside"]) == ["the own adapter of every fold (3 runs)"]
    stages = [item["stage"] for item in choice["tried"]]
    assert stages == sorted(stages, key=["single", "forward", "used", "full"].index)
    (entry,) = open_zoo(stocked).entries(kind="composition")
    assert row["ref"] == entry.ref
    told = entry.manifest.training["choice"]
    assert told == json.loads(json.dumps(choice))
    assert tuple(parent["task"] for parent in entry.manifest.parents) == tuple(
        told["chosen"]["sources"]
    )
    assert entry.manifest.method == told["chosen"]["method"]
    full = [item for item in told["tried"] if item["stage"] == "full"]
    (picked,) = (item for item in full if item["candidate"] == told["chosen"])
    assert picked["dev"] == max(item["dev"] for item in full)
    assert mtl("zoo", "fsck").code == 0
    assert mtl("zoo", "verify", entry.ref).code == 0


def test_the_same_line_again_searches_nothing_anew(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = face.compose_adapters("mini/same", sources="best", epochs=2)
    monkeypatch.setattr("mtl.runs.trial.train", lambda *_: pytest.fail("trained again"))
    assert face.compose_adapters("mini/same", sources="best", epochs=2).digest == entry.digest
    runs = mtl("zoo", "gc", "--json").json
    assert "was killed" not in json.dumps(runs)
    said = mtl("compose", *LINE)
    assert "skipped" in said.out
    assert "chosen: " in said.out
    assert said.out.split("\n")[0].split()[-3:] == ["±", "se", "chosen"]
    assert "128 train and dev (3 folds) rows" in said.out


def test_folds_make_the_own_adapter_anew_without_their_dev_rows(
    stocked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl.runs import trial

    real, made = trial.try_run, []

    def watched(run: Any, workspace: Any, **options: Any) -> Any:
        made.append((run, options))
        return real(run, workspace, **options)

    monkeypatch.setattr(trial, "try_run", watched)
    assert mtl("compose", *LINE).code == 0
    own = [run for run, options in made if options.get("keep")]
    assert [run.kind for run in own] == ["adapter"] * 3
    assert len({run.data.fingerprint for run in own}) == 3
    by_rows = {run.data.fingerprint: run.runhash for run in own}
    using = [run for run, _ in made if run.kind == "composition"]
    held = [p for run in using for p in run.parents if p["task"] == "mini/same"]
    assert held
    for run in using:
        assert set(run.data.splits) == {"train", "dev"}
        assert run.settings.select == "last"
        for parent in run.parents:
            if parent["task"] == "mini/same":  # of the same fold
                assert parent["digest"] == by_rows[run.data.fingerprint]


def test_a_search_that_may_take_no_time_tries_the_sources_alone(stocked: Path) -> None:
    said = mtl("compose", *LINE, "--time", "1e-9", "--json")
    assert said.code == 0, said
    choice = said.json["choice"]
    assert {item["stage"] for item in choice["tried"]} == {"single"}
    assert len(choice["tried"]) == 3
    assert choice["seconds"] == pytest.approx(6e-8)
    more = mtl("compose", *LINE, "--json").json["choice"]
    assert {item["stage"] for item in more["tried"]} > {"single"}


def test_wrong_requests_for_the_best(stocked: Path) -> None:
    refused(mtl("compose", "--target", "same", "--sources", "best", "mood"), "stands alone")
    refused(mtl("compose", "--target", "same", "--sources", "bst"), "Did you mean 'best'?")
    refused(mtl("compose", *LINE, "--trials", "1"), "--trials 1", "takes ", "12 is usual")
    refused(mtl("compose", *LINE, "--trials", "0", "--dry-run"), "takes 1; all stages")
    refused(mtl("compose", *LINE, "--trials", "-3", "--train-missing"), "takes 1; all stages")
    refused(mtl("compose", *LINE, "--time", "0"), "minutes must be above 0")
    refused(mtl("compose", "--target", "same", "--time", "3"), "is for --sources best")
    refused(mtl("compose", *LINE, "--method", "soup"), "'soup' takes fixed weights")
    refused(mtl("compose", "--target", "same", "--trials", "3"), "is for --sources best")
    refused(mtl("compose", *LINE, "--source-seed", "run", "--seeds", "0", "1"), "searched for")
    refused(mtl("compose", *LINE, "--method", "scalearn", "fusion"), "method has 2 values", "once")


def test_trials_that_cannot_pay_the_folds_are_refused_before_anything_is_trained(
    stocked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The own adapter of every fold is part of the cost; it is known without training it."""
    monkeypatch.setattr("mtl.runs.trial.train", lambda *_: pytest.fail("trained"))
    said = ("--trials 3: ", "of it the own adapter of every fold (3 runs)")
    for more in ([], ["--dry-run"], ["--dry-run", "--side-by-side", "2"]):
        refused(mtl("compose", *LINE, *more, "--trials", "3"), *said)
    few = mtl("compose", "--target", "same", "--sources", "best", "--max-steps", "1", "--dry-run")
    refused(few, "--trials 12: ", "or more")
    enough = few.err.split("give --trials ")[1].split()[0]
    again = mtl("compose", *LINE[:4], "--max-steps", "1", "--dry-run", "--trials", enough)
    assert again.code == 0, again
    compose = {"method": "scalearn", "targets": ["same"], "sources": "best", "trials": 3}
    path = write_study(tmp_path, "set", "joint", seeds=[0], compose=[compose])
    told = mtl("study", "plan", path, "--json").json
    assert (told["states"]["done"], told["states"]["blocked"]) == (3, 1)
    refused(mtl("study", "run", path), "Nothing was run", *said)


def test_a_dry_run_says_what_the_search_will_do_and_cost(stocked: Path) -> None:
    said = mtl("compose", *LINE, "--dry-run")
    assert said.code == 0
    assert "single   0.25 of a run each: each source alone, all together, what 'auto'" in said.out
    assert "among 3 sources comes first. It trains what 11 full runs cost at most:" in said.out
    assert "among     3: mini/mood:pfeiffer/seed0-" in said.out
    assert "which cost more, with an own adapter for each: up to 12 full runs" in said.out
    assert "scalearn/seed0" not in said.out  # which composition it will be is not known
    told = mtl("compose", *LINE, "--dry-run", "--trials", "9", "--json").json
    assert told["runs"] == []
    assert (told["search"]["sources"], told["search"]["cost"]) == (3, 9)
    (own,) = open_zoo(stocked).entries(task="mini/same")
    assert mtl("zoo", "rm", own.ref).code == 0
    said = mtl("compose", *LINE, "--lr", "0.01", "--train-missing", "--dry-run")
    assert said.code == 0
    assert "the zoo lacks, 1 run of stage one, at the settings of recipe mini" in said.out
    assert "the composition's alone: epochs (--epochs), lr (--lr)" in said.out.replace(
        "lr (--lr), epochs (--epochs)", "epochs (--epochs), lr (--lr)"
    )
    assert "among 3 sources comes first" in said.out
    assert "mini/same/pfeiffer/seed0" in said.out
    assert not open_zoo(stocked).entries(kind="composition")
