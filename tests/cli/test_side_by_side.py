"""Runs side by side are what they are alone: steps, draws, selection, resume points, failures."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_bench import TASKS, digests, leftovers, mtl, refused

from mtl.backbone.beside import UnfitError
from mtl.compose.stage_two import plan_compose, target_in
from mtl.engine import Job, RunFolder, open_device, train
from mtl.engine.together import train_together
from mtl.errors import RunError
from mtl.runs.context import Context, open_context
from mtl.runs.executing import prepare
from mtl.runs.run import Run
from mtl.runs.running import execute_all
from mtl.runs.settings import Overrides
from mtl.runs.workspace import open_workspace
from mtl.tasks import load_suite, load_task
from mtl.train import plan_adapters
from mtl.zoo import open_zoo

SHORT = {"max_steps": 6, "eval_every": 2, "batch_size": 8, "patience": 0}
TOGETHER = [
    "pfeiffer",
    "houlsby",
    "parallel",
    "lora",
    "ia3",
    "adakron",
    "tensorized-cp",
    "tensorized-tucker",
    "tensorized-tt",
    "tensorized-tr",
]
COMPOSED = ["scalearn", "scalearn-uniform", "scalearn++", "scalearn-uniform++", "average", "gated"]


def context_of(root: Path, zoo: Path, **values: Any) -> Context:
    """A request on the tiny suite as a command line resolves it."""
    return open_context(
        load_suite("mini"),
        model=None,
        recipe=None,
        protocol=None,
        overrides=Overrides({**SHORT, **values}),
        workspace=open_workspace(zoo=zoo, runs=root / "runs"),
        check=lambda recipe, overrides: None,
    )


def adapters(root: Path, method: str, seeds: Sequence[int], task: str, **values: Any) -> list[Run]:
    found = context_of(root, root / "zoo", **values)
    return plan_adapters(found, [load_task(task)], method=method, seeds=seeds)


def compositions(
    root: Path, zoo: Path, method: str, sources: Sequence[Sequence[str]], **values: Any
) -> list[Run]:
    """A composition of each choice of sources, seed 0."""
    found = context_of(root, zoo, **values)
    known = {entry.manifest.task["id"]: entry for entry in open_zoo(zoo).entries()}
    return [
        run
        for chosen in sources
        for run in plan_compose(
            target_in(found, load_task(TASKS[0]), method),
            suite=found.suite,
            sources=[known[task] for task in chosen],
            seeds=[0],
            backbone=found.backbone,
            workspace=found.workspace,
        )
    ]


def jobs(runs: Sequence[Run], root: Path, dtype: torch.dtype = torch.float64) -> list[Job]:
    """Ready to train, in fp64: what differs then is no rounding."""
    workspace = open_workspace(zoo=root / "zoo", runs=root / "runs")
    device = open_device("fp32")
    found = []
    for place, run in enumerate(runs):
        folder = RunFolder(root / f"{place}-{run.runhash}")
        prepared = prepare(run, workspace, device, folder, None)
        prepared.built.network.to(dtype)
        found.append(prepared.job)
    return found


def beside(found: Iterable[Job]) -> dict[int, Any]:
    """Trained side by side: what became of each."""
    ended: dict[int, Any] = {}
    train_together(found, open_device("fp32"), lambda number, what: ended.update({number: what}))
    return ended


def difference(one: Job, other: Job) -> float:
    """The largest between any two tensors, and dev losses, of both."""
    left = one.attached.network.state_dict()
    right = other.attached.network.state_dict()
    assert list(left) == list(right)
    most = max(float((left[k].double() - right[k].double()).abs().max()) for k in left)
    told = [job.folder.read_events() for job in (one, other)]
    assert [e["step"] for e in told[0]] == [e["step"] for e in told[1]]
    losses = zip(told[0], told[1], strict=True)
    return max(most, max(abs(a["dev_loss"] - b["dev_loss"]) for a, b in losses))


def check_alike(runs: Sequence[Run], tmp_path: Path, within: float = 1e-9) -> None:
    """Alone and side by side: the same outcome, and tensors and dev losses to ``within``."""
    alone = jobs(runs, tmp_path / "alone")
    outcomes = [train(job, open_device("fp32")) for job in alone]
    side = jobs(runs, tmp_path / "side")
    start = {k: v.clone() for k, v in side[0].attached.network.state_dict().items()}
    ended = beside(side)
    assert sorted(ended) == list(range(len(runs)))
    for number, (one, other) in enumerate(zip(alone, side, strict=True)):
        assert difference(one, other) < within
        assert replace(ended[number], seconds=0, best_value=0) == replace(
            outcomes[number], seconds=0, best_value=0
        )
        assert ended[number].best_value == pytest.approx(outcomes[number].best_value, abs=1e-6)
    after = side[0].attached.network.state_dict()
    assert any(not torch.equal(start[key], after[key]) for key in start)  # it trained


@pytest.mark.parametrize("method", TOGETHER)
def test_methods_with_dropout_on_to_rounding(method: str, mini: Path, tmp_path: Path) -> None:
    check_alike(adapters(tmp_path, method, [0, 1, 2], TASKS[0]), tmp_path)


def test_a_dropout_of_loras_own(mini: Path, tmp_path: Path) -> None:
    runs = adapters(tmp_path, "lora", [0, 1, 2], TASKS[0])
    assert {run.method_settings.dropout for run in runs} == {0.0}
    dropping = [
        replace(run, method_settings=replace(run.method_settings, dropout=0.2)) for run in runs
    ]
    check_alike(dropping, tmp_path)


@pytest.mark.parametrize("method", [*COMPOSED, "fusion"])
def test_compositions_of_the_same_sources(method: str, stocked: Path, tmp_path: Path) -> None:
    runs = compositions(tmp_path, stocked, method, [TASKS, TASKS])
    runs[1] = replace(runs[1], seed=5)
    check_alike(runs, tmp_path)


@pytest.mark.parametrize("method", ["scalearn", "fusion"])
def test_compositions_of_other_sources(method: str, stocked: Path, tmp_path: Path) -> None:
    chosen = [TASKS[:2], TASKS[1:], TASKS[::2]]
    check_alike(compositions(tmp_path, stocked, method, chosen), tmp_path)


def test_low_rank_sources(mini: Path, tmp_path: Path) -> None:
    assert mtl("train", "--suite", "mini", "--method", "lora", "--epochs", "1").code == 0
    runs = compositions(tmp_path, mini, "scalearn", [TASKS, TASKS])
    check_alike([runs[0], replace(runs[1], seed=1)], tmp_path)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_other_types_of_encoders(
    kind: str, mini: Path, tmp_path: Path, tiny: Callable[[str], str], monkeypatch: Any
) -> None:
    monkeypatch.setenv("MTL_MODEL", tiny(kind))
    check_alike(adapters(tmp_path, "pfeiffer", [0, 1], TASKS[0]), tmp_path)


def test_each_run_keeps_what_is_its_own(mini: Path, tmp_path: Path) -> None:
    """Tasks of other kinds and lengths, rates, batches, schedules, patience; pieces of a batch."""
    many = [
        adapters(tmp_path, "pfeiffer", [0], TASKS[0], lr=1e-3, piece_overhead=4),
        adapters(tmp_path, "pfeiffer", [1], TASKS[1], batch_size=5, warmup=0.5, weight_decay=0.1),
        adapters(tmp_path, "pfeiffer", [0], TASKS[2], max_steps=9, clip=0.1, select="loss"),
        adapters(tmp_path, "pfeiffer", [3], TASKS[1], max_steps=0, epochs=3, patience=1),
        adapters(tmp_path, "pfeiffer", [4], TASKS[0], adam_form="torch", micro_batch_size=3),
    ]
    # the losses themselves are summed in fp32
    check_alike([run for runs in many for run in runs], tmp_path, within=1e-7)


def test_adamw_as_transformers_had_it(mini: Path, tmp_path: Path) -> None:
    values = {"adam_form": "hf", "weight_decay": 0.01}
    check_alike(adapters(tmp_path, "pfeiffer", [0, 1], TASKS[0], **values), tmp_path)


def test_one_encoder_computes_for_all(mini: Path, tmp_path: Path) -> None:
    """As many forward passes for four runs as for one, and no other run's encoder has any."""
    found = jobs(adapters(tmp_path, "pfeiffer", [0, 1, 2, 3], TASKS[0]), tmp_path)
    calls = [0] * len(found)

    def count(number: int) -> None:
        def hook(module: Any, args: Any, output: Any) -> None:
            calls[number] += bool(module.training)

        network: Any = found[number].attached.network
        network.encoder.register_forward_hook(hook)

    for number in range(len(found)):
        count(number)
    beside(found)
    assert calls == [6, 0, 0, 0]


