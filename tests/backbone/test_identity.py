"""A base is a function: what in its files makes it another one, and what does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl.backbone import load_backbone
from mtl.backbone.identity import base_differences, same_base

Change = Callable[[dict[str, Any]], Any]


def changed(source: str, target: Path, file: str = "config.json", **values: Any) -> Any:
    """The base of a copy of ``source`` with other values in one of its files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **values}))
    return load_backbone(str(target)).base


DECIDING = {
    "num_attention_heads": 2,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "layer_norm_eps": 1e-3,
    "pad_token_id": 0,
    "a_key_that_nobody_knows": 1,
}


@pytest.mark.parametrize("key", DECIDING)
def test_the_same_weights_with_another_config_are_another_base(
    key: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    base = load_backbone(tiny("roberta")).base
    other = changed(tiny("roberta"), tmp_path / "other", **{key: DECIDING[key]})
    assert other.weights == base.weights
    assert other.fingerprint != base.fingerprint
    (said,) = base_differences(base.to_dict(), other.to_dict())
    assert said.startswith(f"{key} ")
    assert said.endswith(repr(DECIDING[key])) or "its default" in said
    assert not same_base(base.to_dict(), other.to_dict())


def test_relative_attention_decides(tiny: Callable[[str], str], tmp_path: Path) -> None:
    base = load_backbone(tiny("deberta-v2")).base
    other = changed(tiny("deberta-v2"), tmp_path / "other", pos_att_type=["c2p"])
    (said,) = base_differences(base.to_dict(), other.to_dict())
    assert said == "pos_att_type ['p2c', 'c2p'] and ['c2p']"


def test_what_decides_nothing_makes_no_other_base(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    base = load_backbone(tiny("roberta")).base
    other = changed(
        tiny("roberta"),
        tmp_path / "other",
        name="mine",
        version=3,
        architectures=["RobertaForMaskedLM"],
        torch_dtype="float16",
        transformers_version="4.1.0",
        id2label={"0": "no", "1": "yes", "2": "perhaps"},
        label2id={"no": 0, "yes": 1, "perhaps": 2},
        classifier_dropout=0.2,
        num_beams=4,
        use_cache=False,
        position_embedding_type="absolute",  # spelled or not, it is the default
    )
    assert other.fingerprint == base.fingerprint
    assert same_base(base.to_dict(), other.to_dict())


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "tokenizer "),
        ("tokenizer_config.json", {"truncation_side": "left"}, "tokenizer.truncation_side "),
        (
            "tokenizer_config.json",
            {"model_input_names": ["input_ids", "attention_mask"]},
            "tokenizer.token_type_ids ",
        ),
    ],
)
def test_the_tokenizer_is_part_of_the_base(
    file: str, values: Any, said: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    base = load_backbone(tiny("bert")).base
    other = changed(tiny("bert"), tmp_path / "other", file, **values)
    assert (other.weights, other.fingerprint == base.fingerprint) == (base.weights, False)
    (found,) = base_differences(base.to_dict(), other.to_dict())
    assert found.startswith(said)


def test_an_older_entry_is_compared_by_what_it_knows(tiny: Callable[[str], str]) -> None:
    base = load_backbone(tiny("roberta")).base.to_dict()
    known = ("id", "revision", "type", "hidden_size", "layers", "tokenizer")
    old = {**{key: base[key] for key in known}, "fingerprint": base["weights"]}
    assert same_base(old, base)
    assert same_base({**old, "tokenizer": None}, base)
    assert base_differences({**old, "fingerprint": "ab" * 32}, base) == [
        f"weights abababab and {base['weights'][:8]}"
    ]
    assert not same_base({**old, "tokenizer": "cd" * 32}, base)
    assert not same_base({**old, "layers": 3}, base)
