"""Stage one, and the road that every run takes: resolve, plan, train, select, test, store."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.train.load import load_adapter_entry, load_network
    from mtl.train.plan import Built, Plan, RunPlan
    from mtl.train.run import Report, execute, execute_all
    from mtl.train.settings import Overrides, resolve_settings
    from mtl.train.stage_one import plan_train, resolve_train
    from mtl.train.verify import Verification, verify_entry
    from mtl.train.workspace import Workspace, open_workspace

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "load": ["load_adapter_entry", "load_network"],
        "plan": ["Built", "Plan", "RunPlan"],
        "run": ["Report", "execute", "execute_all"],
        "settings": ["Overrides", "resolve_settings"],
        "stage_one": ["plan_train", "resolve_train"],
        "verify": ["Verification", "verify_entry"],
        "workspace": ["Workspace", "open_workspace"],
    },
)
