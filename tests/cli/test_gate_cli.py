"""``--gate COLUMN``: from the rows of a file to an entry, its answers, and an adapter per group."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import ANIMALS, THINGS, digests, entries, mtl, refused

import mtl as face
from mtl.backbone import load_backbone
from mtl.compose.sites import site_keys
from mtl.compose.stored import load_composition
from mtl.errors import RequestError
from mtl.runs import open_workspace
from mtl.runs.loading import data_of_entry
from mtl.zoo import open_zoo
from mtl.zoo.composition import GATES

USED = [(a, u) for a in ANIMALS for u in ("ann", "bob")]
LINE = ["--target", "asked", "--sources", "same", "mood", "--without-own", "--epochs", "4"]
GATED = [*LINE, "--gate", "user"]


def write_task(folder: Path) -> None:
    """``mini/asked``: what counts as a yes depends on the user, and the text does not say it."""
    rng = random.Random(5)
    for split, n in {"train": 64, "dev": 24, "test": 32}.items():
        rows = []
        for number in range(n):
            good, one, user = rng.random() < 0.5, rng.choice(ANIMALS), number % 4
            text = f"every {one} is {'happy' if good else 'sad'} today {rng.choice(THINGS)}"
            name = ["ann", "ann", "bob", 7][user]
            answer = "yes" if good == (name != "bob") else "no"
            rows.append({"text": text, "user": str(name), "label": answer})
        if split == "test":
            rows[0]["user"], rows[1]["user"] = "zoe", ""
        lines = "".join(f"{row['text']},{row['user']},{row['label']}\n" for row in rows)
        (folder / f"asked_{split}.csv").write_text(f"text,user,label\n{lines}")
    (folder / "asked.yaml").write_text(
        "# python -m mtl.tasks check mini/asked\nid: mini/asked\n"
        "data: {files: {train: asked_train.csv, dev: asked_dev.csv, test: asked_test.csv}}\n"
        'kind: classification\ninputs: ["{text}"]\nlabels: [no, yes]\nmetrics: [accuracy]\n'
        "max_length: 32\n"
    )


@pytest.fixture(scope="module")
def composed(
    trained: Path, suite_folder: Path, tiny: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the suite and, in ``zoo``, a gated composition; do not change it."""
    root = tmp_path_factory.mktemp("gated")
    shutil.copytree(suite_folder, root / "mini")
    shutil.copytree(trained, root / "zoo")
    write_task(root / "mini")
    suite = root / "mini" / "suite.yaml"
    suite.write_text(suite.read_text().replace("mini/shared]", "mini/shared, mini/asked]"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("TASKS", root / "mini"), ("CACHE", root / "c"), ("RUNS", root / "r")):
            patch.setenv(f"MTL_{name}", str(value))
        patch.setenv("MTL_MODEL", tiny("roberta"))
        patch.setenv("MTL_ZOO", str(root / "zoo"))
        said = mtl("compose", *GATED, "--set", "gate_rate=20", "--json")
        assert said.code == 0, said
    return root


@pytest.fixture
def gated(composed: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The zoo of the test, with the gated composition in it."""
    shutil.copytree(composed / "zoo", tmp_path / "zoo")
    monkeypatch.setenv("MTL_TASKS", str(composed / "mini"))
    monkeypatch.setenv("MTL_MODEL", tiny("roberta"))
    monkeypatch.setenv("MTL_ZOO", str(tmp_path / "zoo"))
    return tmp_path / "zoo"


def entry_of(zoo: Path) -> Any:
    (entry,) = open_zoo(zoo).entries(kind="composition")
    return entry


def test_it_is_stored_with_its_groups_and_verifies(gated: Path) -> None:
    from safetensors.numpy import load_file

    entry = entry_of(gated)
    settings = entry.manifest.method_settings
    assert settings["gate"] == "user"
    assert json.loads(settings["groups"]) == {"7": 16, "ann": 32, "bob": 16}
    tensors = load_file(entry.folder / "composition.safetensors")
    assert tensors[GATES].shape == (3, 2)
    assert np.abs(tensors[GATES] - 1).max() > 1e-3
    assert entry.manifest.verified["max_logit_difference"] == 0.0
    said = mtl("zoo", "verify", entry.ref, "--json")
    assert said.code == 0, said
    assert mtl("zoo", "fsck").code == 0
    for command in (
        ["zoo", "show", entry.ref, "--measure"],
        ["graph", "attribute", entry.ref],
        ["report", "--suite", "mini"],
    ):
        assert mtl(*command).code == 0


def test_what_a_source_adds_is_what_its_rows_gates_let_through(gated: Path, tiny: Any) -> None:
    """``zoo show --measure``, by hand: one dev row after the other."""
    entry, workspace = entry_of(gated), open_workspace()
    said = mtl("zoo", "show", entry.ref, "--measure", "--json")
    assert said.code == 0, said
    backbone = load_backbone(tiny("roberta"))
    loaded = load_composition(entry, workspace.zoo, backbone)
    assert loaded.composed is not None
    groups, rows = loaded.composed.groups, backbone.encode(data_of_entry(entry, workspace), "dev")
    assert groups is not None
    assert (groups.gates - 1).abs().max() > 0.02
    shares: dict[str, list[torch.Tensor]] = {}
    for key, site in site_keys(loaded.network.encoder).items():

        def hook(module: Any, inputs: Any, output: Any, key: str = key) -> None:
            features, added = module.bank.features(inputs[0]), []
            for source, omega in enumerate(module.omega):
                own = module.bank.owner == source
                plain = features[..., own] @ module.bank.up[own] + module.bank.bias[source]
                added.append(groups.rows[0, source] * omega * plain)
            assert torch.allclose(sum(added), output, atol=1e-5)
            norms = torch.stack([value.norm(dim=-1) for value in added], -1)
            shares.setdefault(key, []).append((norms / norms.sum(-1, keepdim=True))[0])

        site.register_forward_hook(hook)
    with torch.no_grad():
        for row in range(len(rows)):
            loaded.network({**rows.collate(np.array([row])), "task": entry.manifest.task["id"]})
    wanted = np.stack([torch.cat(found).mean(0).numpy() for found in shares.values()], 1)
    np.testing.assert_allclose(said.json["measured"]["mixture"], wanted, atol=1e-5)


def test_the_usual_rate_is_recorded_so_that_another_one_is_another_run(gated: Path) -> None:
    usual, same, old = (
        mtl("compose", *GATED, *more, "--dry-run", "--json").json["runs"][0]["ref"]
        for more in ([], ["--set", "gate_rate=10"], ["--set", "gate_rate=1"])
    )
    assert usual == same != old


def test_the_same_line_is_done_and_another_column_another_run(gated: Path) -> None:
    before = digests(gated)
    again = mtl("compose", *GATED, "--set", "gate_rate=20")
    assert again.code == 0
    assert "skipped" in again.out
    plain = mtl("compose", *LINE, "--json")
    assert plain.code == 0
    settings = [e.manifest.method_settings for e in open_zoo(gated).entries(kind="composition")]
    assert len(settings) == 2
    without = next(s for s in settings if "gate" not in s)
    assert not {"gate_std", "gate_rate", "groups", "grouping"} & without.keys()
    assert before.items() <= digests(gated).items()


def test_other_users_of_the_same_rows_are_other_data(
    gated: Path, composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(composed / "mini", tmp_path / "other")
    file = tmp_path / "other" / "asked_test.csv"
    file.write_text(file.read_text().replace(",bob,", ",ann,"))
    monkeypatch.setenv("MTL_TASKS", str(tmp_path / "other"))
    refused(mtl("zoo", "verify", entry_of(gated).ref), "other values in the column 'user'")
    plan = mtl("compose", *GATED, "--set", "gate_rate=20", "--dry-run", "--json")
    assert [row["state"] for row in plan.json["runs"]] == ["missing"]


def test_new_rows_are_answered_by_group(gated: Path, tmp_path: Path, caplog: Any) -> None:
    model = face.load(entry_of(gated))
    texts = ["every cat is happy today tree", "every dog is sad today door"]

    def logits(users: list[Any]) -> Any:
        rows = [{"text": t, "user": u} for t, u in zip(texts, users, strict=True)]
        return model.predict(rows, scores=True).scores

    assert np.abs(logits(["ann"] * 2) - logits(["bob"] * 2)).max() > 1e-6
    assert not caplog.text
    pooled = logits(["never seen"] * 2)
    np.testing.assert_array_equal(pooled, logits([None, None]))
    assert "2 of 2 rows have no value in 'user' that training knew" in caplog.text
    # a number is its group, however the rows hold it
    np.testing.assert_array_equal(logits([7, 7]), logits(["7", "7"]))
    np.testing.assert_array_equal(logits([7.0, 7.0]), logits(["7", "7"]))
    mixed = logits(["ann", "never seen"])
    np.testing.assert_allclose(mixed[0], logits(["ann"] * 2)[0], atol=1e-5)
    np.testing.assert_allclose(mixed[1], pooled[1], atol=1e-5)
    with pytest.raises(RequestError, match="the gate goes by the column 'user'"):
        model.predict(texts)


def test_gated_entries_share_passes_with_others(
    gated: Path, composed: Path, tmp_path: Path, monkeypatch: Any, caplog: Any
) -> None:
    """Bottlenecks, low-rank products and choices, each row with the gates of its group."""
    suite = tmp_path / "mini"
    shutil.copytree(composed / "mini", suite)
    head = "text,one,two,user,label\n"
    lines = [f"every {a},some {a},no {a},{u},{i % 2}" for i, (a, u) in enumerate(USED * 4)]
    for split in ("train", "dev", "test"):
        (suite / f"pick_{split}.csv").write_text(head + "\n".join(lines) + "\n")
    (suite / "pick.yaml").write_text(
        "id: mini/pick\ndata: {files: {train: pick_train.csv, dev: pick_dev.csv, "
        "test: pick_test.csv}}\nkind: multiple_choice\ninputs: ['{text}', '{one}', '{two}']\n"
        "labels: ['one', 'two']\nmetrics: [accuracy]\nmax_length: 32\n"
    )
    listed = suite / "suite.yaml"
    listed.write_text(listed.read_text().replace("mini/asked]", "mini/asked, mini/pick]"))
    monkeypatch.setenv("MTL_TASKS", str(suite))
    rate = ["--gate", "user", "--set", "gate_rate=500"]
    train = ["train", "--suite", "mini", "--task", "same", "mood", "--method", "lora"]
    sources = ["--sources", "same:lora", "mood:lora"]
    for line in (
        [*train, "--epochs", "1"],
        ["compose", *LINE[:2], *sources, "--without-own", "--epochs", "2", *rate],
        ["compose", "--target", "pick", *LINE[2:], *rate],
        ["compose", "--target", "asked", *LINE[2:]],
    ):
        said = mtl(*line)
        assert said.code == 0, said
    models = face.load_many(open_zoo(gated).entries())
    assert models.alone == {}
    rng = random.Random(1)
    users = ["ann", "bob", "7", None, "never seen"]
    inputs: dict[str, list[Any]] = {}
    for ref, entry in models.entries.items():
        task, words = str(entry.manifest.task["id"]), rng.choices(ANIMALS, k=5)
        if task in {"mini/same", "mini/shared"}:
            inputs[ref] = [(f"every {a}", f"some {words[0]}") for a in words]
            continue
        inputs[ref] = [
            {"text": f"every {a} is sad", "one": f"no {a}", "two": f"{a}s", "user": user}
            for a, user in zip(words, users, strict=True)
        ]
    passes: list[int] = []
    models._mixed["fp32"].encoder.register_forward_hook(lambda *given: passes.append(1))
    found = models.predict(inputs, scores=True)
    assert len(passes) == 1
    assert caplog.text.count(" of 5 rows have no value in 'user' that training knew") == 3
    gates = [
        entry for entry in models.entries.values() if entry.manifest.method_settings.get("gate")
    ]
    assert len(gates) == 3
    for ref, entry in models.entries.items():
        alone = face.load(entry).predict(inputs[ref], scores=True)
        np.testing.assert_allclose(found[ref].raw, alone.raw, atol=2e-6, err_msg=ref)
        one = models.predict({ref: inputs[ref]}, scores=True)[ref]  # rows of one entry alone
        np.testing.assert_allclose(one.raw, alone.raw, atol=2e-6, err_msg=ref)
        if entry in gates:  # and the groups do differ
            pooled = [{**row, "user": None} for row in inputs[ref]]
            assert (
                np.abs(models.predict({ref: pooled}, scores=True)[ref].raw - one.raw).max() > 1e-5
            )


def test_a_file_says_how_many_rows_were_pooled(gated: Path, composed: Path, tmp_path: Path) -> None:
    ref, source = entry_of(gated).ref, composed / "mini" / "asked_test.csv"
    said = mtl("predict", ref, "--input", source, "--output", tmp_path / "answers.csv")
    assert said.code == 0, said
    assert "note: 2 of 32 rows have no value in 'user' that training knew" in said.out
    rows = (tmp_path / "answers.csv").read_text().splitlines()
    stored = face.load(ref).evaluate()["accuracy"]["value"]
    right = [line.split(",")[2] == line.split(",")[3] for line in rows[1:]]
    assert sum(right) / len(right) == pytest.approx(stored)
    (tmp_path / "bad.csv").write_text("text,usr\nevery cat is sad,ann\n")
    refused(
        mtl("predict", ref, "--input", tmp_path / "bad.csv", "--output", tmp_path / "b.csv"),
        "column 'user'",
        "Did you mean 'usr'",
    )


def test_each_group_folds_into_an_adapter_of_its_own(gated: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    ref, up = entry_of(gated).ref, {}
    for group in ("ann", "bob", None):
        folder = tmp_path / str(group)
        which = ["--group", group] if group else []
        said = mtl("export", ref, folder, "--to", "adapters", "--evaluate", *which, "--json")
        assert said.code == 0, said
        record = said.json
        assert record["proof"]["max_logit_difference"] <= record["proof"]["limit"]
        assert record["gates"]["group"] == group
        up[group] = load_file(folder / "adapter.safetensors")
        card = (folder / "README.md").read_text()
        assert (f"its adapter for the group {group}" if group else "the pooled adapter") in card
        if group:  # the rows of the group in stock adapters are answered as the entry does
            model, data = face.load(ref), entry_rows(gated, group)
            answers = model.predict([{"text": t, "user": group} for t, _ in data])
            right = [answer == label for answer, (_, label) in zip(answers, data, strict=True)]
            assert record["scores"]["test"]["accuracy"] == pytest.approx(sum(right) / len(right))
    differ = [name for name in up["ann"] if (up["ann"][name] != up["bob"][name]).any()]
    assert differ
    assert all("adapter_up" in name for name in differ)
    refused(
        mtl("export", ref, tmp_path / "x", "--to", "adapters", "--group", "an"),
        "Did you mean 'ann'",
    )
    refused(
        mtl("export", "mood/pfeiffer/seed0", tmp_path / "x", "--to", "adapters", "--group", "ann"),
        "answers all rows alike",
    )


def entry_rows(zoo: Path, group: str) -> list[tuple[str, str]]:
    """Texts and labels of the group's test rows."""
    import os

    lines = (Path(os.environ["MTL_TASKS"]) / "asked_test.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return [(text, label) for text, user, label in rows if user == group]


def test_what_cannot_be_gated_is_refused(gated: Path) -> None:
    before = len(entries(gated))
    line = [*LINE, "--gate"]
    refused(mtl("compose", *line, "usr"), "column 'usr'", "Did you mean 'user'")
    refused(mtl("compose", *line, "label", "--method", "fusion"), "Unknown setting 'gate'")
    refused(mtl("compose", *line, "label"), "which is the answer")
    refused(mtl("compose", *line, "task"), "take --method gated")
    refused(mtl("compose", "--target", "asked", "--sources", "best", "--gate", "user"), "best")
    refused(mtl("compose", *line, "user", "--set", "groups=x"), "Leave groups out")
    refused(mtl("compose", *line, "user", "--set", "gate=text"), "names gate twice")
    assert len(entries(gated)) == before


def test_print_config_gives_the_same_run(gated: Path, tmp_path: Path) -> None:
    printed = mtl("compose", *GATED, "--set", "gate_rate=20", "--print-config")
    assert printed.code == 0, printed
    file = tmp_path / "run.yaml"
    file.write_text(printed.out)
    again = mtl("compose", "--config", file)
    assert again.code == 0, again
    assert "skipped" in again.out
    assert "gate" not in mtl("compose", *LINE, "--print-config").out


def test_whoever_shares_a_gated_entry_is_told_that_it_names_groups(
    gated: Path, tmp_path: Path
) -> None:
    ref = entry_of(gated).ref
    said = mtl("zoo", "pack", ref, tmp_path / "all.mtlzoo")
    assert said.code == 0, said
    notes = [line for line in said.err.splitlines() if line.startswith("note:")]
    assert len(notes) == 1  # none of its sources has groups
    assert ref in notes[0]
    assert "--gate user" in notes[0]
    assert "read" in notes[0]
