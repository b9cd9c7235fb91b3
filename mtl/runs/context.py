"""What a request for runs has in common: its suite, base, recipe, overrides and places."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.tasks import load_member, load_recipe, load_suite, load_task, suite_for
from mtl.tasks.yamls import is_file_name

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.runs.settings import Overrides
    from mtl.runs.workspace import Workspace
    from mtl.tasks import Recipe, Suite, TaskSpec


@dataclass(frozen=True)
class Context:
    """A request, resolved as far as all of stage one, stage two and joint runs resolve it alike.

    Attributes:
        model: the name that the base was loaded by.
        asked_protocol: how data are split where the user says so; None for what suite or task says.
    """

    suite: Suite
    backbone: Backbone
    model: str
    recipe: Recipe
    overrides: Overrides
    workspace: Workspace
    asked_protocol: str | None = None

    def protocol_of(self, spec: TaskSpec) -> str:
        """How the data of ``spec`` are split."""
        return self.asked_protocol or self.suite.protocol_of(spec)

    def setting(self, values: Mapping[str, Any]) -> Context:
        """The same request with these settings over what the user set."""
        merged = {**self.overrides.values, **values}
        return replace(self, overrides=replace(self.overrides, values=merged))


def open_context(
    suite: Suite,
    *,
    model: str | None,
    recipe: str | None,
    protocol: str | None,
    overrides: Overrides,
    workspace: Workspace,
    check: Callable[[Recipe, Overrides], Any],
) -> Context:
    """Load recipe and base; None means the suite's (for the model, ``MTL_MODEL`` goes first).

    Args:
        check: called before the base is loaded, so that a wrong setting does not cost its loading.

    Raises:
        RequestError: unknown recipe, what ``check`` refuses, or a base that cannot be loaded.
    """
    from mtl.backbone import load_backbone

    chosen = load_recipe(recipe or suite.recipe, suite.name)
    chosen = replace(chosen, sample_of=suite.sample_of)
    check(chosen, overrides)
    model = chosen_model(model, suite)
    backbone = load_backbone(model)
    return Context(suite, backbone, model, chosen, overrides, workspace, protocol)


def chosen_model(model: str | None, suite: Suite) -> str:
    """``model``, else ``MTL_MODEL``, else the suite's."""
    return model or os.environ.get("MTL_MODEL") or suite.model


def suite_of(name: str | None, tasks: Sequence[str]) -> Suite:
    """The suite called ``name``, else that of the first task."""
    if name:
        return load_suite(name)
    if not tasks:
        raise RequestError("Say what to train: --suite NAME (for example demo), or --task NAME….")
    beside = [load_task(task) for task in tasks[1:] if is_file_name(task)]
    return suite_for(load_task(tasks[0]), beside)


def specs_of(suite: Suite, tasks: Sequence[str]) -> list[TaskSpec]:
    """The specs of the named tasks, or of all of the suite, each once."""
    specs = [load_member(name, suite) for name in (tasks or suite.tasks)]
    ids = [spec.id for spec in specs]
    twice = sorted({task for task in ids if ids.count(task) > 1})
    if twice:
        raise RequestError(f"--task names {', '.join(twice)} twice.")
    return specs


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """The seeds, each once and none negative."""
    wrong = sorted({seed for seed in seeds if seed < 0 or list(seeds).count(seed) > 1})
    if wrong:
        raise RequestError(f"--seeds: {', '.join(map(str, wrong))} is negative or named twice.")
    return list(seeds)
