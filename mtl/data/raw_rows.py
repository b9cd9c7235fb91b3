"""The rows of a task's source as they are: for showing and checking what stands in the files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.data.origins import RawData, open_data
from mtl.errors import RequestError
from mtl.tasks.row_functions import PREPARE, UNLABELLED

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mtl.tasks.spec import TaskSpec


@dataclass
class RawRows:
    """The official splits of a task, each read once, after the task's row function if it has one.

    Attributes:
        data_root: folder with local mirrors of Hub datasets; None reads from the Hub.
        raw: where the rows come from; None: what the task says.
        labelled: whether rows have labels; new rows that are to be answered have none.

    Raises:
        RequestError: as :func:`mtl.data.load_data`, on opening and on reading.
    """

    spec: TaskSpec
    data_root: str | Path | None = None
    raw: RawData = None  # type: ignore[assignment]
    labelled: bool = True
    _tables: dict[str, pa.Table] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.raw is None:
            self.raw = open_data(self.spec, self.data_root)

    def table(self, split: str) -> pa.Table:
        """All rows of an official split."""
        if split not in self._tables:
            table = self.raw.read(split)
            if self.spec.prepare:
                functions = PREPARE if self.labelled else UNLABELLED
                if self.spec.prepare not in functions:
                    functions = PREPARE  # it reads no labels
                try:
                    table = functions.get(self.spec.prepare)(table)
                except RequestError as error:
                    raise RequestError(
                        f"Task {self.spec.id!r}, split {split!r} of {self.raw.where}, prepare "
                        f"{self.spec.prepare!r}: {error}"
                    ) from error
            self._tables[split] = table
        return self._tables[split]

    def columns(self, split: str, rows: np.ndarray) -> list[dict[str, Any]]:
        """Some rows with all their columns."""
        found: list[dict[str, Any]] = self.table(split).take(rows).to_pylist()
        return found

    def place(self, split: str, row: int) -> str:
        """Where a row stands: file and line where there is one, else task, split and row."""
        if self.spec.prepare:  # rows are no longer those of the file
            return f"{self.spec.id} {split} row {row}, as prepared by {self.spec.prepare!r}"
        self.table(split)  # lines of a file are known once it is read
        text = self.raw.line(split, row)
        return text if text != f"row {row}" else f"{self.spec.id} {split} row {row}"
