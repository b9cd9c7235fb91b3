"""Every row of the published tables, on every task: the settings that the papers trained it at.

The expectations are written out from the papers and the scripts of their repositories (named in
docs/methods.md#references), never read from a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import pytest

from mtl.compose import COMPOSITIONS, resolve_compose
from mtl.joint import JOINT, resolve_joint
from mtl.methods import METHODS
from mtl.runs import Overrides
from mtl.tasks import load_recipe, load_suite, load_task
from mtl.train import resolve_train

GLUE = ["rte", "mrpc", "cola", "stsb", "sst2", "qnli", "mnli", "qqp"]
SUPERGLUE = [*(f"superglue/{name}" for name in ("cb", "copa", "wsc")), "glue/rte"]
SUPERGLUE += [f"superglue/{name}" for name in ("wic", "boolq", "multirc", "record")]
HUMSET = ["sectors", "pillars_1d", "pillars_2d", "subpillars_1d", "subpillars_2d"]
SUITES = {
    "glue": [f"glue/{name}" for name in GLUE],
    "superglue": SUPERGLUE,
    "glue+superglue": [f"glue/{name}" for name in GLUE]
    + [task for task in SUPERGLUE if task != "glue/rte"],
    "humset": [f"humset/{name}" for name in HUMSET],
}

Cell = Mapping[str, Any]

ONE: Cell = {"batch_size": 32, "warmup": 0.0, "weight_decay": 0.0, "clip": 1.0, "epochs": 30}
ONE = {**ONE, "max_steps": 0, "eval_every": 0, "select": "loss", "head": "two_layer"}
JOINTLY: Cell = {
    **ONE,
    "warmup": 0.1,
    "max_steps": 375_000,
    "eval_every": 7500,
    "patience": "75000 steps",
}
JOINTLY = {**JOINTLY, "temperature": 1.0, "sampler_seed": 0, "unselected": "superglue/record"}

# CPJKU/ScaLearn, src/scripts
SCALEARN: dict[str, tuple[str, Cell]] = {
    "Full FT": ("full-ft", {**ONE, "lr": 2e-5, "patience": "5 epochs"}),
    "Adapter": ("pfeiffer", {**ONE, "lr": 3e-4, "patience": "5 epochs", "reduction_factor": 16}),
    "ProPETL": (
        "propetl",
        {**ONE, "lr": 1e-3, "patience": "5 epochs", "weight_decay": 0.1, "reduction_factor": 16}
        | {"keep": 0.5, "mask_lr_factor": 5.0, "placement": "pfeiffer"},
    ),
    "Compacter++": (
        "compacter++",
        {**ONE, "lr": 3e-3, "patience": "5 epochs", "reduction_factor": 16, "phm_dim": 4}
        | {"activation": "gelu", "placement": "pfeiffer"},
    ),
    "IA3": ("ia3", {**ONE, "lr": 5e-3, "patience": "5 epochs"}),
    "Full FT-m": ("full-ft-m", {**JOINTLY, "lr": 2e-5}),
    "Adapter-m": ("adapter-m", {**JOINTLY, "lr": 3e-4, "reduction_factor": 16}),
    "ProPETL-m": (
        "propetl-m",
        {**JOINTLY, "lr": 3e-4, "reduction_factor": 16, "keep": 0.3, "combine": "or"}
        | {"mask_lr_factor": 10.0},
    ),
    "HyperFormer": ("hyperformer", {**JOINTLY, "lr": 3e-4, "reduction_factor": 16}),
    "HyperFormer++": ("hyperformer++", {**JOINTLY, "lr": 3e-4, "reduction_factor": 16}),
    "AdapterFusion": ("fusion", {**ONE, "lr": 5e-5, "patience": "5 epochs", "dropout": 0.1}),
    "ScaLearn": ("scalearn", {**ONE, "lr": 6e-3, "patience": "30 epochs", "dropout": 0.3}),
    "ScaLearnUniform": (
        "scalearn-uniform",
        {**ONE, "lr": 6e-3, "patience": "30 epochs", "dropout": 0.3},
    ),
    "ScaLearn++": ("scalearn++", {**ONE, "lr": 6e-3, "patience": "30 epochs", "dropout": 0.3}),
    "ScaLearnUniform++": (
        "scalearn-uniform++",
        {**ONE, "lr": 6e-3, "patience": "30 epochs", "dropout": 0.0},
    ),
    "AdapterSoup": ("soup", {**ONE, "lr": 3e-4, "patience": "5 epochs", "top": 5}),
    "Probing": ("probe", {**ONE, "lr": 3e-4, "patience": "5 epochs"}),
}
TWO_STAGES = ["scalearn", "scalearn-uniform", "scalearn++", "scalearn-uniform++", "fusion"]


recipe_of = cache(load_recipe)
spec_of = cache(load_task)


def resolved(recipe: str, method: str, task: str, suite: str = "") -> dict[str, Any]:
    """The settings of a run, its method's included, as the commands resolve them."""
    chosen, asked = recipe_of(recipe, suite), Overrides({})
    if method in JOINT:
        found = resolve_joint(JOINT.get(method), chosen, asked, SUITES[suite], task)
    elif method in COMPOSITIONS:
        found = resolve_compose(spec_of(task), method, chosen, asked)
    else:
        found = resolve_train(spec_of(task), METHODS.get(method), chosen, asked)
    own, run = found
    return {**asdict(run), **asdict(own)}


