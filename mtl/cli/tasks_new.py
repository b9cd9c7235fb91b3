"""``mtl.tasks new``: a first task file from the columns of your files."""

from __future__ import annotations

import json
import os
from argparse import Namespace


def run(options: Namespace) -> int:
    """Write the file; say what was guessed, and what to type next."""
    from pathlib import Path

    from mtl.errors import RequestError
    from mtl.files import safe_part
    from mtl.tasks.drafts import draft_task, write_draft
    from mtl.tasks.yamls import catalog

    parts = options.task.split("/")
    if len(parts) != 2:
        raise RequestError(f"The id of a task is SUITE/NAME, for example my/{options.task or 'x'}.")
    for part in parts:
        safe_part(part, "the id")
    own = os.environ.get("MTL_TASKS")
    path = Path(options.out) if options.out else Path(own or "", parts[0], f"{parts[1]}.yaml")
    path = path.expanduser()
    if path.exists():  # said before anything is read
        raise RequestError(f"{path} is there already; it is not overwritten. Give another --out.")
    named = {"train": options.train, "validation": options.dev, "test": options.test}
    files = {split: Path(name).expanduser() for split, name in named.items() if name}
    draft = draft_task(
        options.task,
        files,
        path.parent,
        label=options.label,
        texts=options.text,
        kind=options.kind,
    )
    spec = write_draft(draft, path)
    if options.json:
        answer = {"file": str(path), "task": spec.to_dict(), "guesses": list(draft.guesses)}
        print(json.dumps(answer))
        return 0
    print(f"wrote {path}\n")
    print(path.read_text(encoding="utf-8"))
    print("guessed; mend the file where it is wrong:")
    for guess in draft.guesses:
        print(f"  {guess}")
    name = options.task if options.task in catalog().tasks else path
    print("\nnext:")
    print(f"  python -m mtl.tasks check {name}")
    print(f"  python -m mtl.tasks show {name}")
    print(f"  python -m mtl.train --task {name}")
    return 0
