"""ReCoRD: from queries with a placeholder to one row per candidate entity.

The full training split has a million rows over 65,000 passages. Passages stay a dictionary column,
so that each is held, and later tokenised, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtl.errors import RequestError
from mtl.tasks.answer_metrics import best, exact_match, normalise, token_f1
from mtl.tasks.row_functions import columns_of

if TYPE_CHECKING:
    import pyarrow as pa

PLACEHOLDER = "@placeholder"
HIGHLIGHT = "@highlight\n"


def record(table: pa.Table) -> pa.Table:
    """One row per query and entity, in their order (docs/methods.md#texts).

    Columns:
        passage: with each ``@highlight`` line turned into a list item (``- ``).
        query: with ``@placeholder`` replaced by the entity.
        label: 1 where the entity is one of the answers, as text, else 0.
        group: the query's number.
        order: the entity's rank in its query as text; of equal logits the largest wins.
        f1, em: token F1 and exact match of the entity, the best over the query's answers.
    """
    import pyarrow as pa

    entities, answers = columns_of(table, ["entities", "answers"])
    labels: list[int] = []
    f1: list[float] = []
    em: list[float] = []
    for row, (candidates, gold) in enumerate(zip(entities, answers, strict=True)):
        if not gold:
            raise RequestError(
                f"row {row}: there is no answer, which marks hidden labels (official test data). "
                "Choose a protocol that does not use this split, such as scalearn."
            )
        right = set(gold)
        normal = [normalise(answer) for answer in right]
        for entity in candidates:
            said = normalise(entity)
            labels.append(int(entity in right))
            f1.append(best(token_f1, said, normal))
            em.append(best(exact_match, said, normal))
    prepared = record_queries(table)
    for name, values, kind in (
        ("label", labels, pa.int64()),
        ("f1", f1, pa.float64()),
        ("em", em, pa.float64()),
    ):
        prepared = prepared.append_column(name, pa.array(values, kind))
    return prepared


def record_queries(table: pa.Table) -> pa.Table:
    """:func:`record` of rows without answers: passage, query, group and order."""
    import pyarrow as pa

    queries, entities = columns_of(table, ["query", "entities"])
    parents: list[int] = []
    texts: list[str] = []
    orders: list[int] = []
    for row, (query, candidates) in enumerate(zip(queries, entities, strict=True)):
        if PLACEHOLDER not in query:
            raise RequestError(f"row {row}: the query has no {PLACEHOLDER}: {query!r}.")
        if not candidates:
            raise RequestError(f"row {row}: there are no entities to choose from.")
        rank = {name: place for place, name in enumerate(sorted(set(candidates)))}
        for entity in candidates:
            parents.append(row)
            texts.append(query.replace(PLACEHOLDER, entity))
            orders.append(rank[entity])
    group = np.asarray(parents, dtype=np.int64)
    return pa.table(
        {
            "passage": _passages(table, group),
            "query": pa.array(texts, pa.large_string()),
            "group": pa.array(group),
            "order": pa.array(orders, pa.int64()),
        }
    )


def _passages(table: pa.Table, parents: np.ndarray) -> pa.DictionaryArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns_of(table.slice(0, 0), ["passage"])
    column = table.column("passage").combine_chunks()
    if column.null_count:
        raise RequestError(
            f"row {column.is_null().to_pylist().index(True)}: column 'passage' is empty."
        )
    encoded = column.dictionary_encode()
    clean = pc.replace_substring(encoded.dictionary, pattern=HIGHLIGHT, replacement="- ")
    return pa.DictionaryArray.from_arrays(encoded.indices.take(pa.array(parents)), clean)
