"""The folder that an export writes: whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mtl.errors import RequestError
from mtl.files import TEMPORARY, writing


def check_free(folder: Path) -> None:
    """Refuse a place where something is.

    Raises:
        RequestError: a file, or a folder that is not empty.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise RequestError(f"Cannot export to {folder}: it is there and not an empty folder.")


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary sibling of ``folder`` to fill; renamed to it at the end, removed on any error.

    Raises:
        RequestError: ``folder`` is taken.
        RunError: the system refuses.
    """
    check_free(folder)
    folder = folder.absolute()
    made = [parent for parent in folder.parents if not parent.exists()]  # nearest first
    with writing(f"the export to {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        name = f"{TEMPORARY}{folder.name}-"
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=name))
    try:
        yield temporary
        with writing(f"the export to {folder}"):
            os.chmod(temporary, 0o755)
            os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
