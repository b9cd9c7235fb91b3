"""Counts of joint methods on the real modules, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mtl.backbone import build_head, load_backbone
from mtl.cli.main import dispatch
from mtl.errors import RequestError
from mtl.joint import JOINT, resolve_joint
from mtl.joint.training import attach_all
from mtl.methods import RunFacts
from mtl.runs.settings import Overrides
from mtl.tasks import load_recipe

HEAD = 592_130  # two_layer at width 768 with two labels


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["hyperformer", "roberta-base"], {"method": 59_420_544, "mask_entries": 0}),
        (["hyperformer", "roberta-large"], {"method": 209_442_624}),
        (["hyperformer++", "roberta-base"], {"method": 5_095_024, "head": 0}),
        (["hyperformer++", "roberta-large"], {"method": 8_879_488}),
        (["propetl-m", "roberta-base"], {"method": 74_544, "mask_entries": 20 * 73_728}),
        (
            ["propetl-m", "roberta-base", "--set", "tie_layer_scores=true"],
            {"method": 74_544, "mask_entries": 1_400_832},
        ),
        (["adapter-m", "roberta-base"], {"method": 894_528, "total": 894_528}),
        (["adapter-m", "roberta-base", "--head", "two_layer"], {"head": 8 * HEAD}),
        (["adapter-m", "roberta-base", "--recipe", "scalearn"], {"head": 8 * HEAD}),
    ],
)
def test_counts(
    argv: list[str], expected: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    name, model, *rest = argv
    line = ["count", "--method", name, "--model", model, "--tasks", "8", *rest, "--json"]
    assert dispatch("methods", line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.items() >= expected.items()


def test_the_list_of_methods(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch("methods", ["ls", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["methods"]
    joint = {row["method"]: row["settings"] for row in rows if row["stage"] == "joint"}
    assert list(joint) == ["hyperformer", "hyperformer++", "propetl-m", "adapter-m", "full-ft-m"]
    assert joint["hyperformer++"]["shared_generators"] is True
    assert joint["propetl-m"]["keep"] == 0.3
    assert dispatch("methods", ["ls"]) == 0
    assert "propetl-m  (joint): " in capsys.readouterr().out
    assert dispatch("methods", ["count", "--method", "adapter-m", "--tasks", "0"]) == 2


def test_tasks_share_what_the_recipe_wants_of_all(tmp_path: Path) -> None:
    method = JOINT.get("adapter-m")
    humset = ["humset/sectors", "humset/pillars_1d"]
    # selection by the mean dev loss in all joint runs, HumSet's, too (docs/methods.md#joint-runs)
    assert resolve_joint(method, load_recipe("scalearn"), Overrides({}), humset)[1].select == "loss"
    path = tmp_path / "own.yaml"
    by_task = "".join(f"    {task}: {{select: metric}}\n" for task in humset)
    path.write_text(f"methods: {{adapter-m: {{}}}}\ntasks:\n  adapter-m:\n{by_task}")
    recipe = load_recipe(str(path))
    assert resolve_joint(method, recipe, Overrides({}), humset)[1].select == "metric"
    with pytest.raises(RequestError, match=r"sets select .* for glue/rte .* humset/sectors"):
        resolve_joint(method, recipe, Overrides({}), ["glue/rte", "humset/sectors"])
    chosen = Overrides({"select": "loss"})
    assert resolve_joint(method, recipe, chosen, ["glue/rte", *humset])[1].select == "loss"


def test_what_a_head_keeps_fixed_stays_fixed() -> None:
    """COPA's reference head has a first layer that is drawn and never trained."""
    backbone = load_backbone("demo")
    encoder = backbone.encoder()
    heads = {
        task: build_head(design, encoder.config, 2, pooler=False)
        for task, design in (("x/a", "frozen_pooler"), ("x/b", "two_layer"))
    }
    method = JOINT.get("adapter-m")
    shared = method.attach(encoder, list(heads), method.settings(), "joint", RunFacts(1))
    attached = attach_all(encoder, shared, heads, {})
    (group,) = [group for group in attached.groups() if group.name == "head"]
    trained = {f"head.{task}.{key}" for task, head in heads.items() for key in head.trained()}
    assert {*group.parameters} == trained
    every = {f"head.x/a.{key}" for key, _ in heads["x/a"].named_parameters()}
    assert every - trained
    assert all(parameter.requires_grad for parameter in group.parameters.values())


@pytest.mark.parametrize("recipe", ["scalearn", "reference"])
def test_record_in_the_papers_joint_runs(recipe: str) -> None:
    """Only its first 100,730 rows are drawn, and its dev split does not select."""
    tasks = ["superglue/cb", "superglue/record"]
    for name in JOINT.names():
        of = load_recipe(recipe)
        method = JOINT.get(name)
        own, run = resolve_joint(method, of, Overrides({}), tasks)
        assert (own.unselected, own.temperature, own.sampler_seed) == ("superglue/record", 1.0, 0)
        assert (run.max_steps, run.eval_every, run.warmup) == (375_000, 7500, 0.1)
        assert run.patience == "75000 steps"  # ten evaluations
        assert run.lr == (2e-5 if name == "full-ft-m" else 3e-4)
        limits = [
            resolve_joint(method, of, Overrides({}), tasks, task)[1].max_train_samples
            for task in tasks
        ]
        assert limits == [0, 100_730]
        if name == "propetl-m":
            assert own.tie_layer_scores == (recipe == "reference")
