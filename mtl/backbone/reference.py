"""What a user may write after ``--model``: ``demo``, a folder, or a Hub name with a revision."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import RequestError
from mtl.files import model_name, user_path

DEMO = "demo"
_HUB_NAME = re.compile(r"[A-Za-z0-9_.\-]+(/[A-Za-z0-9_.\-]+)?")


@dataclass(frozen=True)
class ModelReference:
    """A model as the user named it.

    Attributes:
        id: what provenance records: the Hub name, what the folder is called, or ``demo``.
        source: what ``from_pretrained`` takes: a folder or a Hub name.
        revision: Hub revision, or None.
        local: True when nothing will be fetched.
    """

    id: str
    source: str
    revision: str | None
    local: bool


def resolve_model(model: str) -> ModelReference:
    """Decide what ``model`` names.

    Raises:
        RequestError: a folder that does not exist or holds no ``config.json``, or no valid name.
    """
    if model == DEMO:
        return ModelReference(DEMO, str(Path(__file__).parent / "demo"), None, local=True)
    folder = user_path(model, "--model or MTL_MODEL")
    if model.strip() and folder.is_dir():  # Path("") is the current folder
        if not (folder / "config.json").is_file():
            raise RequestError(
                f"Cannot load a model from folder {model!r}: it holds no config.json. Give a "
                "folder written by save_pretrained, a Hub name, or 'demo'."
            )
        return ModelReference(model_name(str(folder.absolute())), str(folder), None, local=True)
    name, _, revision = model.partition("@")
    if model.startswith((".", "/", "~")) or os.sep * 2 in model or model.count("/") > 1:
        raise RequestError(f"Cannot load a model from {model!r}: there is no such folder.")
    if not _HUB_NAME.fullmatch(name):
        raise RequestError(
            f"{model!r} is neither a folder nor a Hub name like 'roberta-base' or "
            "'FacebookAI/roberta-base@revision'. 'demo' needs neither."
        )
    return ModelReference(name, name, revision or None, local=False)