def test_frozen_weights_are_in_memory_once(mini: Path, tmp_path: Path) -> None:
    found = jobs(adapters(tmp_path, "pfeiffer", [0, 1], TASKS[0]), tmp_path)
    beside(found)
    one, other = (dict(job.attached.network.named_parameters()) for job in found)
    name = "encoder.embeddings.word_embeddings.weight"
    assert one[name].data_ptr() == other[name].data_ptr()
    trained = next(name for name, value in one.items() if value.requires_grad)
    assert one[trained].data_ptr() != other[trained].data_ptr()


def test_jobs_that_are_made_as_they_are_taken_hold_one_encoder_and_the_newest(
    mini: Path, tmp_path: Path
) -> None:
    runs = adapters(tmp_path, "pfeiffer", [0, 1, 2, 3], TASKS[0])
    name, seen, made = "encoder.embeddings.word_embeddings.weight", [], []

    def making() -> Any:
        for place, run in enumerate(runs):
            made.extend(jobs([run], tmp_path / str(place)))
            held = [dict(job.attached.network.named_parameters())[name] for job in made]
            seen.append(len({parameter.data_ptr() for parameter in held}))
            yield made[-1]

    ended = beside(making())
    assert sorted(ended) == [0, 1, 2, 3]
    assert seen == [1, 2, 2, 2]


