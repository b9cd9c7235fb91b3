"""Versions of what shaped a result, as manifests record them."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from mtl.registry import plugin

if TYPE_CHECKING:
    from mtl.runs.run import Run
    from mtl.zoo import Manifest

PACKAGES = ("mtl", "torch", "adapters", "transformers", "datasets", "tokenizers", "numpy")
GROUPS = {"adapter": "mtl.methods", "composition": "mtl.compositions", "joint": "mtl.joint"}
"""Kind of a run → entry-point group of its methods."""


def versions(run: Run | None = None) -> dict[str, str]:
    """Versions of Python and of the packages that shape a result.

    Of a ``run``, that of the package that registers its method, too, if it is not ours.
    """
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            from mtl import __version__

            found[package] = __version__ if package == "mtl" else "unknown"
    if run is not None and (origin := plugin(GROUPS.get(run.kind, ""), run.method)):
        found.setdefault(origin.package, origin.version)
    return found


def made_with(manifest: Manifest) -> str:
    """A hint for the error of a method that is not there: the package it came from, or nothing.

    Manifests may be a stranger's, so it names the package and advises no installation.
    """
    others = [f"{k} {v}" for k, v in manifest.versions.items() if k not in {"python", *PACKAGES}]
    if not others or manifest.kind not in GROUPS:
        return ""
    return f"The entry's manifest says that the method came from package {', '.join(others)}."
