"""SciTail, SNLI and SICK over fixtures with the columns, types and file names of the Hub.

The files themselves are not on our machines; the columns and the layout are those of the Hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl.data import load_data
from mtl.errors import RequestError
from mtl.tasks import load_suite, load_task

SPLITS = ("train", "validation", "test")
CLASSES = ["entailment", "neutral", "contradiction"]


def write(root: Path, repo: str, folder: str, split: str, columns: dict[str, Any]) -> None:
    """As the repository has it, or, of one with a loading script, as the Hub converts it."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    name = f"{split}/0000" if folder == "default" else f"{split}-00000-of-00001"
    path = root / repo / folder / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    features = {"label": {"names": CLASSES, "_type": "ClassLabel"}}
    if table.schema.field("label").type == pa.int64():
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(info)
    parquet.write_table(table, path)


def readme(root: Path, repo: str, config: str, folder: str) -> None:
    """The front matter as these repositories have it."""
    lines = [f"  - split: {split}\n    path: {folder}/{split}-*" for split in SPLITS]
    text = f"---\nconfigs:\n- config_name: {config}\n  data_files:\n" + "\n".join(lines) + "\n---\n"
    (root / repo / "README.md").write_text(text)


def texts(name: str, split: str, rows: int) -> list[str]:
    return [f"{split} {name} {row}" for row in range(rows)]


def test_scitail(tmp_path: Path) -> None:
    for split in SPLITS:
        columns = {
            "premise": texts("premise", split, 12),
            "hypothesis": texts("hypothesis", split, 12),
            "label": ["entails", "neutral", "neutral"] * 4,
        }
        write(tmp_path, "allenai/scitail", "tsv_format", split, columns)
    readme(tmp_path, "allenai/scitail", "tsv_format", "tsv_format")
    data = load_data(load_task("nli/scitail"), data_root=tmp_path, protocol="official")
    assert dict(data.sizes) == {"train": 12, "dev": 12, "test": 12}
    assert data.splits["dev"].labels.tolist() == [1, 0, 0] * 4
    assert [t[5] for t in data.splits["test"].texts] == ["test premise 5", "test hypothesis 5"]


@pytest.mark.parametrize("declared", [True, False])
def test_snli_leaves_out_rows_without_agreement(tmp_path: Path, declared: bool) -> None:
    labels = [0, -1, 1, 2, -1, 0]
    for split in SPLITS:
        columns = {
            "premise": texts("premise", split, 6),
            "hypothesis": texts("hypothesis", split, 6),
            "label": np.array(labels),
        }
        write(tmp_path, "stanfordnlp/snli", "plain_text", split, columns)
    if declared:
        readme(tmp_path, "stanfordnlp/snli", "plain_text", "plain_text")
    data = load_data(load_task("nli/snli"), data_root=tmp_path, protocol="official")
    for split in data.splits.values():
        assert split.labels.tolist() == [0, 1, 2, 0]
        assert [text.split()[-1] for text in split.texts[1]] == ["0", "2", "3", "5"]
    # a label that is missing, not −1, is still a fault
    columns = {"premise": ["a"] * 3, "hypothesis": ["b"] * 3, "label": [0, None, -1]}
    write(tmp_path, "stanfordnlp/snli", "plain_text", "train", columns)
    with pytest.raises(RequestError, match=r"nli/snli.*there is no label"):
        load_data(load_task("nli/snli"), data_root=tmp_path, protocol="official")


def test_sick_and_its_relatedness(tmp_path: Path) -> None:
    import pyarrow as pa

    for split in SPLITS:
        columns: dict[str, Any] = {
            "id": [str(row) for row in range(9)],
            "sentence_A": texts("A", split, 9),
            "sentence_B": texts("B", split, 9),
            "label": np.arange(9) % 3,
            "relatedness_score": pa.array(np.linspace(1, 5, 9), pa.float32()),
            "entailment_AB": ["A_entails_B"] * 9,
            "entailment_BA": ["B_neutral_A"] * 9,
        }
        for name in ("sentence_A_original", "sentence_B_original"):
            columns[name] = texts(name, split, 9)
        for name in ("sentence_A_dataset", "sentence_B_dataset"):
            columns[name] = ["FLICKR"] * 9
        write(tmp_path, "RobZamp/sick", "default", split, columns)
    data = load_data(load_task("nli/sick"), data_root=tmp_path, protocol="official")
    assert data.splits["train"].labels.tolist() == [0, 1, 2] * 3
    assert [t[0] for t in data.splits["train"].texts] == ["train A 0", "train B 0"]
    data = load_data(load_task("nli/sick_relatedness"), data_root=tmp_path, protocol="official")
    assert data.splits["test"].labels.tolist() == np.linspace(1, 5, 9).tolist()
    assert data.splits["test"].labels.dtype == np.float32


def test_the_suite() -> None:
    suite = load_suite("nli")
    assert suite.protocol == "official"
    assert {load_task(task).suite for task in suite.tasks} == {"nli"}
    assert load_task("snli").id == "nli/snli"
    assert load_task("nli").id == "demo/nli"