def test_a_terminal_shows_one_bar_for_all(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.delenv("MTL_QUIET", raising=False)
    runs = adapters(tmp_path, "pfeiffer", [0, 1, 2], TASKS[0])
    (early,) = adapters(tmp_path, "pfeiffer", [3], TASKS[0], max_steps=2)
    workspace = open_workspace(zoo=tmp_path / "zoo", runs=tmp_path / "runs", beside=4)
    execute_all([*runs, early], workspace)
    shown = stream.getvalue()
    assert "\r4 runs side by side:   0%|          | 0/20 [" in shown
    assert "\r3 of 4 runs side by side:" in shown
    assert "\r1 of 4 runs side by side:" in shown
    assert "6/6 [" not in shown
    assert "mini/same pfeiffer seed 1: dev loss" in shown
    lines = [line for line in shown.split("\n") if "] mini/same pfeiffer seed" in line]
    assert sorted(line.rpartition("\r")[2][:5] for line in lines) == [
        f"[{n}/4]" for n in range(1, 5)
    ]


def test_a_run_that_fails_leaves_and_the_others_are_what_they_are_alone(
    mini: Path, tmp_path: Path
) -> None:
    good = adapters(tmp_path, "pfeiffer", [0, 2], TASKS[0])
    (bad,) = adapters(tmp_path, "pfeiffer", [1], TASKS[0], lr=1e200, clip=0.0)
    alone = jobs(good, tmp_path / "alone")
    for job in alone:
        train(job, open_device("fp32"))
    side = jobs([good[0], bad, good[1]], tmp_path / "side")
    ended = beside(side)
    assert isinstance(ended[1], RunError)
    assert "seed=1" in str(ended[1])
    assert difference(alone[0], side[0]) < 1e-9
    assert difference(alone[1], side[2]) < 1e-9


class Killed(Exception):  # noqa: N818
    """Stands for a signal."""


def test_killed_together_each_goes_on_alone_and_the_other_way_round(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume point is a run's, whoever it trained with."""
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    runs = adapters(tmp_path, "pfeiffer", [0, 1, 2], TASKS[0])
    whole = jobs(runs, tmp_path / "whole")
    for job in whole:
        train(job, open_device("fp32"))
    import mtl.engine.loop as loop

    real, calls = loop.save_point, []

    def dies(*args: Any) -> None:
        real(*args)
        calls.append(1)
        if len(calls) == last[0]:
            raise Killed

    def alone(found: Sequence[Job]) -> None:
        for job in found:
            train(job, open_device("fp32"))

    last = [0]
    for first, then, steps in ((beside, alone, 11), (alone, beside, 4)):
        calls.clear()
        last[0] = steps
        monkeypatch.setattr(loop, "save_point", dies)
        place = tmp_path / str(steps)
        broken = jobs(runs, place)
        with pytest.raises(Killed):
            first(broken)
        monkeypatch.setattr(loop, "save_point", real)
        again = jobs(runs, place)
        then(again)
        for one, other in zip(whole, again, strict=True):
            assert difference(one, other) < 1e-9


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("compacter++", "trains at no site"),
        ("prefix", "trains at no site"),
        ("bitfit", "trains at no site"),
        ("madakron-full", "draws"),
        ("adalora", "of its own"),
        ("unipelt-ap", "mean over the tokens of a row"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_before_any_step(
    method: str, why: str, mini: Path, tmp_path: Path
) -> None:
    found = jobs(adapters(tmp_path, method, [0, 1], TASKS[0]), tmp_path)
    with pytest.raises(UnfitError, match=why):
        beside(found)
    assert not any(job.folder.read_events() for job in found)


def test_widths_that_differ_do_not_fit(mini: Path, tmp_path: Path) -> None:
    runs = [
        *adapters(tmp_path, "pfeiffer", [0], TASKS[0], bottleneck=8),
        *adapters(tmp_path, "pfeiffer", [0], TASKS[0], bottleneck=16),
    ]
    with pytest.raises(UnfitError, match="other numbers"):
        beside(jobs(runs, tmp_path))


def figures(said: Any) -> list[tuple[Any, ...]]:
    keys = ("task", "seed", "status", "steps", "dev", "test")
    return [tuple(row[key] for key in keys) for row in said.json["runs"]]


def test_the_command_line_stores_what_it_stores_one_by_one(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--seeds", "0", "1", "--epochs", "2", "--json"]
    one = mtl("train", *line, "--zoo", tmp_path / "one", "--runs", tmp_path / "one-runs")
    said = mtl("train", *line, "--side-by-side", "4")
    assert (said.code, said.err) == (0, "")
    for left, right in zip(figures(one), figures(said), strict=True):
        assert left[:4] == right[:4]
        assert left[4:] == pytest.approx(right[4:], abs=0.03)
    manifests = [entry.manifest for entry in open_zoo(mini).entries()]
    assert sorted(m.training["side_by_side"] for m in manifests) == [2, 2, 4, 4, 4, 4]
    hashes = {m.runhash for m in manifests}
    assert hashes == {e.manifest.runhash for e in open_zoo(tmp_path / "one").entries()}
    assert not leftovers(mini)
    assert mtl("zoo", "fsck").code == 0
    assert mtl("zoo", "verify", next(iter(digests(mini)))).code == 0
    again = mtl("train", *line, "--side-by-side", "auto")
    assert {row["status"] for row in again.json["runs"]} == {"skipped"}


def test_compositions_from_the_command_line(stocked: Path) -> None:
    line = ["--suite", "mini", "--target", "same", "--sources", "all", "--epochs", "1", "--json"]
    said = mtl("compose", *line, "--seeds", "0", "1", "2", "--side-by-side", "auto")
    assert said.code == 0, said.err
    made = [e.manifest for e in open_zoo(stocked).entries() if e.manifest.kind == "composition"]
    assert [m.training["side_by_side"] for m in made] == [3, 3, 3]


def test_runs_that_do_not_fit_go_one_by_one_and_that_is_said(mini: Path) -> None:
    line = ["--suite", "mini", "--task", "same", "--method", "compacter++", "--epochs", "1"]
    said = mtl("train", *line, "--seeds", "0", "1", "--side-by-side", "2", "--json")
    assert said.code == 0
    assert "note: 2 runs of compacter++ go one by one, not side by side:" in said.err
    assert {row["status"] for row in said.json["runs"]} == {"done"}
    assert all("side_by_side" not in e.manifest.training for e in open_zoo(mini).entries())


@pytest.mark.parametrize("text", ["0", "none", "-2", "65", "1.5"])
def test_a_number_that_is_none(text: str, mini: Path) -> None:
    line = ["--suite", "mini", "--task", "same", "--side-by-side", text]
    refused(mtl("train", *line), f"--side-by-side {text}", "auto", "1 to 64")


def test_one_of_several_fails_and_the_others_are_stored(mini: Path) -> None:
    line = ["--suite", "mini", "--task", "same", "--epochs", "1", "--clip", "0", "--json"]
    said = mtl("train", *line, "--lr", "1e-3", "1e30", "2e-3", "--side-by-side", "3")
    assert said.code == 1
    assert said.err.count("error: ") == 1
    assert "became nan" in said.err or "is nan" in said.err or "inf" in said.err
    assert [row["status"] for row in said.json["runs"]] == ["done", "failed", "done"]
    assert len(open_zoo(mini).entries()) == 2


def test_killed_in_the_middle_the_same_line_goes_on(mini: Path, tmp_path: Path) -> None:
    line = ["--suite", "mini", "--task", "same", "--seeds", "0", "1", "--epochs", "2"]
    whole = ["--zoo", tmp_path / "whole", "--runs", tmp_path / "whole-runs", "--json"]
    told = mtl("train", *line, "--side-by-side", "2", *whole)
    code = (
        "import os, signal, sys\n"
        "import mtl.engine.loop as loop\n"
        "real, calls = loop.save_point, []\n"
        "def save(*args):\n"
        "    real(*args)\n"
        "    calls.append(1)\n"
        "    if len(calls) == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "loop.save_point = save\n"
        "from mtl.cli.main import dispatch\n"
        "dispatch('train', sys.argv[1:])\n"
    )
    environment = {**os.environ, "MTL_RESUME_SECONDS": "0", "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(
        [sys.executable, "-c", code, *line, "--side-by-side", "2"],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -9, killed.stderr.decode()
    said = mtl("train", *line, "--side-by-side", "2", "--json")
    assert said.code == 0, said.err
    for left, right in zip(figures(told), figures(said), strict=True):
        assert left[:4] == right[:4]
        assert left[4:] == pytest.approx(right[4:], abs=1e-6)
