"""One registry for everything that is chosen by name: methods, compositions, kinds, heads.

Installed packages add theirs by entry points (CONTRIBUTING.md, "Add from your own package"): their
metadata are read once and tell the names; a package is imported when an object of it is asked for.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar, cast

from mtl.errors import RequestError, unknown
from mtl.files import safe_part

T = TypeVar("T")


class PluginError(RequestError):
    """What another package registers cannot be had: it fails to import, or the name is taken."""


@dataclass(frozen=True)
class Plugin:
    """Something that an installed package registers under an entry-point group of ours.

    Attributes:
        name: what users type.
        target: ``"module:attribute"``; of task files a package or a folder in one, with dots.
        package, version: of the distribution.
    """

    name: str
    target: str
    package: str
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


@cache
def plugins(group: str) -> tuple[Plugin, ...]:
    """What installed packages register under ``group``, by package and name. Imports none."""
    from importlib.metadata import entry_points

    return tuple(
        sorted(
            (
                Plugin(point.name, point.value, str(point.dist.name), str(point.dist.version))
                for point in entry_points(group=group)
                if point.dist is not None
            ),
            key=lambda plugin: (plugin.package, plugin.name),
        )
    )


def plugin(group: str, name: str) -> Plugin | None:
    """The first package's that registers ``name`` under ``group``, None if none does."""
    return next((item for item in plugins(group) if item.name == name), None)


class Registry(Generic[T]):
    """Names to objects of one sort, some of them imported only when asked for.

    Args:
        kind: what the objects are, in the words of an error message ("method").
        base: if given, every registered object must be an instance (or subclass) of it.
        group: entry-point group under which other packages register theirs, "" for none.

    A lazy target is a string ``"package.module:attribute"``; it is imported on first use, so that
    listing names costs no import of torch.
    """

    def __init__(self, kind: str, base: type | None = None, group: str = "") -> None:
        self.kind = kind
        self._base = base
        self._group = group
        self._items: dict[str, T | str] = {}
        self._foreign: dict[str, T] = {}

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
            PluginError: a package registers it that cannot be imported, or another has the name.
        """
        if name not in self:
            raise unknown(self.kind, name, self.names(), hint)
        owners = self._plugins(name)
        if len(owners) + (name in self._items) > 1:
            named = [*(["mtl itself"] if name in self._items else []), *map(str, owners)]
            raise PluginError(
                f"{self.kind.capitalize()} {name!r} is registered by {' and by '.join(named)}: "
                f"uninstall {owners[-1].package}, or have it use another name."
            )
        if owners:
            if name not in self._foreign:
                self._foreign[name] = self._import(owners[0])
            return self._foreign[name]
        item = self._items[name]
        if isinstance(item, str):
            module, _, attribute = item.partition(":")
            item = cast(T, getattr(importlib.import_module(module), attribute))
            self._check(name, item)
            self._items[name] = item
        return item

    def names(self) -> list[str]:
        """All names: ours in the order of registration, then those of other packages."""
        foreign = plugins(self._group) if self._group else ()
        return list(dict.fromkeys([*self._items, *(item.name for item in foreign)]))

    def ours(self, item: T, name: str) -> bool:
        """Whether ``item`` is what this package itself registers as ``name``."""
        return name in self._items and not self._plugins(name) and self.get(name) is item

    def usable(self) -> dict[str, T]:
        """All objects by name; of what a package registers and cannot be had, a warning instead."""
        found = {}
        for name in self.names():
            try:
                found[name] = self.get(name)
            except PluginError as error:
                logging.getLogger("mtl").warning("%s", error)
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._items or bool(self._plugins(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _plugins(self, name: object) -> list[Plugin]:
        found = plugins(self._group) if self._group else ()
        return [item for item in found if item.name == name]

    def _import(self, found: Plugin) -> T:
        module, _, attribute = found.target.partition(":")
        try:
            safe_part(found.name, "the name")  # it becomes a part of paths
            item = cast(T, getattr(importlib.import_module(module), attribute))
            self._check(found.name, item)
            called = getattr(item, "name", found.name)
            if called != found.name:
                raise ValueError(f"its name is {called!r}, the entry point's {found.name!r}")
        except Exception as error:  # a stranger's code may fail in any way
            raise PluginError(
                f"{self.kind.capitalize()} {found.name!r} is registered by package {found} as "
                f"{found.target}, which cannot be used: {type(error).__name__}: {error}. Repair or "
                f"uninstall {found.package}; everything else works without it."
            ) from error
        return item

    def _check(self, name: str, item: object) -> None:
        if self._base is None or isinstance(item, self._base):
            return
        if isinstance(item, type) and issubclass(item, self._base):
            return
        raise TypeError(f"{self.kind} {name!r} must be a {self._base.__name__}, got {item!r}")
