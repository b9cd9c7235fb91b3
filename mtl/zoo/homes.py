"""The suite that an entry belongs to, which for entries of before is not always where it lies."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtl.errors import RequestError
from mtl.tasks.yamls import is_file_name
from mtl.zoo.summary import Summary

if TYPE_CHECKING:
    from mtl.tasks import Suite


@dataclass
class Homes:
    """Finds the suites of entries, reading each suite's file once.

    A composition for a task of the user's own with sources of ``--suite glue`` was once stored
    under ``glue``, away from the task's own adapter. It belongs to the task's suite.

    A suite that is asked for by its file has the runs of its tasks, too, that were trained when
    there was no such suite, or without naming it; these lie under the tasks' own names.

    Attributes:
        written: the file of a suite that was asked for, or its name.
    """

    written: str | None = None
    _members: dict[str, frozenset[str] | None] = field(default_factory=dict)
    _files: dict[str, Suite] = field(default_factory=dict)

    def of(self, suite: str, task: str) -> str:
        """The suite of an entry for ``task`` that lies under ``suite``."""
        if self.written and is_file_name(self.written):
            read = self._read(self.written)
            if task in read.tasks:
                return read.name
        own = task.split("/")[0]
        if own == suite:
            return suite
        members = self._of_suite(suite)
        return suite if members is None or task in members else own

    def has(self, suite: str, summary: Summary) -> bool:
        """Whether an entry lies under ``suite``, or belongs to it.

        Raises:
            RequestError: ``suite`` is a file that is not there, or is no suite's.
        """
        if is_file_name(suite):
            read = self._read(suite)
            return summary.suite == read.name or summary.task in read.tasks
        if summary.suite == suite:
            return True
        here = summary.task.startswith(f"{suite}/")
        return here and self.of(summary.suite, summary.task) == suite

    def refs(self, summary: Summary) -> list[str]:
        """What an entry may be called by: its reference, and the one it would have today."""
        home = self.of(summary.suite, summary.task)
        base, *rest = summary.ref.split("/")
        if home == summary.suite or rest[:1] != [summary.suite]:
            return [summary.ref]
        return [summary.ref, "/".join([base, home, *rest[1:]])]

    def _read(self, path: str) -> Suite:
        if path not in self._files:
            from mtl.tasks import load_suite

            self._files[path] = load_suite(path)
        return self._files[path]

    def _of_suite(self, suite: str) -> frozenset[str] | None:
        """The tasks of a suite that somebody wrote; None of others, and of what cannot be read."""
        if suite not in self._members:
            from mtl.tasks import list_suites, load_suite  # only where an entry asks for it

            self._members[suite] = None
            if suite in list_suites():
                # a user's file, broken: the listing of tasks says so
                with suppress(RequestError):
                    self._members[suite] = frozenset(load_suite(suite).tasks)
        return self._members[suite]
