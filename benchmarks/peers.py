"""A training step of ours beside the loops that people use, per trained example.

    python benchmarks/peers.py --data-root DIR --model MINILM
    python benchmarks/peers.py --data-root DIR --model demo --tasks mrpc --peers pfeiffer --json

``pfeiffer`` stands beside ``adapters.AdapterTrainer``, ``lora`` beside peft in
``transformers.Trainer``, ``fusion`` beside the ``Fuse`` of ``adapters`` over as many sources. Both
sides have the same base with its dropout, rows, batches, AdamW, clipping and fp32; both loops are
run as they are (``mtl.engine.train``; ``Trainer.train``) and timed from the end of their first step
to the end of their last: collating, forward, backward, clipping, optimiser.

A round draws ``--steps`` batches of rows at random. *drawn*: these batches, the stock loop padding
each to its longest row, ours in pieces of like length. *grouped*: the same rows sorted by length
before they are put into batches, as ``group_by_length`` does, on both sides. *drawn / grouped*:
ours with drawn batches over the stock loop with grouped ones; there the stock loop has less padding
because the same rows meet again and again. Ratios are ours / theirs, of processor seconds and of
the clock, from interleaved rounds: the median, and the upper end of a 95 % interval of the mean of
logarithms (Student's t).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from mtl.backbone import Network, build_head, load_backbone
from mtl.backbone.injection import freeze
from mtl.backbone.reference import resolve_model
from mtl.compose import COMPOSITIONS
from mtl.data import encode, load_data
from mtl.engine import Attached, EvalSet, Group, Job, RunFolder, RunSettings, open_device, train
from mtl.engine.passes import piece_overhead
from mtl.methods import METHODS, RunFacts, attach, source_names
from mtl.tasks import load_task

Batches = list[np.ndarray]
Stamp = tuple[float, float]
"""Processor seconds and those of the clock."""


def stamp() -> Stamp:
    """Now."""
    return time.process_time(), time.perf_counter()


def between(stamps: Sequence[Stamp]) -> Stamp:
    """From the first to the last."""
    return stamps[-1][0] - stamps[0][0], stamps[-1][1] - stamps[0][1]


@dataclass(frozen=True)
class Rows:
    """A task's rows as ours and theirs read them."""

    spec: Any
    train: Any
    dev: Any

    def items(self) -> list[dict[str, Any]]:
        """Every training row as lists, as a collator of ``transformers`` takes them."""
        found = []
        for row in range(len(self.train)):
            batch = self.train.collate(np.array([row]))
            one = {
                key: value[0].tolist()
                for key, value in batch.items()
                if key in {"input_ids", "attention_mask", "token_type_ids"}
            }
            found.append({**one, "labels": int(batch["labels"][0])})
        return found


@dataclass(frozen=True)
class Given:
    """A feed of the batches that it is given."""

    task: str
    encoded: Any
    batches: Batches

    def order(self, epoch: int) -> list[tuple[str, np.ndarray]]:
        return [(self.task, rows) for rows in self.batches]

    def tokens(self, task: str, rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = self.encoded.tokens_per_row[rows]
        return found

    def collate(self, task: str, rows: np.ndarray) -> dict[str, Any]:
        return {**self.encoded.collate(rows), "task": task}


# ------------------------------------------------------------------ ours


def ours(peer: str, backbone: Any, rows: Rows, options: argparse.Namespace) -> Attached:
    """The method attached, as a run attaches it."""
    torch.manual_seed(0)
    encoder, specs = backbone.encoder(), {rows.spec.id: rows.spec}
    head = build_head("two_layer", encoder.config, rows.spec.num_outputs, pooler=None)
    trained = {f"head.{key}": value for key, value in head.trained().items()}
    if peer != "fusion":
        method = METHODS.get(peer)
        settings = method.settings(**method.defaults)
        tuned = attach(encoder, method, settings, "own", RunFacts(options.steps, "two_layer"))
        return tuned.attachment(Network(encoder, head), specs, trained)
    names, method = source_names(options.sources), METHODS.get("pfeiffer")
    for name in names:
        attach(encoder, method, method.settings(**method.defaults), name)
    freeze(encoder)
    fusion = COMPOSITIONS.get("fusion")
    composed = fusion.attach(encoder, names, fusion.settings(**fusion.defaults))
    groups = [Group("composition", composed.parameters, weight_decay=0.0), Group("head", trained)]
    return Attached(Network(encoder, head), specs, groups, penalties=composed.penalties)


def run_ours(
    attached: Attached, backbone: Any, rows: Rows, batches: Batches, options: argparse.Namespace
) -> Stamp:
    """Processor and clock seconds of the steps after the first."""
    stamps: list[Stamp] = []
    timed = replace(attached, after=(*attached.after, lambda _: stamps.append(stamp())))
    settings = RunSettings(
        lr=1e-4,
        batch_size=options.batch,
        max_steps=len(batches),
        eval_every=len(batches),
        clip=1.0,
        weight_decay=0.0,
        select="last",
        patience=0,
    )
    device = open_device("fp32", hidden_size=backbone.base.hidden_size)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            attached=timed,
            feed=Given(rows.spec.id, rows.train, batches),
            dev={rows.spec.id: EvalSet(rows.spec, rows.dev)},
            settings=settings,
            seed=0,
            identity="measured",
            folder=RunFolder(Path(folder)),
            label="measured",
            overhead=piece_overhead(settings, device.torch_device, backbone.base.hidden_size),
        )
        train(job, device)
    return between(stamps)


