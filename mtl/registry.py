"""One registry for everything that is chosen by name: methods, compositions, kinds, heads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from mtl.errors import unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to objects of one sort, some of them imported only when asked for.

    Args:
        kind: what the objects are, in the words of an error message ("method").
        base: if given, every registered object must be an instance (or subclass) of it.

    A lazy target is a string ``"package.module:attribute"``; it is imported on first use, so that
    listing names costs no import of torch.
    """

    def __init__(self, kind: str, base: type | None = None) -> None:
        self.kind = kind
        self._base = base
        self._items: dict[str, T | str] = {}

    def add(self, name: str, item: T | str) -> None:
        """Register ``item`` (or a lazy ``"module:attribute"``) as ``name``; names are unique."""
        if name in self._items:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        if not isinstance(item, str):
            self._check(name, item)
        self._items[name] = item

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator form of :meth:`add`."""

        def decorate(item: T) -> T:
            self.add(name, item)
            return item

        return decorate

    def get(self, name: str, hint: str = "") -> T:
        """Return the object called ``name``.

        Raises:
            RequestError: no such name; the message offers the closest one and lists all.
        """
        if name not in self._items:
            raise unknown(self.kind, name, self._items, hint)
        item = self._items[name]
        if isinstance(item, str):
            module, _, attribute = item.partition(":")
            item = cast(T, getattr(importlib.import_module(module), attribute))
            self._check(name, item)
            self._items[name] = item
        return item

    def names(self) -> list[str]:
        """All names, in the order of registration."""
        return list(self._items)

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def _check(self, name: str, item: object) -> None:
        if self._base is None or isinstance(item, self._base):
            return
        if isinstance(item, type) and issubclass(item, self._base):
            return
        raise TypeError(f"{self.kind} {name!r} must be a {self._base.__name__}, got {item!r}")
