"""Stage-one methods, one file each: a frozen settings dataclass, what it adds, registration."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.methods.count import Count, count_method, count_settings
    from mtl.methods.method import (
        METHODS,
        UNAVAILABLE,
        Method,
        RunFacts,
        attach,
        find_method,
        load,
        source_names,
    )
    from mtl.methods.placement import PLACEMENTS, signature
    from mtl.methods.source import PlainSource, Source, as_source
    from mtl.methods.tuned import Tuned

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "method": [
            "METHODS",
            "UNAVAILABLE",
            "Method",
            "RunFacts",
            "attach",
            "find_method",
            "load",
            "source_names",
        ],
        "count": ["Count", "count_method", "count_settings"],
        "placement": ["PLACEMENTS", "signature"],
        "source": ["PlainSource", "Source", "as_source"],
        "tuned": ["Tuned"],
    },
)
