"""One file out: a composition as one stock adapter, with its proof."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.export.curve import Narrowing, narrowest
    from mtl.export.distill import Distilling, distil
    from mtl.export.exporting import ExportOptions, export_entry
    from mtl.export.folding import Folded, Maps, fold
    from mtl.export.stock import install, load_stock, stock_config

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "curve": ["Narrowing", "narrowest"],
        "distill": ["Distilling", "distil"],
        "exporting": ["ExportOptions", "export_entry"],
        "folding": ["Folded", "Maps", "fold"],
        "stock": ["install", "load_stock", "stock_config"],
    },
)
