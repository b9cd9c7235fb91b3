"""Write ``docs/bases.md``: which methods work on which model types, tried out on tiny ones.

Every method trains on two tasks on a tiny random model of every type, is stored and loaded into a
fresh one (*verify*: the largest difference of the logits), composed three ways, and each of them
exported and answered by stock libraries (*export*: likewise)::

    python scripts/bases.py                      # all types, writes docs/bases.md
    python scripts/bases.py --types modernbert   # prints one

What cannot be right is refused by the table of types (``mtl/backbone/arch.py``) or by the method,
and the page has the reason. Anything else is an error of ours: the script names it and ends with 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "bases.md"
METHODS = (
    "pfeiffer", "houlsby", "parallel", "lora", "adakron", "tensorized-cp", "sora", "adalora",
    "propetl", "compacter++",
)  # fmt: skip
COMPOSITIONS = ("scalearn", "scalearn++", "fusion")
TASKS = ("first", "second")
TRAINING: dict[str, Any] = {
    "epochs": 4, "batch_size": 16, "lr": 0.02, "patience": 0, "select": "last", "head": "two_layer",
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "adalora": {"rank": 3, "target_rank": 1},
    "sora": {"rank": 4},
    "lora": {"rank": 4},
    "tensorized-cp": {
        "epochs": 12, "rank": 8, "bottleneck_form": False, "train_layer_norm": False,
        "placement": "parallel",
    },
    "adakron": {"placement": "houlsby"},
    "compacter++": {"reduction_factor": 4.0},
}  # fmt: skip
"""What tiny models or a short training need; and placements that export to every type."""
LIMIT, LEAST = 1e-5, 1e-7
"""Of logits: what may differ, and what an adapter must change for that to say something."""


class Cell:
    """What came of one attempt: a difference of logits, or why it is refused."""

    def __init__(self, difference: float | None = None, reason: str = "", error: str = "") -> None:
        self.difference, self.reason, self.error = difference, reason, error
        if difference is not None and not difference <= LIMIT:
            self.error = f"logits differ by {difference:.3g}"

    def __str__(self) -> str:
        shown = f"{self.difference:.0e}" if self.difference else "0"
        return self.error or self.reason or shown


def attempt(make: Any) -> tuple[Any, Cell | None]:
    """What ``make`` gives, or the cell that says why it does not."""
    from mtl.errors import RequestError

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return make(), None
    except RequestError as refusal:
        said = re.sub(r"\S+/bases/\S+/seed\S+[0-9a-f]", "the entry", str(refusal))
        said = re.sub(r"sources of method '(lora|sora|adalora)'", "low-rank sources", said)
        return None, Cell(reason=said)
    except Exception as error:
        return None, Cell(error=f"{type(error).__name__}: {error}")


def write_tasks(folder: Path) -> list[str]:
    """Two tasks of one text each, in files; their ids."""
    from mtl.study.smoke import WORDS

    draw = random.Random(0)
    folder.mkdir()
    for number, name in enumerate(TASKS):
        for split, rows in (("train", 48), ("dev", 8), ("test", 8)):
            lines = []
            for _ in range(rows):
                label = draw.randrange(2)
                words = [*draw.sample(WORDS[4:], draw.randint(3, 7)), WORDS[2 * number + label]]
                draw.shuffle(words)
                lines.append(json.dumps({"text": " ".join(words), "label": label}))
            (folder / f"{name}_{split}.jsonl").write_text("\n".join(lines) + "\n")
        files = ", ".join(f"{split}: {name}_{split}.jsonl" for split in ("train", "dev", "test"))
        (folder / f"{name}.yaml").write_text(
            f"id: bases/{name}\ndata: {{files: {{{files}}}}}\nkind: classification\n"
            'inputs: ["{text}"]\nlabels: ["no", "yes"]\nmetrics: [accuracy]\nmax_length: 24\n'
        )
    return [str(folder / f"{name}.yaml") for name in TASKS]


def write_tiny(kind: str, folder: Path) -> Path:
    """A tiny model of type ``kind`` whose biases and LayerNorms are not trivial; its folder."""
    import torch
    import transformers

    from mtl.backbone.arch import supported, tiny_config
    from mtl.backbone.building import config_to_load
    from mtl.study.smoke import word_tokenizer

    words = word_tokenizer()
    arch = supported(kind, f"of type {kind!r}")
    config = tiny_config(kind, vocab_size=len(words), pad_token_id=words.pad_token_id)
    torch.manual_seed(7)
    # As itself, so that its folder says its own type.
    model = getattr(transformers, arch.auto).from_config(
        config if arch.like else config_to_load(config, arch), **arch.load
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    words.model_max_length = 64
    words.save_pretrained(folder)
    return folder


def try_method(kind: str, method: str, place: Path, compositions: Sequence[str]) -> dict[str, Cell]:
    """Every cell of one type and method: ``verify``, ``export``, ``scalearn verify``, …"""
    import mtl

    zoo, model = place / "zoo", str(place / kind)
    tasks = [str(place / "tasks" / f"{name}.yaml") for name in TASKS]
    more = {"model": model, "zoo": zoo, "runs": place / "runs", "recipe": "none"}
    found: dict[str, Cell] = {}

    def train() -> list[Any]:
        return [
            mtl.train_adapter(
                task, method=method, **more, **{**TRAINING, **SETTINGS.get(method, {})}
            )
            for task in tasks
        ]

    entries, refused = attempt(train)
    if refused is not None:
        return {"verify": refused}
    found["verify"] = verified(entries[0])
    found["export"] = export(entries[0], place)
    for name in compositions:

        def compose(name: str = name) -> Any:
            return mtl.compose_adapters(tasks[0], sources=entries, method=name, **more, **TRAINING)

        entry, refused = attempt(compose)
        found[f"{name} verify"] = refused or verified(entry)
        if refused is None:
            found[f"{name} export"] = export(entry, place)
    return found


def verified(entry: Any) -> Cell:
    """How far the stored entry, loaded into a fresh model, is from the trained one."""
    return Cell(entry.manifest.verified["max_logit_difference"])


def export(entry: Any, place: Path) -> Cell:
    """How far stock libraries are from the entry: ``adapters``, or ``peft`` where that cannot."""
    from mtl.backbone import load_backbone
    from mtl.export import ExportOptions, export_entry
    from mtl.runs import open_workspace

    def to(form: str) -> Any:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            workspace = open_workspace(zoo=str(place / "zoo"), data_root=None, command=[])
            return export_entry(
                entry,
                Path(folder) / "exported",
                workspace=workspace,
                backbone=load_backbone(str(place / base_of(entry))),
                options=ExportOptions(form),
            )

    record, refused = attempt(lambda: to("adapters"))
    if refused is not None and not refused.error:
        other, _ = attempt(lambda: to("peft"))
        record = other
    if record is None:
        return refused or Cell(error="no record")
    proof = record["proof"]
    difference = proof["max_logit_difference"]
    if proof["adapter_effect"] <= max(LEAST, 10 * difference):
        return Cell(error=f"the adapter changes {proof['adapter_effect']:.0e}: nothing is shown")
    return Cell(difference)


def base_of(entry: Any) -> str:
    """The folder of an entry's base: what its id is."""
    return str(entry.manifest.base["id"])


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A folder with the tasks, removed at the end; the caches lie in it."""
    with tempfile.TemporaryDirectory(prefix="mtl-bases-") as folder:
        before = dict(os.environ)
        os.environ |= {"MTL_CACHE": f"{folder}/cache", "MTL_QUIET": "1", "HF_HUB_OFFLINE": "1"}
        try:
            write_tasks(Path(folder) / "tasks")
            yield Path(folder)
        finally:
            os.environ.clear()
            os.environ.update(before)


def try_type(
    kind: str, place: Path, methods: Sequence[str], compositions: Sequence[str]
) -> dict[str, dict[str, Cell]]:
    """Method → cell → what came of it, on a tiny model of one type."""
    write_tiny(kind, place / kind)
    return {method: try_method(kind, method, place, compositions) for method in methods}


# ------------------------------------------------------------------ the page


def page(found: dict[str, dict[str, dict[str, Cell]]]) -> str:
    """The whole page, as Markdown."""
    from tabulate import tabulate

    from mtl.backbone.arch import LEFT_OUT, archs

    reasons: list[str] = []

    def shown(cell: Cell | None) -> str:
        if cell is None:
            return ""
        if cell.reason:
            if cell.reason not in reasons:
                reasons.append(cell.reason)
            return f"[{reasons.index(cell.reason) + 1}]"
        return str(cell)

    columns = ["verify", "export"]
    columns += [f"{name} {what}" for name in COMPOSITIONS for what in ("verify", "export")]
    parts = [HEAD]
    rows = [
        [
            kind,
            "own classes" if arch.entry == "native" else "interface",
            arch.pooling,
            arch.shared or "–",
        ]
        for kind, arch in archs().items()
        if kind in found
    ]
    head = ["type", "adapters get in by", "heads read", "layers"]
    parts.append(tabulate(rows, headers=head, tablefmt="github"))
    for kind, methods in found.items():
        arch = archs()[kind]
        rows = [
            [method, *(shown(cells.get(column)) for column in columns)]
            for method, cells in methods.items()
        ]
        parts.append(f"## {kind}")
        parts.append(
            tabulate(rows, headers=["", *columns], tablefmt="github", disable_numparse=True)
        )
        if arch.refuses:
            parts.append("\n".join(f"- no `{name}`: {why}." for name, why in arch.refuses.items()))
    parts.append("## Reasons")
    parts.append("\n".join(f"{number}. {reason}" for number, reason in enumerate(reasons, 1)))
    parts.append("## Types that are left out")
    parts.append("\n".join(f"- `{kind}`: {why}." for kind, why in LEFT_OUT.items()))
    return "\n\n".join(parts) + "\n"


HEAD = """# Bases

