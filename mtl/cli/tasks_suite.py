"""``mtl.tasks suite new``: a suite file over tasks of your own, and of others."""

from __future__ import annotations

import json
import os
import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.tasks import TaskSpec


def run(options: Namespace) -> int:
    """Write the file, checked as it will be read; say how its tasks are split, and what is next.

    Raises:
        RequestError: a task, protocol or recipe that is not there, a name that is taken, a file
            that is there already; nothing is written then.
    """
    from mtl.cli.options import names
    from mtl.errors import RequestError
    from mtl.files import safe_part, user_path, write_text
    from mtl.tasks import load_recipe, load_task
    from mtl.tasks.suites import read_suite
    from mtl.tasks.yamls import SUFFIXES, catalog, folders, parse_yaml

    name = options.name
    safe_part(name, "the name of a suite")
    own = os.environ.get("MTL_TASKS")
    path = Path(options.out) if options.out else Path(own or "", name, "suite.yaml")
    path = user_path(path, "--out or MTL_TASKS")
    if path.suffix not in SUFFIXES:
        raise RequestError(f"A suite file ends in .yaml; {path} does not.")
    if path.exists():
        raise RequestError(f"{path} is there already; it is not overwritten. Give another --out.")
    if name in catalog().suites:
        raise RequestError(
            f"There is a suite {name} already, in {catalog().suites[name]}. Choose another name."
        )
    specs = [load_task(task) for task in names(options.tasks)]
    load_recipe(options.recipe)
    target = load_task(options.target).id if options.target else None
    found = any(path.resolve().is_relative_to(folder.resolve()) for folder in folders())
    argument = name if found else str(path)
    content = {
        "name": name,
        "tasks": [_listed(spec, path.parent) for spec in specs],
        "model": options.model or os.environ.get("MTL_MODEL") or "roberta-base",
        "recipe": options.recipe,
        **({"protocol": options.protocol} if options.protocol else {}),
        "sample": "drawn",
        **({"target": target} if target else {}),
    }
    text = _render(content, argument)
    suite = read_suite(parse_yaml(text, path), path, catalog())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    splits = {spec.id: suite.protocol_of(spec) for spec in specs}
    if options.json:
        print(json.dumps({"file": str(path), "suite": content, "protocols": splits}))
        return 0
    print(f"wrote {path}\n\n{text}")
    for task, protocol in splits.items():
        print(f"{task}: protocol {protocol}")
    print("\nnext:\n  " + "\n  ".join(_next(argument, suite.target or "")))
    return 0


def _listed(spec: TaskSpec, home: Path) -> str:
    """A task as the file names it: by its id where that is known, else by its own file."""
    from mtl.checks.drafts import nearby
    from mtl.tasks.yamls import catalog

    known = catalog().tasks.get(spec.id)
    if spec.origin is None or (known and known.resolve() == spec.origin.resolve()):
        return spec.id
    return nearby(spec.origin, home)


def _render(content: dict[str, Any], argument: str) -> str:
    lines = [f"# python -m mtl.tasks ls --suite {shlex.quote(argument)}"]
    lines += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    return "\n".join(lines) + "\n"


def _next(argument: str, target: str) -> Sequence[str]:
    suite = shlex.quote(argument)
    lines = [f"python -m mtl.train --suite {suite}"]
    if target:
        lines.append(f"python -m mtl.compose --suite {suite} --target {target} --sources all")
    return lines
