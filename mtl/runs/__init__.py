"""The road of every run: resolve, plan, train, select, test, store; and back from the zoo."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.runs.loading import Loaded, load, load_adapter_entry
    from mtl.runs.run import RESULT_SCHEMA, Built, Run
    from mtl.runs.running import Report, execute, execute_all
    from mtl.runs.settings import Overrides, resolve_settings
    from mtl.runs.verify import Verification, verify_entry
    from mtl.runs.workspace import Workspace, open_workspace

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "loading": ["Loaded", "load", "load_adapter_entry"],
        "run": ["RESULT_SCHEMA", "Built", "Run"],
        "running": ["Report", "execute", "execute_all"],
        "settings": ["Overrides", "resolve_settings"],
        "verify": ["Verification", "verify_entry"],
        "workspace": ["Workspace", "open_workspace"],
    },
)
