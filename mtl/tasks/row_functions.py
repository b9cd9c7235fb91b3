"""Row functions: they reshape a split's rows where templates over columns are not enough.

A task names one in ``prepare``. It takes the table of a split as the source has it and returns the
table that templates, labels and metrics read; it may add columns and change the number of rows.
What it cannot read it refuses with the number of the row. Columns with a meaning to kinds and
metrics: ``group`` (rows of one question), ``order`` (which of equal candidates wins, the largest),
``f1`` and ``em`` (what choosing the candidate is worth), ``answers`` (all right answers).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import RequestError
from mtl.registry import Registry

if TYPE_CHECKING:
    import pyarrow as pa

PREPARE: Registry[Callable[[pa.Table], pa.Table]] = Registry("row function")
"""Functions that reshape the rows of a task before the templates, where these are not enough."""

PREPARE.add("record", "mtl.tasks.record_rows:record")
PREPARE.add("squad", "mtl.tasks.spans:squad")
PREPARE.add("labelled", "mtl.tasks.row_filters:labelled")

UNLABELLED: Registry[Callable[[pa.Table], pa.Table]] = Registry("row function without labels")
"""The same for new rows, which are to be answered, of the functions that read labels."""

UNLABELLED.add("record", "mtl.tasks.record_rows:record_queries")
UNLABELLED.add("squad", "mtl.tasks.spans:squad_questions")
UNLABELLED.add("labelled", "mtl.tasks.row_filters:every_row")


def columns_of(table: pa.Table, names: Sequence[str]) -> list[list]:
    """The columns as lists of Python values.

    Raises:
        RequestError: one is not there, or has an empty cell.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise RequestError(
            f"there is no column {', '.join(map(repr, missing))}, only "
            f"{', '.join(table.column_names)}."
        )
    found = []
    for name in names:
        values = table.column(name).to_pylist()
        if table.column(name).null_count:
            raise RequestError(f"row {values.index(None)}: column {name!r} is empty.")
        found.append(values)
    return found


@PREPARE.register("wsc")
def wsc(table: pa.Table) -> pa.Table:
    """WSC: column ``marked``, the text with the pronoun as ``*word*``.

    The text is split at white space, the word number ``span2_index`` wrapped in stars, and the
    words joined by single spaces (docs/methods.md#texts).
    """
    import pyarrow as pa

    marked = []
    for row, (text, place) in enumerate(
        zip(*columns_of(table, ["text", "span2_index"]), strict=True)
    ):
        words = text.split()
        if not 0 <= place < len(words):
            raise RequestError(
                f"row {row}: span2_index is {place}, but the text has {len(words)} words."
            )
        words[place] = f"*{words[place]}*"
        marked.append(" ".join(words))
    return table.append_column("marked", pa.array(marked, pa.large_string()))


CONNECTIVES = {"cause": "because", "effect": "so"}


@PREPARE.register("copa")
def copa(table: pa.Table) -> pa.Table:
    """COPA: column ``connective``, "because" where the question is for the cause, "so" for effect.

    The premise keeps its full stop (docs/methods.md#texts).
    """
    import pyarrow as pa

    (questions,) = columns_of(table, ["question"])
    for row, question in enumerate(questions):
        if question not in CONNECTIVES:
            raise RequestError(
                f"row {row}: question is {question!r}, it must be one of {', '.join(CONNECTIVES)}."
            )
    words = [CONNECTIVES[question] for question in questions]
    return table.append_column("connective", pa.array(words, pa.large_string()))


@PREPARE.register("multirc")
def multirc(table: pa.Table) -> pa.Table:
    """MultiRC: column ``group``, the question that an answer belongs to (paragraph and question).

    Rows are answers already; metric ``question_em`` counts questions whose answers are all right.
    """
    import pyarrow as pa

    (places,) = columns_of(table, ["idx"])
    keys = np.array([(place["paragraph"], place["question"]) for place in places], dtype=np.int64)
    _, group = np.unique(keys.reshape(-1, 2), axis=0, return_inverse=True)
    return table.append_column("group", pa.array(group.reshape(-1), pa.int64()))
