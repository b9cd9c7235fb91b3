"""Building modules from settings that a stranger wrote: bounded in memory, one message if it fails.

An entry's settings and configs say how large the modules are that its tensors go into. Their shapes
are compared after the modules are there, so what is built meanwhile is bounded here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mtl.errors import MtlError, ZooError
from mtl.limits import current

_BY_SIZE = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn}
_BY_RANGE = {torch.arange, torch.eye, torch.linspace}


class _Budget(TorchFunctionMode):
    """Refuses new tensors once they have more elements, all together, than allowed."""

    def __init__(self, elements: int, what: str) -> None:
        super().__init__()
        self.limit = self.left = elements
        self.what = what

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _BY_SIZE or func is torch.full:
            given = args[:1] if func is torch.full else args
            size = given[0] if given and isinstance(given[0], tuple | list) else given
            self.take(math.prod(int(axis) for axis in size or kwargs.get("size", ())))
        elif func in _BY_RANGE:
            numbers = [abs(item) for item in args if isinstance(item, int | float)]
            self.take(int(max(numbers, default=0)))
        return func(*args, **kwargs)

    def take(self, elements: int) -> None:
        self.left -= elements
        if self.left < 0:
            raise ZooError(
                f"Cannot load {self.what}: its settings ask for modules of more than "
                f"{self.limit:,} elements (limit load_elements). If you trust it, raise the limit: "
                "MTL_LIMITS=load_elements=…"
            )


@contextlib.contextmanager
def bounded(what: str) -> Iterator[None]:
    """For the block, new tensors may have ``load_elements`` elements together.

    Whatever a library raises in it, over settings that make no sense, becomes one message.

    Raises:
        ZooError: more elements, or ``what`` cannot be built.
    """
    try:
        with _Budget(current().load_elements, what):
            yield
    except (MtlError, KeyboardInterrupt):
        raise
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        text = " ".join(str(error).split())[:300]
        raise ZooError(
            f"Cannot load {what}: its settings make no module ({type(error).__name__}: {text})."
        ) from error