# ------------------------------------------------------------------ theirs


def theirs(peer: str, source: str, options: argparse.Namespace) -> tuple[Any, type]:
    """The model and the trainer of the peer, as its documentation sets them up."""
    import adapters
    from adapters import AdapterTrainer, AutoAdapterModel, SeqBnConfig
    from adapters.composition import Fuse
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification, Trainer

    del adapters
    torch.manual_seed(0)
    if peer == "lora":
        plain = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=["query", "value"]
        )
        return get_peft_model(plain, config), Trainer
    model = AutoAdapterModel.from_pretrained(source)
    if peer == "pfeiffer":
        model.add_adapter("own", config=SeqBnConfig(reduction_factor=16))
        model.add_classification_head("own", num_labels=2)
        model.train_adapter("own")
        return model, AdapterTrainer
    names = source_names(options.sources)
    for name in names:
        model.add_adapter(name, config=SeqBnConfig(reduction_factor=16))
    model.add_adapter_fusion(Fuse(*names))
    model.add_classification_head("own", num_labels=2)
    model.train_adapter_fusion(Fuse(*names))
    model.active_head = "own"
    return model, AdapterTrainer


def run_theirs(
    model: Any,
    trainer: type,
    tokenizer: Any,
    items: list[dict[str, Any]],
    batches: Batches,
    options: argparse.Namespace,
) -> Stamp:
    """Processor and clock seconds of the steps after the first."""
    from transformers import (
        DataCollatorWithPadding,
        PrinterCallback,
        TrainerCallback,
        TrainingArguments,
    )

    stamps: list[Stamp] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            stamps.append(stamp())

    class Ordered(trainer):  # type: ignore[valid-type,misc]
        """The stock loop on the batches that ours has."""

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return [int(row) for batch in batches for row in batch]

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            max_steps=len(batches),
            learning_rate=1e-4,
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch",
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=0,
        )
        loop = Ordered(
            model=model,
            args=arguments,
            train_dataset=items,
            data_collator=DataCollatorWithPadding(tokenizer),
            callbacks=[Watch()],
        )
        loop.remove_callback(PrinterCallback)
        loop.train()
    return between(stamps)


# ------------------------------------------------------------------ rounds


def batches_of(
    rows: Rows, draw: np.random.Generator, options: argparse.Namespace
) -> tuple[Batches, Batches]:
    """The same rows in drawn batches and in batches of like length, behind one more batch."""
    size = options.batch
    chosen = draw.permutation(len(rows.train))[: size * (options.steps + 1)]
    first, rest = chosen[:size], chosen[size:]
    drawn = [rest[at : at + size] for at in range(0, len(rest), size)]
    by_length = rest[np.argsort(-rows.train.lengths[rest], kind="stable")]
    grouped = [by_length[at : at + size] for at in range(0, len(rest), size)]
    order = draw.permutation(len(grouped))
    return [first, *drawn], [first, *(grouped[place] for place in order)]


