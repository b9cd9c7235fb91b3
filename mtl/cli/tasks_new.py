"""``mtl.tasks new``: a first task file from the columns of your files."""

from __future__ import annotations

import json
import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl.checks.drafts import Draft
    from mtl.tasks.dialect import Dialect


def run(options: Namespace) -> int:
    """Write the file; say what was guessed, and what to type next."""
    from mtl.checks.drafts import draft_task, write_draft
    from mtl.errors import RequestError
    from mtl.files import safe_part, user_path

    parts = options.task.split("/")
    if len(parts) != 2:
        raise RequestError(f"The id of a task is SUITE/NAME, for example my/{options.task or 'x'}.")
    for part in parts:
        safe_part(part, "the id")
    own = os.environ.get("MTL_TASKS")
    path = Path(options.out) if options.out else Path(own or "", parts[0], f"{parts[1]}.yaml")
    path = user_path(path, "--out or MTL_TASKS")
    if path.exists():  # said before anything is read
        raise RequestError(f"{path} is there already; it is not overwritten. Give another --out.")
    named = {"train": options.train, "validation": options.dev, "test": options.test}
    files = {split: user_path(name, f"the {split} file") for split, name in named.items() if name}
    draft = draft_task(
        options.task,
        files,
        path.parent,
        label=options.label,
        texts=options.text,
        kind=options.kind,
        group_by=options.group_by,
        dialect=_dialect(options, files),
    )
    text = _told(draft, path)
    if not options.json:  # a terminal that cannot show it is no reason to leave a file behind
        text.encode(sys.stdout.encoding or "utf-8", sys.stdout.errors or "strict")
    spec = write_draft(draft, path)
    if options.json:
        answer = {"file": str(path), "task": spec.to_dict(), "guesses": list(draft.guesses)}
        text = json.dumps(answer)
    print(text)
    return 0


def _told(draft: Draft, path: Path) -> str:
    """What is printed once the file is written."""
    from mtl.checks.drafts import render
    from mtl.tasks.yamls import folders

    found = any(path.resolve().is_relative_to(folder.resolve()) for folder in folders())
    name = draft.content["id"] if found else shlex.quote(str(path))
    lines = [f"wrote {path}", "", render(draft.content, path)]
    lines += ["guessed; mend the file where it is wrong:", *(f"  {one}" for one in draft.guesses)]
    lines += [
        "",
        "next:",
        f"  python -m mtl.tasks check {name}",
        f"  python -m mtl.tasks show {name}",
    ]
    return "\n".join([*lines, f"  python -m mtl.train --task {name}"])


def _dialect(options: Namespace, files: Mapping[str, Path]) -> Dialect:
    """What was said about the files.

    Raises:
        RequestError: an option that means nothing, or that none of the files heeds.
    """
    from mtl.cli.options import names
    from mtl.errors import RequestError
    from mtl.tasks.dialect import Dialect, separator_of

    said = Dialect(
        separator=separator_of(options.separator) if options.separator else None,
        quoting=options.quoting,
        header=options.header,
        columns=tuple(names(options.columns)),
        encoding=options.encoding,
        field=options.field,
    )
    try:
        return Dialect.from_data({"files": files, **said.to_data()}, partly=True)
    except ValueError as error:
        raise RequestError(f"{options.task}: data {error}.") from error
