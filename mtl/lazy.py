"""Public names of a room without importing the room: ``python -m mtl.train --help`` stays instant.

A room's ``__init__`` lists its public names under ``TYPE_CHECKING`` for readers and type checkers
and hands the same names to :func:`exports`, which imports the module behind a name on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__all__``, ``__getattr__`` and ``__dir__`` for ``package``.

    Args:
        package: ``__name__`` of the room.
        names: module inside the room (without the leading dot) → public names it holds.

    Example::

        __all__, __getattr__, __dir__ = exports(__name__, {"spec": ["TaskSpec", "load_task"]})
    """
    home = {name: module for module, listed in names.items() for name in listed}
    clash = home.keys() & names.keys()
    if clash:  # importing the module would put it in the function's place
        raise ValueError(f"{package}: {', '.join(sorted(clash))} names a module and what is in it")

    def getattribute(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = f"{package}.{home[name]}"
        try:
            return getattr(importlib.import_module(module), name)
        except AttributeError as error:
            # `from package import name` would say "cannot import name" of it, and nothing else.
            raise ImportError(f"{module} cannot be imported for {name!r}: {error}") from error

    return sorted(home), getattribute, lambda: sorted(home)


def later(target: str) -> Callable[..., Any]:
    """The function ``"package.module:name"``, whose module is imported when it is first called.

    So a method can be declared, and its settings checked, without what computes it.
    """
    module, _, name = target.partition(":")

    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **named)

    return call