Which methods work on which model types, made by `python scripts/bases.py` on tiny random models of
two layers: every method trains on two tasks, is stored, loaded into a fresh model (*verify*), and
exported to a stock library (*export*: to `adapters`, or, where that cannot, to `peft`); likewise
the compositions of its two adapters. A number is the largest difference of the logits; one in
brackets is the reason of a refusal, below. `python -m mtl.methods ls --model NAME` says for one
model what works.

An encoder that is prepared for adapters and has none computes what it did before, bit for bit
(`tests/backbone/test_arch.py`)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Try everything, and write or print the page; 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--types", nargs="+", help="only these, printed [all, written]")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    options = parser.parse_args(argv)

    import torch

    from mtl.backbone.arch import archs
    from mtl.cli.common import quieten

    torch.set_num_threads(1)
    quieten()
    found = {}
    with workplace() as place:
        for kind in options.types or archs():
            print(kind, file=sys.stderr)
            found[kind] = try_type(kind, place, options.methods, COMPOSITIONS)
    wrong = [
        f"{kind}, {method}, {what}: {cell.error}"
        for kind, methods in found.items()
        for method, cells in methods.items()
        for what, cell in cells.items()
        if cell.error
    ]
    if options.types:
        print(page(found))
    else:
        PAGE.write_text(page(found), encoding="utf-8")
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
