"""What ``import mtl`` gives: training, composing, loading, in plain functions."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.face.loading import load, load_many
    from mtl.face.looking import error_report, results
    from mtl.face.making import compose_adapters, train_adapter, train_joint
    from mtl.face.passing import pack, unpack

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "loading": ["load", "load_many"],
        "looking": ["error_report", "results"],
        "making": ["compose_adapters", "train_adapter", "train_joint"],
        "passing": ["pack", "unpack"],
    },
)
