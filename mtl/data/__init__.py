"""From the rows of a task to batches: reading, splitting, tokenising, the order of training.

:func:`load_data` reads the rows and splits them by a protocol, :func:`encode` tokenises a split,
:func:`train_order`, :func:`cut` and :func:`eval_order` say which rows form which batch.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.data.batches import Passes, cut, eval_order, train_order
    from mtl.data.encoded import Encoded, encode, token_limit, tokenizer_fingerprint
    from mtl.data.task_data import TaskData, load_data

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "batches": ["Passes", "cut", "eval_order", "train_order"],
        "encoded": ["Encoded", "encode", "token_limit", "tokenizer_fingerprint"],
        "task_data": ["TaskData", "load_data"],
    },
)
