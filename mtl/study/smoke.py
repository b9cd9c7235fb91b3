"""``--smoke``: every cell of a study in minutes, to see that it runs, not what it gives.

Every base becomes a tiny random encoder of the same type, every task 32 rows: its own first ones
where its data are at hand, else rows of random words made from its spec, as its ``prepare`` would
hand them on. A run takes four steps, each cell its first seed. All of it is the study itself, with
other names in it, in folders of its own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mtl.data.split_sizes import known_sizes
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.runs.context import chosen_model
from mtl.search.space import parts
from mtl.study.cells import suites_of
from mtl.tasks import load_member
from mtl.tasks.protocols import SORA_LARGE
from mtl.tasks.yamls import is_file_name

if TYPE_CHECKING:
    from mtl.study.file import Item, Search, Study
    from mtl.tasks import Suite, TaskSpec

ROWS = 32
HELD_OUT = 1000
"""Training rows of which protocol ``sora`` makes the dev split of a large task."""
RUN: Mapping[str, Any] = {
    "max_steps": 4,
    "batch_size": 8,
    "eval_every": 0,
    "warmup": 0.0,
    "precision": "fp32",
    "max_train_samples": ROWS,
    "max_eval_samples": ROWS,
}
METHOD: Mapping[str, Any] = {
    "initial_warmup": 1,
    "final_warmup": 1,
    "interval": 1,
    "stage_epochs": 1,
    "schedule_stages": 1,
    "finetune_epochs": 1,
}
"""What counts steps or epochs of its own, by the methods that have it."""
WORDS = (
    *("a", "the", "some", "every", "no", "not", "and", "in", "on", "is", "cat", "dog", "bird"),
    *("river", "stone", "door", "friend", "teacher", "sees", "likes", "brings", "old", "small"),
    *("red", "green", "happy", "sad", "good", "bad", "today"),
)


def make_smoke(study: Study, folder: Path, data_root: str | None) -> Study:
    """The same study over tiny bases and few rows, whose files are written into ``folder``.

    Raises:
        RequestError: an unknown task or suite; a base whose type cannot be told here.
    """
    models: dict[str, str] = {}
    files: dict[str, str] = {}
    suites = []
    for name, suite in suites_of(study):
        for task in dict.fromkeys([*suite.tasks, *_named(study, suite)]):
            spec = load_member(task, suite)
            if spec.id not in files and known_sizes(spec, data_root) is None:
                files[spec.id] = str(write_task(spec, folder / "tasks"))
        if name is not None:
            suites.append(str(_write_suite(suite, files, folder)))
    (_, first), *_ = suites_of(study)

    def tiny(model: str | None) -> str:
        named = chosen_model(model, first)
        if named not in models:
            models[named] = str(write_model(named, folder / "models" / f"tiny{len(models)}"))
        return models[named]

    def renamed(task: str) -> str:
        found = load_member(task, first) if not is_file_name(task) else None
        return files.get(found.id, task) if found and not suites else task

    fixed = [item.source_seeds or "" for item in study.items]
    kept = {int(seed) for seed in fixed if seed.isdigit()}
    search = study.search and replace(
        study.search,
        over=tuple(_few_steps(item) for item in study.search.over),
        trials=1,
        seeds=study.search.seeds[:1],
        task=study.search.task and renamed(study.search.task),
    )
    return replace(
        study,
        name=f"{study.name}-smoke",
        search=search,
        suites=tuple(suites),
        tasks=tuple(map(renamed, study.tasks)),
        items=tuple(
            replace(
                _shortened(item, kept, search),
                models=tuple(dict.fromkeys(map(tiny, item.models))),
                tasks=tuple(map(renamed, item.tasks)),
            )
            for item in study.items
        ),
    )


def _named(study: Study, suite: Suite) -> Iterator[str]:
    """Tasks that a study names beside those of the suite."""
    for task in (*study.tasks, *(task for item in study.items for task in item.tasks)):
        try:
            yield load_member(task, suite).id
        except RequestError:  # of another suite of the study, or wrong: planning says so
            continue


def _few_steps(item: str) -> str:
    """What is searched over, but for the number of steps."""
    return "max_steps=2|4" if parts(item)[1].removeprefix("run.") == "max_steps" else item


def _shortened(item: Item, kept: set[int], search: Search | None) -> Item:
    searched = {parts(each)[1].rpartition(".")[2] for each in (search.over if search else ())}
    settings = {key: values for key, values in item.settings.items() if key != "epochs"}
    few = any(item.shots)
    run = {k: (v,) for k, v in RUN.items() if not (few and k == "max_train_samples")}
    run |= {k: (v,) for k, v in _own(item).items()}
    return replace(
        item,
        settings={**settings, **{k: v for k, v in run.items() if k not in searched}},
        seeds=_first(item.seeds, kept),
        seeds_of={task: _first(seeds, kept) for task, seeds in item.seeds_of.items()},
    )


def _first(seeds: tuple[int, ...], kept: set[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys([seeds[0], *(seed for seed in seeds if seed in kept)]))


def _own(item: Item) -> dict[str, Any]:
    """The settings of :data:`METHOD` that all methods of an entry have."""
    from mtl.compose.composition import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS

    registry: Any = {"adapter": METHODS, "composition": COMPOSITIONS, "joint": JOINT}[item.kind]
    known = [
        {each.name for each in fields(registry.get(name).settings)}
        for name in item.methods
        if name in registry
    ]
    ours = {each.name for each in fields(RunSettings)}
    return {
        key: value
        for key, value in METHOD.items()
        if key not in ours and known and all(key in names for names in known)
    }


def write_task(spec: TaskSpec, folder: Path) -> Path:
    """The task over rows made from its spec; its file."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in spec.to_dict().items() if key != "prepare"}
    names = ["train", "validation", "test", *(spec.test or {}).values(), *filter(None, [spec.dev])]
    stem = spec.id.replace("/", "-")
    files = {}
    for number, split in enumerate(dict.fromkeys(names)):
        more = HELD_OUT if split == "train" and spec.name in SORA_LARGE else 0
        path = folder / f"{stem}-{split}.jsonl"
        rows = [json.dumps(row) for row in make_rows(spec, 2 * ROWS + more, number)]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        files[split] = path.name
    content["data"] = {"files": files}
    path = folder / f"{stem}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def make_rows(spec: TaskSpec, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows with the columns that templates, label, decoding and metrics of a task read."""
    draw = random.Random(f"{spec.id}/{seed}")
    labels = spec.labels or ("one", "two", "three")
    for number in range(count):
        row: dict[str, Any] = {column: _text(draw) for column in spec.columns}
        beside = {
            "group": number // 4,
            "order": number % 4,
            "id": str(number),
            "f1": float(number % 2),
            "em": float(number % 2),
        }
        row |= {name: beside[name] for name in spec.table_columns if name in beside}
        if spec.kind == "span_extraction":
            context = row[spec.columns[-1]]
            begin = context.index(" ") + 1
            end = context.find(" ", begin) if " " in context[begin:] else len(context)
            row |= {spec.label_column: [begin, end], "answers": [context[begin:end]]}
        elif spec.kind == "regression":
            row[spec.label_column] = draw.uniform(0, 5)
        elif spec.kind == "multilabel":
            row[spec.label_column] = [name for name in labels if draw.random() < 0.4]
        else:
            row[spec.label_column] = labels[number % len(labels)]
        yield row


