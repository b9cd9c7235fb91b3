"""The zoo: trained adapters and compositions as immutable folders of JSON and safetensors.

Files only, no torch model. :func:`open_zoo` gives a :class:`Zoo`; a writer fills a temporary
folder from :meth:`Zoo.stage` and hands it with a :class:`Manifest` to :meth:`Zoo.commit`; readers
find entries by manifest fields and call :meth:`Zoo.load_check` before they load one.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.intake import admit, check_foreign, check_listing
    from mtl.zoo.manifest import IDENTITY_KEYS, SCHEMA_VERSION, Manifest, digest
    from mtl.zoo.predictions import Predictions, read_predictions, write_predictions
    from mtl.zoo.problem import Problem
    from mtl.zoo.store import Zoo, base_slug, open_zoo

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "entry": ["Entry"],
        "intake": ["admit", "check_foreign", "check_listing"],
        "manifest": ["IDENTITY_KEYS", "SCHEMA_VERSION", "Manifest", "digest"],
        "predictions": ["Predictions", "read_predictions", "write_predictions"],
        "problem": ["Problem"],
        "store": ["Zoo", "base_slug", "open_zoo"],
    },
)
