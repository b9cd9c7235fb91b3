"""Tasks: specs, suites and recipes, data and its splits, encoding, batches, losses, metrics.

A task is a YAML file (``tasks/**.yaml``). The road of its data: :func:`load_task` reads the spec,
:func:`load_data` reads the rows and splits them by a protocol, :func:`encode` tokenises a split,
:func:`train_order`, :func:`cut` and :func:`eval_order` say which rows form which batch.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.tasks.as_metric import as_evaluate
    from mtl.tasks.batches import Passes, cut, eval_order, train_order
    from mtl.tasks.data import TaskData, load_data
    from mtl.tasks.encoding import Encoded, encode, token_limit, tokenizer_fingerprint
    from mtl.tasks.kinds import KINDS, Kind, decode, task_loss
    from mtl.tasks.metrics import METRICS, Metric, examples, score, standard_error
    from mtl.tasks.prepare import PREPARE
    from mtl.tasks.protocols import PROTOCOLS, default_protocol
    from mtl.tasks.recipes import Layer, Recipe, list_recipes, load_recipe
    from mtl.tasks.spec import TaskSpec, list_tasks, load_task
    from mtl.tasks.suites import Suite, list_suites, load_suite, suite_for
    from mtl.tasks.yamls import tasks_folder

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "as_metric": ["as_evaluate"],
        "batches": ["Passes", "cut", "eval_order", "train_order"],
        "data": ["TaskData", "load_data"],
        "encoding": ["Encoded", "encode", "token_limit", "tokenizer_fingerprint"],
        "kinds": ["KINDS", "Kind", "decode", "task_loss"],
        "metrics": ["METRICS", "Metric", "examples", "score", "standard_error"],
        "prepare": ["PREPARE"],
        "protocols": ["PROTOCOLS", "default_protocol"],
        "recipes": ["Layer", "Recipe", "list_recipes", "load_recipe"],
        "spec": ["TaskSpec", "list_tasks", "load_task"],
        "suites": ["Suite", "list_suites", "load_suite", "suite_for"],
        "yamls": ["tasks_folder"],
    },
)