def _text(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 9)))


def _write_suite(suite: Suite, files: Mapping[str, str], folder: Path) -> Path:
    content: dict[str, Any] = {
        "name": suite.name,
        "tasks": [
            files.get(t, str(suite.files[t]) if t in suite.files else t) for t in suite.tasks
        ],
        "model": suite.model,
        "recipe": suite.recipe,
        "protocol": suite.protocol,
        "target": suite.target,
        "sample": suite.sample,
    }
    if suite.target in files:
        content["target"] = None
    path = folder / "tasks" / f"{suite.name}-suite.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    return path


SHAPE: Mapping[str, int] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 520,
}
SPECIAL = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>"}


def write_model(model: str, folder: Path) -> Path:
    """A tiny random encoder of the type of ``model``, and a tokenizer of words; its folder.

    Raises:
        RequestError: the type of a base that is not at hand is not known here.
    """
    import torch
    import transformers

    from mtl.backbone.arch import tiny_config
    from mtl.backbone.backbones import check_supported
    from mtl.backbone.building import config_to_load
    from mtl.backbone.shapes import shape_config

    whole = shape_config(model)
    arch = check_supported(whole, model)
    words = word_tokenizer()
    same = ("relative_attention", "position_buckets", "norm_rel_ebd", "share_att_key")
    more = ("pos_att_type", "position_biased_input", "type_vocab_size", "feed_forward_proj")
    kept = {key: getattr(whole, key) for key in (*same, *more) if hasattr(whole, key)}
    config = config_to_load(
        tiny_config(
            whole.model_type,
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            **{**kept, **SHAPE},
        ),
        arch,
    )
    torch.manual_seed(7)
    getattr(transformers, arch.auto).from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def word_tokenizer() -> Any:
    """A fast tokenizer of :data:`WORDS`, one token each, pairs joined as RoBERTa joins them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    # RoBERTa counts positions from the padding's id, so that it is 1, as in the original
    order = [SPECIAL[name] for name in ("cls", "pad", "sep", "unk", "mask")]
    vocabulary = {word: index for index, word in enumerate([*order, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    first, last = SPECIAL["cls"], SPECIAL["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        **{f"{name}_token": token for name, token in SPECIAL.items()},
    )
