"""``mtl.load_many``: rows of many entries in one pass of one encoder, answered as one by one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import mtl, rows_of, write_spans

import mtl as face
from mtl.errors import RequestError
from mtl.zoo import open_zoo

SHORT = ["--epochs", "1", "--max-steps", "3"]


@pytest.fixture(scope="module")
def made(
    trained: Path,
    suite_folder: Path,
    tiny: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A zoo with entries of every form; do not change it."""
    root = tmp_path_factory.mktemp("many")
    shutil.copytree(trained, root / "zoo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MTL_TASKS", str(suite_folder))
        patch.setenv("MTL_CACHE", str(root / "cache"))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        places = ["--zoo", root / "zoo", "--runs", root / "runs"]

        def make(command: str, *words: object) -> None:
            said = mtl(command, *words, *SHORT, *places)
            assert said.code == 0, said

        for method in ("scalearn", "scalearn-uniform++", "fusion", "gated"):
            make("compose", "--target", "same", "--sources", "all", "--method", method)
        stirred = ["--method", "soup", "--set", "weights=0.5,0.3,0.2"]
        make("compose", "--target", "same", "--sources", "same,mood,shared", *stirred)
        make("compose", "--target", "mood", "--sources", "all", "--method", "scalearn")
        make("compose", "--target", "shared", "--sources", "mood", "--without-own")
        train = ["train", "--suite", "mini", "--task"]
        make(*train, "same", "--method", "houlsby", "parallel", "adakron", "bitfit", "prefix")
        make(*train, "mood", "--method", "pfeiffer", "--seeds", 3, "--set", "bottleneck=5")
        make(*train, "same", "mood", "--method", "lora", "--head", "mean")
        make(*train, "shared", "--method", "sora", "--set", "modules=q,v,output")
        make("compose", "--target", "same", "--sources", "same:lora", "mood:lora")
        make("joint", "--suite", "mini", "--method", "adapter-m")
        held, pair = ["--base-precision", "bf16"], ["mood:pfeiffer/seed7", "same:pfeiffer/seed0"]
        make(*train, "mood", "--method", "pfeiffer", "lora", "--seeds", 7, *held)
        make("compose", "--target", "mood", "--sources", *pair, "--seeds", 7, *held)
    return root / "zoo"


@pytest.fixture
def many(made: Path, mini: Path, suite_folder: Path) -> face.Models:
    """All entries of ``made``, loaded side by side."""
    return face.load_many(open_zoo(made).entries())


ALONE = {"fusion", "adakron", "bitfit", "prefix", "adapter-m"}


def asked(models: face.Models, suite: Path, count: int) -> dict[str, list[dict[str, Any]]]:
    """For every entry ``count`` rows of its task, drawn."""
    rng = np.random.default_rng(0)
    found = {}
    for ref, entry in models.entries.items():
        if entry.manifest.kind != "joint":
            rows = rows_of(suite, str(entry.manifest.task["id"]).rpartition("/")[2])
            found[ref] = [rows[i] for i in rng.choice(len(rows), count, replace=False)]
    return found


def test_mixed_answers_are_those_of_each_entry_alone(
    many: face.Models, made: Path, suite_folder: Path
) -> None:
    inputs = asked(many, suite_folder, 5)
    together = many.predict(inputs, scores=True)
    assert len(together) >= 17
    for ref, rows in inputs.items():
        alone = face.load(many.entries[ref], zoo=made).predict(rows, scores=True)
        np.testing.assert_allclose(together[ref].raw, alone.raw, atol=1e-5, err_msg=ref)
        assert together[ref].labels == pytest.approx(alone.labels, abs=1e-5)