def check(found: Mapping[str, Any], expected: Cell) -> None:
    assert {key: found[key] for key in expected} == dict(expected)


def scalearn_cell(row: str, task: str, suite: str) -> Cell:
    method, cell = SCALEARN[row]
    if task == "superglue/record":
        if method in {"ia3", *TWO_STAGES} and not (method == "fusion" and "+" in suite):
            cell = {**cell, "epochs": 3}
        if method in JOINT:
            cell = {**cell, "max_train_samples": 100_730}
    if suite == "humset" and method not in JOINT:
        cell = {**cell, "select": "metric"}
        if method == "soup":
            cell = {**cell, "patience": "3 epochs"}
    return cell


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("row", SCALEARN)
def test_scalearn(row: str, suite: str) -> None:
    for task in SUITES[suite]:
        found = resolved("scalearn", SCALEARN[row][0], task, suite)
        check(found, scalearn_cell(row, task, suite))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("row", SCALEARN)
def test_the_reference(row: str, suite: str) -> None:
    """What the authors' code did beside the paper."""
    method = SCALEARN[row][0]
    for task in SUITES[suite]:
        cell = dict(scalearn_cell(row, task, suite))
        cell |= {
            "fusion": {"fusion_reg": "reference-fp16"},
            "propetl": {"learn_masks": False},
            "propetl-m": {"tie_layer_scores": True},
        }.get(method, {})
        if task == "superglue/copa" and method in {*TWO_STAGES, "soup"}:
            cell["head"] = "frozen_pooler"
        if task == "superglue/copa" and method == "adapter-m":
            cell["head"] = "linear"  # of one layer
        check(resolved("reference", method, task, suite), cell)


def test_other_settings_of_the_reference() -> None:
    recipe = load_recipe("reference")
    assert recipe.source_seeds == {"probe": "run"}
    few = recipe.settings("scalearn", "glue/rte", few_shot=True)
    assert (few["eval_every"], few["max_steps"]) == (0, 1000)  # every epoch
    # the task whose scores ProPETL-m's lowest layer uses is the last one
    assert [load_suite(suite).tasks[-1] for suite in SUITES] == [
        "glue/qqp",
        "superglue/record",
        "superglue/record",
        "humset/subpillars_2d",
    ]
    assert {suite: list(load_suite(suite).tasks) for suite in SUITES} == SUITES


# AdaKron's scripts, RoBERTa-large: lr, epochs
ADAKRON = {
    "mnli": (3e-4, 20),
    "qnli": (3e-4, 20),
    "sst2": (3e-4, 20),
    "qqp": (5e-4, 60),
    "mrpc": (3e-4, 60),
    "rte": (5e-4, 60),
    "cola": (3e-4, 80),
    "stsb": (3e-4, 80),
}
ALIKE: Cell = {"batch_size": 64, "warmup": 0.06, "weight_decay": 0.1, "clip": 1.0, "patience": 0}
ADAKRON_ROWS: dict[str, Cell] = {
    "adakron": {"bottleneck": 16, "placement": "paper"},
    "madakron-full": {"bottleneck": 16, "placement": "paper", "experts": 2, "consistency": False},
    "madakron-partial": {"bottleneck": 16, "placement": "paper", "experts": 2, "full": False},
    "adamix": {"bottleneck": 16, "experts": 4, "share_up": True, "share_down": False}
    | {"consistency": True, "inference_level": 3},
    "pfeiffer": {"bottleneck": 16, "placement": "pfeiffer"},
}


