"""Two-stage multi-task adapter composition: train adapters, keep them in a zoo, compose them.

The rooms, in import order, are described in ``docs/architecture.md``. Importing this package
imports nothing heavy: torch, transformers and datasets are loaded by the rooms that need them. It
tells OpenMP to let waiting threads sleep (:mod:`mtl.threads`), so import it before torch.
"""

from mtl.threads import wait_passively

wait_passively()

__version__ = "0.1.0"
