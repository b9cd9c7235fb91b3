"""The option parser of commands that read YAML; its complaints are one message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from mtl.cli.plain import PlainParser as PlainParser
from mtl.cli.plain import complaint
from mtl.errors import RequestError
from mtl.files import user_path


class Parser(jsonargparse.ArgumentParser):
    """For commands whose options may stand in a YAML file, given with ``--config``.

    A file is read by our own reader first: unknown keys and wrong shapes are named with the file.
    """

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise complaint(str(self.prog), message) from ex

    def parse_args(self, args: Any = None, *rest: Any, **options: Any) -> Any:  # type: ignore[override]
        """As jsonargparse does. Raises RequestError where that would print its usage and exit."""
        argv = [str(item) for item in args or []]
        self._refuse_repeats(argv)
        for place, item in enumerate(argv):
            if item == "--config" and place + 1 < len(argv):
                self._check_file(Path(argv[place + 1]))
            elif item.startswith("--config="):
                self._check_file(Path(item.partition("=")[2]))
        return super().parse_args(argv, *rest, **options)

    def _lists(self) -> dict[str, bool]:
        """Name of each option that takes several values → whether it may be given again."""
        return {
            action.dest: type(action).__name__.endswith("ExtendAction")
            for action in self._actions
            if action.nargs == "+"
        }

    def _refuse_repeats(self, argv: Sequence[str]) -> None:
        # The last one would win, and the values of the first be lost without a word.
        for name, again in self._lists().items():
            flag = f"--{name.replace('_', '-')}"
            if not again and sum(item.split("=")[0] == flag for item in argv) > 1:
                raise complaint(
                    str(self.prog), f"{flag} is given twice; write all values after one {flag}"
                )

    def _check_file(self, path: Path) -> None:
        from mtl.tasks.yamls import check_keys, read_yaml

        content = read_yaml(user_path(path, "--config"))
        known = [a.dest for a in self._actions if a.dest not in {"help", "config", "print_config"}]
        check_keys(content, known, (), str(path))
        for name in self._lists():
            value = content.get(name)
            if value is not None and not isinstance(value, list):
                shown = "key=value" if name == "set" else value
                raise RequestError(f"{path}: {name} must be a list: `{name}: [{shown}]`.")


def names(values: Sequence[str]) -> list[str]:
    """Names given with spaces, commas or both."""
    return [name for item in values for name in item.split(",") if name]
