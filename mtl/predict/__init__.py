"""Answering new rows with a stored entry: from Python, as :class:`Model`."""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.predict.answers import Answers
    from mtl.predict.many import Models, open_models
    from mtl.predict.model import Model, open_model
    from mtl.predict.tables import to_table

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "answers": ["Answers"],
        "many": ["Models", "open_models"],
        "model": ["Model", "open_model"],
        "tables": ["to_table"],
    },
)