def measure(
    peer: str, model: str, rows: Rows, backbone: Any, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """A row per comparison."""
    own = ours(peer, backbone, rows, options)
    other, trainer = theirs(peer, resolve_model(model).source, options)
    items, draw = rows.items(), np.random.default_rng(0)
    ratios: dict[str, list[Stamp]] = {"drawn": [], "grouped": [], "drawn / grouped": []}
    costs: dict[str, list[float]] = {}
    for number in range(options.pairs + 1):
        drawn, grouped = batches_of(rows, draw, options)
        runs: dict[str, Callable[[], Stamp]] = {}
        for name, batches in (("drawn", drawn), ("grouped", grouped)):
            runs[f"ours {name}"] = lambda b=batches: run_ours(own, backbone, rows, b, options)
            runs[f"theirs {name}"] = lambda b=batches: run_theirs(
                other, trainer, backbone.tokenizer, items, b, options
            )
        # now the one side first, now the other
        names = list(runs) if number % 2 else list(reversed(runs))
        spent = {name: runs[name]() for name in names}
        if not number:
            continue  # the first round warms up
        for name, seconds in spent.items():
            costs.setdefault(name, []).append(seconds[0])
        for what in ratios:
            mine, _, their = what.partition(" / ")
            pair = spent[f"ours {mine}"], spent[f"theirs {their or mine}"]
            ratios[what].append((pair[0][0] / pair[1][0], pair[0][1] / pair[1][1]))
        said = ", ".join(f"{what} {found[-1][0]:.3f}" for what, found in ratios.items())
        print(f"{peer}, {rows.spec.id}, pair {number}: {said}", file=sys.stderr, flush=True)
    examples = options.batch * options.steps
    return [
        {
            "peer": peer,
            "task": rows.spec.id,
            "batches": what,
            "ours, ms an example": _per(costs[f"ours {what.partition(' / ')[0]}"], examples),
            "theirs": _per(costs[f"theirs {what.rpartition(' / ')[2]}"], examples),
            **_summary([pair[0] for pair in found], "processor"),
            **_summary([pair[1] for pair in found], "clock"),
        }
        for what, found in ratios.items()
    ]


def _per(seconds: Sequence[float], examples: int) -> float:
    return round(1000 * statistics.median(seconds) / examples, 2)


def _summary(ratios: Sequence[float], clock: str) -> dict[str, float]:
    """Median, and the upper end of the interval of the geometric mean."""
    from scipy.special import stdtrit

    logs = np.log(ratios)
    half = float(stdtrit(len(logs) - 1, 0.975)) * float(logs.std(ddof=1)) / len(logs) ** 0.5
    upper = float(np.exp(logs.mean() + half))
    return {
        f"{clock}, ratio": round(statistics.median(ratios), 3),
        f"{clock}, upper 95 %": round(upper, 3),
    }


def read_rows(name: str, backbone: Any, options: argparse.Namespace) -> Rows:
    """Training rows, and a few to evaluate on at the end, which is not timed."""
    spec = load_task(name)
    data = load_data(
        spec,
        data_root=options.data_root,
        protocol="scalearn",
        max_train_samples=options.rows,
        max_eval_samples=8,
    )
    found = Rows(
        data.spec, *(encode(data, split, backbone.tokenizer) for split in ("train", "dev"))
    )
    there, needed = len(found.train), options.batch * (options.steps + 1)
    if there < needed:
        sys.exit(f"{name} has {there} training rows, --batch × (--steps + 1) are {needed}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--model", required=True, help="a folder, or demo")
    parser.add_argument("--tasks", nargs="+", default=["mrpc", "boolq"])
    parser.add_argument("--peers", nargs="+", default=["pfeiffer", "lora", "fusion"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--sources", type=int, default=6, help="of fusion")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=2000, help="training rows that are read")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    options = parser.parse_args(argv)
    os.environ["MTL_QUIET"] = "1"
    torch.set_num_threads(1)
    for library in ("adapters", "transformers", "peft", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    backbone = load_backbone(options.model)
    found: list[Mapping[str, Any]] = []
    for name in options.tasks:
        rows = read_rows(name, backbone, options)
        for peer in options.peers:
            found += measure(peer, options.model, rows, backbone, options)
    if options.json:
        print(json.dumps({"base": backbone.base.id, "rows": found}))
        return 0
    from tabulate import tabulate

    print(tabulate(found, headers="keys", tablefmt="github"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
