"""What a task is: specs, suites and recipes, kinds, labels, metrics, protocols.

A task is a YAML file (``tasks/**.yaml``), which :func:`load_task` reads.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.tasks.as_metric import as_evaluate
    from mtl.tasks.finding import list_tasks, load_member, load_task
    from mtl.tasks.kinds import KINDS, Kind, decode, task_loss
    from mtl.tasks.metrics import METRICS, Metric, examples, score, standard_error
    from mtl.tasks.protocols import PROTOCOLS
    from mtl.tasks.recipes import Layer, Recipe, list_recipes, load_recipe
    from mtl.tasks.row_functions import PREPARE
    from mtl.tasks.spec import TaskSpec
    from mtl.tasks.suites import Suite, default_protocol, list_suites, load_suite, suite_for
    from mtl.tasks.yamls import tasks_folder

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "as_metric": ["as_evaluate"],
        "finding": ["list_tasks", "load_member", "load_task"],
        "kinds": ["KINDS", "Kind", "decode", "task_loss"],
        "metrics": ["METRICS", "Metric", "examples", "score", "standard_error"],
        "protocols": ["PROTOCOLS"],
        "recipes": ["Layer", "Recipe", "list_recipes", "load_recipe"],
        "row_functions": ["PREPARE"],
        "spec": ["TaskSpec"],
        "suites": ["Suite", "default_protocol", "list_suites", "load_suite", "suite_for"],
        "yamls": ["tasks_folder"],
    },
)