@pytest.mark.parametrize("task", ADAKRON)
@pytest.mark.parametrize("method", ADAKRON_ROWS)
def test_adakron(method: str, task: str) -> None:
    lr, epochs = ADAKRON[task]
    cell = {**ALIKE, **ADAKRON_ROWS[method], "lr": lr, "epochs": epochs, "head": "two_layer"}
    cell = {**cell, "max_length": 256 if task == "rte" else 0}  # 0: the task's own, 128
    cell["select"] = "last" if task in {"cola", "stsb"} else "metric"
    check(resolved("adakron", method, f"glue/{task}"), cell)
    assert load_task(task).max_length == 128


@pytest.mark.parametrize("task", [*(f"glue/{name}" for name in ADAKRON), "superglue/boolq"])
@pytest.mark.parametrize("method", ADAKRON_ROWS)
def test_adakron_on_bert(method: str, task: str) -> None:
    """One script is known, AdaMix's of MNLI; its rate and length are those of every task."""
    cell = {**ALIKE, **ADAKRON_ROWS[method], "lr": 4e-4, "epochs": 40, "head": "pooler_linear"}
    cell = {**cell, "bottleneck": 48}
    if method == "adamix":
        cell["consistency"] = False
    check(resolved("adakron-bert", method, task), cell)


@pytest.mark.parametrize("task", ["mrpc", "rte", "stsb"])
@pytest.mark.parametrize("method", [f"tensorized-{form}" for form in ("cp", "tucker", "tt", "tr")])
def test_tensorized(method: str, task: str) -> None:
    """The command of its README."""
    cell = {"batch_size": 32, "lr": 2e-4, "epochs": 20, "weight_decay": 0.0, "warmup": 0.0}
    cell |= {"clip": 1.0, "select": "last", "head": "pooler_linear", "placement": "houlsby"}
    cell |= {"rank": 2, "bottleneck": 64, "train_layer_norm": True, "bottleneck_form": True}
    check(resolved("tensorized", method, f"glue/{task}"), cell)


@pytest.mark.parametrize("recipe", ["tensorized", "none"])
def test_diff_pruning(recipe: str) -> None:
    """The example of its repository."""
    cell = {"lr": 1e-5, "epochs": 3, "batch_size": 8, "clip": 1.0, "alpha_lr": 0.1}
    cell |= {"sparsity": 1.25e-7, "density": 0.005, "alpha_start": 5.0, "group_gate": True}
    cell |= {"finetune_epochs": 3, "finetune_lr_factor": 5.0}
    for task in ("mrpc", "rte", "stsb"):
        check(resolved(recipe, "diff-pruning", f"glue/{task}"), cell)


# SoRA's scripts and the authors' reply: lr, epochs, batch
SORA_LORA = {
    "cola": (8e-5, 20, 8),
    "sst2": (1e-4, 10, 8),
    "mrpc": (1e-4, 20, 8),
    "qqp": (3e-4, 10, 8),
    "stsb": (1e-4, 20, 8),
    "mnli": (3e-4, 10, 8),
    "qnli": (3e-4, 10, 8),
    "rte": (1.2e-3, 50, 32),
}
SORA: Cell = {"warmup": 0.06, "weight_decay": 0.1, "clip": 0.1, "eval_every": 1000, "patience": 0}


def sora_cells(task: str) -> dict[str, Cell]:
    lr, epochs, batch = SORA_LORA[task]
    scheduled: Cell = {"eta": 10.0, "xi": 3e-4, "lr": 8e-4, "batch_size": 8, "epochs": 20}
    scheduled = {**scheduled, "schedule_stages": 1}
    if task == "rte":
        scheduled = {"eta": 1e-3, "xi": 0.0, "xi_max": 7e-4, "schedule_stages": 7}
        scheduled |= {"stage_epochs": 15, "lr": 1.2e-3, "batch_size": 32, "epochs": 50}
    return {
        "sora": {
            "rank": 8,
            "alpha": 16.0,
            "dropout": 0.0,
            "modules": "q,k,v,attention,intermediate,output",
            **scheduled,
        },
        "lora": {"rank": 8, "alpha": 16.0, "modules": "q,v"}
        | {"lr": lr, "epochs": epochs, "batch_size": batch},
        "houlsby": {"bottleneck": 16, "lr": 8e-4, "batch_size": 8, "epochs": 20},
        "bitfit": {"lr": 8e-4, "batch_size": 100, "epochs": 10},
        "full-ft": {"lr": 5e-5, "batch_size": 80, "epochs": 10},
    }


