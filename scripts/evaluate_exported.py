"""Score an exported adapter with stock ``adapters`` and scikit-learn: nothing of ``mtl`` in it.

    python scripts/evaluate_exported.py FOLDER --model BASE --rows validation.parquet
        --columns sentence1 sentence2 --metric accuracy

FOLDER is what ``python -m mtl.export ENTRY FOLDER --to adapters`` wrote, BASE the Hub name or
folder of the entry's base, the rows a parquet, CSV or JSON-lines file with text columns and
``label``.
"""

from __future__ import annotations

import argparse
import json
import sys

import adapters
import pandas
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import AutoTokenizer

METRICS = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews": matthews_corrcoef,
    "pearson": lambda label, value: pearsonr(label, value).statistic,
}


def read_rows(path: str, limit: int) -> pandas.DataFrame:
    readers = {"parquet": pandas.read_parquet, "csv": pandas.read_csv}
    suffix = path.rpartition(".")[2]
    read = readers.get(suffix, lambda name: pandas.read_json(name, lines=True))
    rows = read(path)
    return rows.head(limit) if limit else rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", required=True)
    parser.add_argument("--columns", nargs="+", required=True)
    parser.add_argument("--metric", choices=METRICS, default="accuracy")
    parser.add_argument("--limit", type=int, default=0, help="only the first rows")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--safetensors", action="store_true", help="instead of the .bin files")
    options = parser.parse_args()

    rows = read_rows(options.rows, options.limit)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = adapters.AutoAdapterModel.from_pretrained(options.model)
    model.load_adapter(options.folder, set_active=True, use_safetensors=options.safetensors)
    model.eval()
    found = []
    for start in range(0, len(rows), 32):
        part = rows.iloc[start : start + 32]
        texts = [part[column].tolist() for column in options.columns]
        batch = tokenizer(
            *texts,
            padding=True,
            truncation="longest_first" if len(texts) == 2 else True,
            max_length=options.max_length,
            return_tensors="pt",
        )
        logits = model(**batch).logits
        found += (logits.argmax(-1) if logits.shape[-1] > 1 else logits[:, 0]).tolist()
    score = float(METRICS[options.metric](rows["label"], found))
    assert "mtl" not in sys.modules
    print(json.dumps({"folder": options.folder, options.metric: score, "n": len(rows)}))


if __name__ == "__main__":
    main()
