"""Stage one: one adapter per task on a frozen encoder."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.train.stage_one import plan_adapters, plan_train, resolve_train

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "stage_one": ["plan_adapters", "plan_train", "resolve_train"],
    },
)
