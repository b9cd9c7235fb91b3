"""Two-stage multi-task adapter composition: train adapters, keep them in a zoo, compose them.

>>> import mtl
>>> nli = mtl.train_adapter("demo/nli")                                  # doctest: +SKIP
>>> own = mtl.train_adapter("demo/entail")                               # doctest: +SKIP
>>> entry = mtl.compose_adapters("demo/entail", sources=[nli, own])      # doctest: +SKIP
>>> model = mtl.load(entry)                                              # doctest: +SKIP
>>> model.predict([("every dog sees a cat", "some dog sees a cat")])     # doctest: +SKIP

The rooms, in import order, are described in ``docs/architecture.md``. Importing this package
imports nothing heavy: torch, transformers and datasets are loaded by the rooms that need them. It
tells OpenMP to let waiting threads sleep (:mod:`mtl.threads`), so import it before torch.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports
from mtl.threads import wait_passively

if TYPE_CHECKING:
    # `name as name` re-exports it for type checkers.
    from mtl.face import compose_adapters as compose_adapters
    from mtl.face import error_report as error_report
    from mtl.face import load as load
    from mtl.face import load_many as load_many
    from mtl.face import pack as pack
    from mtl.face import results as results
    from mtl.face import train_adapter as train_adapter
    from mtl.face import train_joint as train_joint
    from mtl.face import unpack as unpack
    from mtl.predict import Answers as Answers
    from mtl.predict import Model as Model
    from mtl.predict import Models as Models
    from mtl.tasks import load_task as load_task
    from mtl.zoo import Entry as Entry
    from mtl.zoo import open_zoo as open_zoo

wait_passively()

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "face": [
            "compose_adapters",
            "error_report",
            "load",
            "load_many",
            "pack",
            "results",
            "train_adapter",
            "train_joint",
            "unpack",
        ],
        "predict": ["Answers", "Model", "Models"],
        "tasks": ["load_task"],
        "zoo": ["Entry", "open_zoo"],
    },
)