def test_who_is_answered_alone_and_why_is_said(
    made: Path, mini: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = face.load_many(open_zoo(made).entries())
    reasons = {models.entries[ref].manifest.method: why for ref, why in models.alone.items()}
    assert set(reasons) == ALONE
    assert reasons["fusion"] == "fusion weighs its sources anew for every token"
    assert reasons["bitfit"] == "bitfit changes weights of the base itself"
    assert "no activation of one linear map" in reasons["adakron"]
    assert f"{len(ALONE)} of {len(models.entries)} entries answered one by one" in caplog.text
    (joint,) = [ref for ref in models.alone if "adapter-m" in ref]
    found = models.predict({joint: ["every cat is happy today"]}, task="mini/mood")
    assert found == {
        joint: face.load(joint, zoo=made).predict(["every cat is happy today"], task="mini/mood")
    }


def test_a_mixed_batch_is_one_forward_pass(many: face.Models, suite_folder: Path) -> None:
    inputs = {
        ref: rows for ref, rows in asked(many, suite_folder, 2).items() if ref not in many.alone
    }
    held = [ref for ref in inputs if many.entries[ref].manifest.run_settings.get("base_precision")]
    assert len(held) == 3
    assert len(inputs) >= 16
    passes: list[int] = []
    for mixed in many._mixed.values():
        mixed.encoder.register_forward_hook(
            lambda module, args, kwargs, output: passes.append(len(kwargs["input_ids"])),
            with_kwargs=True,
        )
    many.predict(inputs)
    assert passes == [2 * (len(inputs) - len(held)), 2 * len(held)]
    many.remove(held[0])
    assert set(many._mixed) == {"fp32", "bf16"}
    for ref in held[1:]:
        many.remove(ref)
    assert set(many._mixed) == {"fp32"}  # nobody needs the other encoder any more


def test_order_of_rows_and_entries_does_not_matter(many: face.Models, suite_folder: Path) -> None:
    inputs = {
        ref: rows for ref, rows in asked(many, suite_folder, 3).items() if ref not in many.alone
    }
    whole = many.predict(inputs, scores=True)
    turned = many.predict({ref: inputs[ref][::-1] for ref in reversed(inputs)}, scores=True)
    for ref in inputs:
        np.testing.assert_allclose(turned[ref].raw[::-1], whole[ref].raw, atol=1e-5)


def test_sources_lie_in_memory_once(many: face.Models) -> None:
    groups = many._mixed["fp32"].groups.values()
    pools = {id(group.pool): group.pool for group in groups}.values()
    pfeiffer = [
        pool
        for pool in pools
        if any(
            len(s.sites) and "output_adapter" in site
            for s, _ in pool.sources.values()
            for site in s.sites
        )
    ]
    users = sorted(n for pool in pfeiffer for _, n in pool.sources.values())
    # three adapters, four compositions of all three, one of one of them; each is itself, too
    assert users[-3:] == [5, 5, 6]
    for pool in pools:
        for source, _ in pool.sources.values():
            for site, (down, *_) in source.sites.items():
                whole = pool.stacks[site][0]
                assert down.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()


def test_entries_come_and_go(many: face.Models, made: Path, suite_folder: Path) -> None:
    inputs = asked(many, suite_folder, 3)
    before, whole = many.predict(inputs, scores=True), many.bytes
    refs = list(inputs)
    for ref in refs[::2]:
        many.remove(ref)
    left = {ref: inputs[ref] for ref in refs[1::2]}
    for ref, answers in many.predict(left, scores=True).items():
        np.testing.assert_allclose(answers.raw, before[ref].raw, atol=1e-5)
    assert many.bytes < whole
    with pytest.raises(RequestError, match="There is no entry"):
        many.predict({refs[0]: inputs[refs[0]]})
    many.add(refs[::2])
    for ref, answers in many.predict(inputs, scores=True).items():
        np.testing.assert_allclose(answers.raw, before[ref].raw, atol=1e-5)
    assert many.bytes == pytest.approx(whole, rel=0.01)


def test_names_are_those_given_or_last_parts(made: Path, mini: Path) -> None:
    models = face.load_many(["mood/scalearn/seed0", "shared/scalearn/seed0"], zoo=made)
    rows = [("the cat sees a tree", "some cat")]
    found = models.predict({"shared/scalearn/seed0": rows, "mood/scalearn/seed0": ["no cat"]})
    assert list(found) == ["shared/scalearn/seed0", "mood/scalearn/seed0"]
    assert found["mood/scalearn/seed0"][0] in {"sad", "happy"}
    assert models.predict({"shared/scalearn/seed0": rows}).keys() == {"shared/scalearn/seed0"}
    with pytest.raises(RequestError, match="Did you mean 'mood/scalearn/seed0'"):
        models.predict({"mood/scalern/seed0": rows})
    with pytest.raises(RequestError, match="ambiguous"):
        models.predict({"seed0": rows})
    with pytest.raises(RequestError, match="takes a list of entries"):
        face.load_many("same/scalearn/seed0", zoo=made)
    with pytest.raises(RequestError, match="no entry to load"):
        face.load_many([], zoo=made)


def test_the_base_stays_as_it_is(
    many: face.Models, suite_folder: Path, tiny: Callable[[str], str]
) -> None:
    """Of all entries, those that change its tensors too, on copies of their own."""
    from transformers import AutoModel

    many.predict(asked(many, suite_folder, 1))
    pristine = many._shared.pristine
    stored = AutoModel.from_pretrained(tiny("roberta")).state_dict()
    for name, value in pristine.state_dict().items():
        if not name.startswith("pooler."):
            assert torch.equal(value, stored[name]), name
    own = {id(parameter) for parameter in pristine.parameters()}
    held = {id(parameter) for parameter in many._mixed["fp32"].encoder.parameters()}
    assert len(own & held) == len(own)  # one encoder in memory


def test_another_base_is_answered_alone(
    made: Path,
    mini: Path,
    tiny: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    both, rows = tmp_path / "both", ["every cat is happy today"]
    shutil.copytree(made, both)
    words = ["--suite", "mini", "--task", "mood", "--model", tiny("deberta-v2"), *SHORT]
    assert mtl("train", *words, "--zoo", both).code == 0
    entries = open_zoo(both).entries(task="mini/mood", method="pfeiffer", kind="adapter", seed=0)
    with pytest.raises(RequestError, match="they differ in"):  # MTL_MODEL is the base of all
        face.load_many(entries, model=tiny("roberta"))
    bases = {entry.ref: entry.manifest.base["type"] for entry in entries}
    monkeypatch.setattr(
        "mtl.predict.many.base_of", lambda entry, model: tiny(entry.manifest.base["type"])
    )
    models = face.load_many(entries)
    first = bases[entries[0].ref]
    assert set(models.alone) == {ref for ref, base in bases.items() if base != first}
    assert all("another one than that of the others" in why for why in models.alone.values())
    found = models.predict(dict.fromkeys(bases, rows), scores=True)
    for ref, base in bases.items():
        alone = face.load(ref, zoo=both, model=tiny(base)).predict(rows, scores=True)
        np.testing.assert_allclose(found[ref].raw, alone.raw, atol=1e-5)


def test_choices_spans_and_texts_share_a_pass(mini: Path, tmp_path: Path) -> None:
    lines = [
        {"text": f"every {a}", "one": f"some {a}", "two": f"no {b}", "label": i % 2}
        for i, (a, b) in enumerate([("cat", "dog"), ("bird", "cat")] * 8)
    ]
    for split in ("train", "dev", "test"):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"pick_{split}.jsonl").write_text(text)
    (tmp_path / "pick.yaml").write_text(
        "id: mini/pick\ndata: {files: {train: pick_train.jsonl, dev: pick_dev.jsonl, "
        "test: pick_test.jsonl}}\n"
        "kind: multiple_choice\ninputs: ['{text}', '{one}', '{two}']\nlabels: ['one', 'two']\n"
        "metrics: [accuracy]\nmax_length: 32\n"
    )
    for file in (write_spans(tmp_path), tmp_path / "pick.yaml"):
        said = mtl("train", "--task", file, "--recipe", "none", "--max-steps", 2, "--lr", "1e-3")
        assert said.code == 0, said
    assert mtl("train", "--suite", "mini", "--task", "mood", *SHORT).code == 0
    entries = open_zoo(mini).entries()
    models = face.load_many(entries)
    assert models.alone == {}
    rows = {
        "mini/pick": lines[:3],
        "mini/mood": ["every cat is sad", "no dog sees the old river and a small green apple"],
        "mini/spans": [{"q": "who", "c": "the cat sees a dog and " * 6}, {"q": "a", "c": "a dog"}],
    }
    inputs = {entry.ref: rows[str(entry.manifest.task["id"])] for entry in entries}
    passes: list[int] = []
    models._mixed["fp32"].encoder.register_forward_hook(lambda *given: passes.append(1))
    found = models.predict(inputs, scores=True)
    assert len(passes) == 1
    for entry in entries:
        alone = face.load(entry).predict(inputs[entry.ref], scores=True)
        assert found[entry.ref].labels == alone.labels
        np.testing.assert_allclose(found[entry.ref].scores, alone.scores, atol=1e-5)


def test_deberta_answers_low_rank_ones_alone(
    mini: Path, tiny: Callable[[str], str], suite_folder: Path
) -> None:
    """Its q and k also project relative positions, once for a batch: rows cannot differ there."""
    words = ["--suite", "mini", "--model", tiny("deberta-v2"), *SHORT]
    assert mtl("train", *words, "--task", "mood", "same", "--method", "pfeiffer", "lora").code == 0
    pair = ["--sources", "mood:pfeiffer", "same:pfeiffer"]
    made = mtl("compose", "--target", "mood", *pair, *words)
    assert made.code == 0, made
    models = face.load_many(open_zoo(mini).entries(), model=tiny("deberta-v2"))
    assert {models.entries[ref].manifest.method for ref in models.alone} == {"lora"}
    assert all("relative positions" in why for why in models.alone.values())
    inputs = asked(models, suite_folder, 4)
    assert len(inputs) == 5
    passes: list[int] = []
    models._mixed["fp32"].encoder.register_forward_hook(lambda *given: passes.append(1))
    together = models.predict(inputs, scores=True)
    assert len(passes) == 1
    for ref, rows in inputs.items():
        alone = face.load(ref, zoo=mini, model=tiny("deberta-v2")).predict(rows, scores=True)
        np.testing.assert_allclose(together[ref].raw, alone.raw, atol=1e-5, err_msg=ref)
