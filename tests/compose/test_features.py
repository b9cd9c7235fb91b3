"""The passes behind the scores, on a tiny encoder: what they compute, and that they are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from mtl.compose import features as module
from mtl.compose.features import Extractor, pick_rows, subset
from mtl.data import TaskData
from mtl.data.task_data import Split
from mtl.engine import open_device
from mtl.graph.scores import Unscorable
from mtl.runs import open_workspace
from mtl.tasks import TaskSpec

TEXTS = ["the cat sees a bird", "no dog", "every teacher likes the old house", "a red stone"]


def task(labels: Any, kind: str = "classification") -> TaskData:
    rows = len(labels)
    spec = TaskSpec(
        id="toy/look",
        data={"files": {"train": "x.csv"}},
        kind=kind,
        inputs=("{text}",),
        labels=("no", "yes") if kind == "classification" else (),
        metrics=("accuracy",) if kind == "classification" else ("pearson",),
        max_length=16,
    )
    texts = [TEXTS[row % 4] + " today" * (row // 4) for row in range(rows)]
    split = Split((texts,), np.asarray(labels))
    mark = f"{rows}-{kind}"
    return TaskData(spec, {"train": split}, "official", mark, {"train": mark}, {"train": rows})


@pytest.fixture
def extractor(backbone: Any, tmp_path: Path) -> Extractor:
    workspace = open_workspace(zoo=tmp_path / "zoo")
    return Extractor(backbone, workspace, open_device("fp32"))


def test_which_rows() -> None:
    assert pick_rows(5).tolist() == [0, 1, 2, 3, 4]
    few = pick_rows(5000, 2000)
    assert len(set(few.tolist())) == 2000
    assert (np.diff(few) > 0).all()
    assert few.max() > 4000  # not just the first ones
    np.testing.assert_array_equal(few, pick_rows(5000, 2000))
    data = task([0, 1] * 4)
    assert subset(data, 8).fingerprints == data.fingerprints
    cut = subset(data, 3)
    assert len(cut.splits["train"]) == 3
    assert cut.fingerprints != data.fingerprints


def test_vectors_are_those_of_the_plain_encoder(extractor: Extractor, backbone: Any) -> None:
    data = task([0, 1, 0, 1, 1, 0, 1, 0])
    view = extractor.view(data, {"first", "mean"})
    assert view.texts == data.splits["train"].texts[0]
    for row in (0, 5):  # one by one, without padding
        batch = backbone.tokenizer(view.texts[row], return_tensors="pt")
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        with torch.no_grad():
            states = backbone.pristine(**inputs).last_hidden_state[0].numpy()
        np.testing.assert_allclose(view.first[row], states[0], atol=1e-5)  # type: ignore[index]
        np.testing.assert_allclose(view.mean[row], states.mean(0), atol=1e-5)  # type: ignore[index]


def test_a_multiple_choice_is_judged_choice_by_choice(extractor: Extractor) -> None:
    """As the classification of every (context, choice) into right and wrong."""
    context = TEXTS[:3]
    first, second = ["a cat", "the old tree", "no"], ["some dog", "a bird", "every river"]
    plain = TaskSpec(
        id="toy/choose",
        data={"files": {"train": "x.csv"}},
        kind="multiple_choice",
        inputs=("{a}", "{b}", "{c}"),
        labels=("first", "second"),
        metrics=("accuracy",),
        max_length=16,
    )
    split = Split((context, first, second), np.array([0, 1, 1]))
    data = TaskData(plain, {"train": split}, "official", "m", {"train": "m"}, {"train": 3})
    pairs = replace(plain, kind="classification", inputs=("{a}", "{b}"), labels=("no", "yes"))
    each = [text for several in zip(first, second, strict=True) for text in several]
    twice = [text for text in context for _ in range(2)]
    right = Split((twice, each), np.array([1, 0, 0, 1, 0, 1]))
    same = TaskData(pairs, {"train": right}, "official", "p", {"train": "p"}, {"train": 6})

    needs = {"first", "mean", "fisher"}
    one, other = extractor.view(data, needs), extractor.view(same, needs)
    assert one.kind == other.kind == "classification"
    assert one.texts == other.texts
    np.testing.assert_array_equal(one.labels, other.labels)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.first, other.first, atol=1e-5)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-5)  # type: ignore[arg-type]
    assert one.fisher is not None
    assert other.fisher is not None
    for layer, value in one.fisher.items():
        np.testing.assert_allclose(value, other.fisher[layer], rtol=1e-3, atol=1e-9)


def test_a_cut_keeps_the_columns_of_its_rows() -> None:
    data = task([0, 1] * 4)
    table = {"order": np.arange(8), "name": list("abcdefgh")}
    data = replace(data, splits={"train": replace(data.splits["train"], table=table)})
    cut, rows = subset(data, 3).splits["train"], pick_rows(8, 3)
    np.testing.assert_array_equal(cut.table["order"], rows)
    assert cut.table["name"] == ["abcdefgh"[row] for row in rows]


def test_passes_are_kept_and_a_damaged_file_is_made_again(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = task([0, 1, 0, 1])
    first = extractor.base_vectors(subset(data))
    calls: list[int] = []
    real: Callable[..., Any] = Extractor._vectors

    def counted(self: Extractor, *rest: Any) -> Any:
        calls.append(1)
        return real(self, *rest)

    monkeypatch.setattr(Extractor, "_vectors", counted)
    again = extractor.base_vectors(subset(data))
    assert not calls
    np.testing.assert_array_equal(again["first"], first["first"])
    (path,) = (extractor.workspace.cache.parent / "features").rglob("*.safetensors")
    path.write_bytes(b"broken")
    np.testing.assert_array_equal(extractor.base_vectors(subset(data))["first"], first["first"])
    assert len(calls) == 1
    monkeypatch.setattr(module, "VERSION", 99)
    extractor.base_vectors(subset(data))
    assert len(calls) == 2
    replace(extractor, limit=2).base_vectors(subset(data, 2))
    assert len(calls) == 3


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_fisher_is_the_mean_of_squared_gradients_row_by_row(
    kind: str, extractor: Extractor, backbone: Any
) -> None:
    from mtl.compose.feature_head import fit_head, row_losses

    labels = [0, 1, 1, 0, 1] if kind == "classification" else [0.5, 1.0, -2.0, 3.0, 0.0]
    data = task(labels, kind)
    found = extractor.fisher(subset(data))
    assert sorted(found) == ["0", "1"]
    weight, bias = fit_head(
        extractor.base_vectors(subset(data))["first"], data.splits["train"].labels, kind
    )
    encoder = backbone.pristine  # the plain model, without our preparations
    wanted = {"0": 0.0, "1": 0.0}
    for text, label in zip(data.splits["train"].texts[0], labels, strict=True):
        batch = backbone.tokenizer(text, return_tensors="pt")
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        states = encoder(**inputs, output_hidden_states=True).hidden_states
        # the same forward, differentiated by torch from the last state downwards
        with torch.enable_grad():
            # every parameter of the plain model would collect gradients; only the states matter
            start = states[1].detach().requires_grad_()
            mask = encoder.get_extended_attention_mask(
                batch["attention_mask"], batch["input_ids"].shape
            )
            end = encoder.encoder.layer[1](start, mask)
            end = end[0] if isinstance(end, tuple) else end
            logits = end[:, 0] @ weight + bias
            loss = row_losses(kind, logits, torch.tensor([label])).sum()
            grads = torch.autograd.grad(loss, [start, end])
        for layer, grad in zip(("0", "1"), grads, strict=True):
            wanted[layer] = wanted[layer] + grad[0, 0].double().numpy() ** 2 / len(labels)
    for layer in wanted:
        np.testing.assert_allclose(found[layer], wanted[layer], rtol=2e-3, atol=1e-9)


def test_where_heads_read_the_mean_the_fisher_is_of_a_vector_added_to_all_tokens(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    from mtl.backbone import load_backbone
    from mtl.backbone.arch import tiny_config
    from mtl.compose.feature_head import fit_head, row_losses

    folder = tmp_path / "t5"
    words = load_backbone(tiny("roberta")).tokenizer
    torch.manual_seed(7)
    config = tiny_config("t5", vocab_size=len(words), pad_token_id=1)
    transformers.T5EncoderModel(config).save_pretrained(folder)
    words.save_pretrained(folder)
    backbone = load_backbone(str(folder))
    workspace = open_workspace(zoo=tmp_path / "zoo")
    look = Extractor(backbone, workspace, open_device("fp32"))
    labels = [0, 1, 1, 0, 1]
    data = task(labels)
    found = look.fisher(subset(data))
    vectors = look.base_vectors(subset(data))
    np.testing.assert_array_equal(vectors["first"], vectors["mean"])
    weight, bias = fit_head(vectors["first"], np.array(labels), "classification")
    wanted = [np.zeros(48), np.zeros(48)]
    for text, label in zip(data.splits["train"].texts[0], labels, strict=True):
        ids = backbone.tokenizer(text, return_tensors="pt")["input_ids"]
        added = torch.zeros(2, 48, requires_grad=True)
        first = backbone.pristine.encoder.block[0].register_forward_hook(
            lambda _, args, out, added=added: (out[0] + added[0], *out[1:])
        )
        last = backbone.pristine(input_ids=ids).last_hidden_state
        first.remove()
        logits = (last + added[1]).mean(1) @ weight + bias
        row_losses("classification", logits, torch.tensor([label])).sum().backward()
        assert added.grad is not None
        for layer in (0, 1):
            wanted[layer] += added.grad[layer].double().numpy() ** 2 / len(labels)
    for layer in (0, 1):
        assert wanted[layer].max() > 0
        np.testing.assert_allclose(found[str(layer)], wanted[layer], rtol=2e-3, atol=1e-12)


def test_a_task_with_one_class_has_no_fisher(extractor: Extractor) -> None:

    with pytest.raises(Unscorable, match="one class"):
        extractor.fisher(subset(task([1, 1, 1])))


def test_an_adapter_is_moved_before_its_maps_are_held(
    extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps that are made once for evaluation (ProPETL, tensorized) do not follow to a GPU."""
    from contextlib import contextmanager
    from types import SimpleNamespace

    from mtl.compose import features

    done: list[str] = []

    @contextmanager
    def evaluating() -> Any:
        done.append("held")
        yield

    network = SimpleNamespace(to=lambda device: done.append(f"moved to {device}"), encoder=None)
    attached = SimpleNamespace(network=network, evaluating=evaluating)
    monkeypatch.setattr(features, "load", lambda *_: SimpleNamespace(attached=attached))
    monkeypatch.setattr(Extractor, "_vectors", lambda *_: done.append("used") or {})
    extractor._with_adapter(None, None)  # type: ignore[arg-type]
    assert done == ["moved to cpu", "held", "used"]