@pytest.mark.parametrize("task", SORA_LORA)
def test_sora(task: str) -> None:
    for method, cell in sora_cells(task).items():
        cell = {**SORA, **cell, "select": "f1" if task == "mrpc" else "metric"}
        cell["max_length"] = {"rte": 320, "mnli": 256}.get(task, 0)
        if method != "full-ft":
            cell["train_head"] = False
        if (method, task) == ("sora", "rte"):
            cell["select"] = "last"  # no stage reloads a best state
        check(resolved("sora", method, f"glue/{task}"), cell)
    headlines = {"cola": "matthews", "stsb": "pearson"}
    assert load_task(task).headline == headlines.get(task, "accuracy")


# AdaLoRA's scripts: target_r, r0, gamma, ti, tf, dT, alpha, lr, epochs, warm-up of all steps, decay
ADALORA: dict[str, tuple[Any, ...]] = {
    "cola": (1, 3, 0.1, 800, 3500, 10, 32.0, 8e-4, 25, "100 steps", 0.0),
    "mnli": (1, 3, 0.1, 8000, 50000, 100, 16.0, 5e-4, 7, "1000 steps", 0.0),
    "mrpc": (1, 2, 0.1, 600, 1800, 1, 32.0, 1e-3, 30, 0.1, 0.01),
    "qnli": (1, 2, 0.1, 2000, 8000, 100, 32.0, 5e-4, 5, "500 steps", 0.01),
    "qqp": (1, 2, 0.1, 8000, 25000, 100, 16.0, 8e-4, 5, "2000 steps", 0.01),
    "rte": (1, 2, 0.3, 600, 1800, 1, 32.0, 1.2e-3, 50, "200 steps", 0.01),
    "sst2": (1, 2, 0.1, 6000, 22000, 100, 16.0, 8e-4, 24, "1000 steps", 0.01),
    "stsb": (1, 2, 0.3, 800, 2000, 10, 32.0, 2.2e-3, 25, "100 steps", 0.1),
}


@pytest.mark.parametrize("task", ADALORA)
def test_adalora(task: str) -> None:
    keys = [
        "target_rank",
        "rank",
        "gamma",
        "initial_warmup",
        "final_warmup",
        "interval",
        "alpha",
        "lr",
        "epochs",
    ]
    *plain, warmup, decay = ADALORA[task]
    found = resolved("adalora", "adalora", f"glue/{task}")
    check(found, dict(zip(keys, plain, strict=True)))
    lengths = {"cola": 64, "mnli": 256, "mrpc": 320, "qnli": 512, "qqp": 320, "rte": 320}
    check(found, {"max_length": lengths.get(task, 128)})
    check(found, {"batch_size": 32, "clip": 1.0, "weight_decay": decay, "beta1": 0.85})
    # its trainer takes AdamW of its own copy of transformers (NLU/src/transformers/trainer.py)
    check(found, {"adam_form": "hf", "warmup": warmup})


@pytest.mark.parametrize(
    ("suite", "methods"),
    [
        # rows of the AdaKron, SoRA and AdaLoRA tables whose settings nobody published
        ("adakron", ["houlsby", "lora", "prefix", "bitfit", "vera", "hadamard", "unipelt-ap"]),
        ("adakron", ["full-ft", "compacter", "compacter++", "ia3", "unipelt-apl"]),
        ("adalora", ["full-ft", "bitfit", "houlsby", "pfeiffer", "lora"]),
        ("sora", ["adalora"]),
        ("tensorized", ["houlsby", "bitfit", "full-ft"]),
    ],
)
def test_rows_without_published_settings_are_not_made_up(suite: str, methods: list[str]) -> None:
    recipe = load_recipe(suite)
    assert not [name for name in methods if recipe.names(name)]
