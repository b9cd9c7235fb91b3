"""Entries of a zoo over HTTP: many targets on one encoder, in batches made as requests come."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.serve.bounds import Bounds
    from mtl.serve.service import Service

__all__, __getattr__, __dir__ = exports(__name__, {"bounds": ["Bounds"], "service": ["Service"]})
