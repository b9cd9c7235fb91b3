"""What messages around the Hub recommend, against a Hub on loopback: see ``recommended.py``."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_bench import TARGET, mtl, refused
from hub_bench import composed, hub, proven
from loopback_state import Hub
from recommended import commands, follow, provoked, recommends
from zoo_bench import task

from mtl.zoo import Zoo, open_zoo

__all__ = ["hub"]  # the fixture
REPO = "ada/zoo"
LogIn = Callable[[str], None]


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    """The zoo of the test, that commands use by themselves; empty."""
    return open_zoo(tmp_path / "zoo")


@pytest.fixture
def other(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "other")


def done(*line: object) -> str:
    said = mtl(*map(str, line))
    assert said.code == 0, said
    return said.out


def refs(zoo: Zoo) -> set[str]:
    return {entry.ref for entry in zoo.entries()}


@recommends("hub/cards.py", "python -m mtl.zoo pull {} {}")
@recommends("hub/cards.py", "python -m mtl.zoo pull {}\n")
def test_cards_say_how_to_pull(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    whole, sources = composed(zoo)
    first = proven(zoo, task=task("apart"))
    done("zoo", "push", "--all", "--repo", REPO)
    cards = {path: text.decode() for path, text in hub.files(REPO).items() if "README" in path}
    of_all, of_one = cards["README.md"], cards[f"{whole.ref}/README.md"]
    into = ["--zoo", other.root]
    provoked(of_one, "hub/cards.py", "python -m mtl.zoo pull {} {}")
    assert follow(of_one, *into, which=1).code == 0
    assert refs(other) == {whole.ref, *(source.ref for source in sources)}
    for which, expected in ((0, refs(zoo)), (1, {first.ref})):
        shutil.rmtree(other.root)
        provoked(of_all, "hub/cards.py", "python -m mtl.zoo pull {}\n")
        assert follow(of_all, *into, which=which).code == 0
        assert refs(other) == expected


@recommends("hub/cards.py", "python -m mtl.zoo pull {} {}")
def test_the_card_of_a_branch_pulls_the_branch(hub: Hub, zoo: Zoo, other: Zoo) -> None:
    done("zoo", "push", proven(zoo).ref, "--repo", REPO)
    entry = proven(zoo, task=task("more"))
    done("zoo", "push", entry.ref, "--repo", REPO, "--revision", "next")
    card = hub.files(REPO, "next")[f"{entry.ref}/README.md"].decode()
    assert commands(card)[1] == ["mtl.zoo", "pull", f"{REPO}@next", entry.ref]
    assert follow(card, "--zoo", other.root, which=1).code == 0
    assert refs(other) == {entry.ref}


@recommends("hub/lockfile.py", "Push them first")
def test_a_lock_of_what_no_repository_holds(hub: Hub, zoo: Zoo, tmp_path: Path) -> None:
    first = proven(zoo)
    done("zoo", "push", first.ref, "--repo", REPO)
    proven(zoo, task=task("more"))
    line = ["lock", "--repo", REPO, "--file", tmp_path / "mtl.lock"]
    message = provoked(mtl("zoo", *line).err, "hub/lockfile.py", "Push them first")
    assert follow(message).code == 0
    done("zoo", *line)
    composed(zoo)
    branch = ["lock", "--repo", f"{REPO}@next", "--repo", REPO, "--file", tmp_path / "mtl.lock"]
    done("zoo", "push", first.ref, "--repo", REPO, "--revision", "next")
    message = provoked(mtl("zoo", *branch).err, "hub/lockfile.py", "Push them first")
    assert follow(message).code == 0
    done("zoo", *branch)
    refused(mtl("zoo", *line), "in none of")  # they went to the branch


@recommends("zoo/arrival.py", "the zoo holds the result of another run there")
@recommends("hub/pulling.py", "makes room")
def test_another_result_is_in_the_place(hub: Hub, zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    theirs = proven(other)
    done("zoo", "push", theirs.ref, "--repo", REPO, "--zoo", other.root)
    lock = tmp_path / "mtl.lock"
    done("zoo", "lock", "--repo", REPO, "--file", lock, "--zoo", other.root)
    for line, module, part in (
        (["pull", REPO], "zoo/arrival.py", "the zoo holds the result of another run there"),
        (["pull", "--lock", lock], "hub/pulling.py", "makes room"),
    ):
        ours = proven(zoo, 2.0, run_settings={"lr": 0.5})
        assert ours.digest != theirs.digest
        message = provoked(mtl("zoo", *line).err, module, part)
        assert follow(message).code == 0
        done("zoo", *line)
        assert zoo.get(theirs.ref).digest == theirs.digest
        done("zoo", "rm", theirs.ref)


@recommends("zoo/sharing.py", "which is not in the zoo")
def test_a_composition_whose_source_is_gone(hub: Hub, zoo: Zoo, tmp_path: Path) -> None:
    whole, sources = composed(zoo)
    done("zoo", "push", "--all", "--repo", REPO)
    shutil.rmtree(sources[1].folder)
    for line in (
        ["push", whole.ref, "--repo", "ada/elsewhere"],
        ["lock", "--file", tmp_path / "mtl.lock"],
    ):
        shutil.rmtree(sources[1].folder, ignore_errors=True)
        message = provoked(mtl("zoo", *line).err, "zoo/sharing.py", "which is not in the zoo")
        assert follow(message, **{"USER/NAME": REPO}).code == 0
        done("zoo", *line)


@recommends("zoo/card.py", "of whoever trained this")
def test_the_card_of_a_local_encoder_says_how_to_compare_it(
    hub: Hub, stocked: Path, other: Zoo, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    entry = open_zoo(stocked).get("mood/pfeiffer/seed0")
    done("zoo", "verify", entry.ref)
    done("zoo", "push", entry.ref, "--repo", REPO)
    card = provoked(hub.files(REPO)["README.md"].decode(), "zoo/card.py", "of whoever trained")
    into = ["--zoo", other.root]
    assert follow(card, *into, which=1).code == 0
    said = follow(card, *into, ENTRY=entry.ref, FOLDER=tiny("roberta"))
    assert said.code == 0, said
    wrong = follow(card, *into, ENTRY=entry.ref, FOLDER=tiny("bert"))
    refused(wrong, "trained on")


@pytest.fixture
def theirs(hub: Hub, tiny: Callable[[str], str], tmp_path: Path) -> str:
    """A repository with an adapter that stock ``adapters`` wrote."""
    import adapters

    model = adapters.AutoAdapterModel.from_pretrained(tiny("roberta"))
    model.add_adapter("moods", config=adapters.SeqBnConfig(reduction_factor=4))
    model.add_classification_head("moods", num_labels=2, id2label={0: "sad", 1: "happy"})
    folder = tmp_path / "stock"
    model.save_adapter(str(folder), "moods", with_head=True, use_safetensors=True)
    hub.put("ada/theirs", {path.name: path.read_bytes() for path in folder.iterdir()})
    return "ada/theirs"


@recommends("hub/pulling.py", "but an adapter of stock adapters")
def test_a_repository_of_stock_adapters(
    theirs: str, mini: Path, tiny: Callable[[str], str]
) -> None:
    message = mtl("zoo", "pull", theirs).err
    provoked(message, "hub/pulling.py", "but an adapter of stock adapters")
    said = follow(message, MODEL=tiny("roberta"))
    assert said.code == 0, said
    (entry,) = open_zoo(mini).entries()
    assert entry.manifest.method == "pfeiffer"


@recommends("backbone/model_files.py", "adapter on the Hub goes into a zoo with")
@pytest.mark.parametrize("merged", [False, True])
def test_an_adapter_in_the_place_of_a_model(
    merged: bool,
    theirs: str,
    hub: Hub,
    mini: Path,
    tiny: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Adapters alone have no config.json; some repositories hold a whole model beside them."""
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", False)
    if merged:
        hub.put(theirs, {path.name: path.read_bytes() for path in Path(tiny("roberta")).iterdir()})
    for name in (theirs, f"{theirs}@main"):
        there = mini.with_name("another")
        said = mtl("train", "--suite", "mini", "--model", name, "--zoo", there)
        refused(said, repr(theirs))
        part = "adapter on the Hub goes into a zoo with"
        message = provoked(said.err, "backbone/model_files.py", part)
        said = follow(message, MODEL=tiny("roberta"))
        assert said.code == 0, said
    assert len(open_zoo(there).entries()) == 1


def shell(*line: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program beside this Python, as a shell runs it."""
    program, *rest = map(str, line)
    return subprocess.run(
        [Path(sys.executable).with_name(program), *rest],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@recommends("hub/pushing.py", "python -m mtl.zoo verify {}")
def test_before_a_push(stocked: Path) -> None:
    zoo = open_zoo(stocked)
    entry = zoo.get("mood/pfeiffer/seed0")
    zoo.record_verified(entry, None)
    line = ["zoo", "push", entry.ref, "--repo", REPO]
    message = provoked(mtl(*line).err, "hub/pushing.py", "python -m mtl.zoo verify {}")
    assert follow(message).code == 0
    assert "only verified" not in mtl(*line).err


@recommends("compose/soup_text.py", "hf download")
def test_a_sentence_encoder_that_is_not_in_the_cache(
    hub: Hub,
    stocked: Path,
    tiny: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("transformers.utils.hub._is_offline_mode", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    line = ["--target", TARGET, "--method", "soup", "--max-steps", "1"]
    message = provoked(mtl("compose", *line).err, "compose/soup_text.py", "hf download")
    (words,) = re.findall(r"\((hf download [^)]*)\)", message)
    name = words.split()[-1]
    hub.put(name, {path.name: path.read_bytes() for path in Path(tiny("bert")).iterdir()})
    places = {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    fetched = shell(*words.split(), HF_HUB_DISABLE_XET="1", HF_HOME=str(tmp_path), **places)
    assert fetched.returncode == 0, fetched.stderr
    said = mtl("compose", *line)
    assert said.code == 0, said


@pytest.fixture
def log_in(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogIn:
    """``log_in(message)`` follows the advice of a message; nobody is logged in before."""
    monkeypatch.delenv("HF_TOKEN")
    token = tmp_path / "no token"  # where the client of the fixture looks

    def follow(message: str) -> None:
        assert re.search(
            r"(log in|log in once|a new one) with ['`]hf auth login['`]", message, re.I
        )
        places = {"HF_ENDPOINT": hub.url, "HF_TOKEN_PATH": str(token), "HF_HUB_OFFLINE": "0"}
        said = shell("hf", "auth", "login", "--token", "hf_ada", HF_HOME=str(tmp_path), **places)
        assert said.returncode == 0, said.stderr
        assert token.read_text() == "hf_ada"

    return follow


@recommends("hub/client.py", "there is no token. Log in")
@recommends("hub/client.py", "does not accept the token")
@recommends("hub/client.py", "it is private, and there is no token")
@pytest.mark.parametrize(
    ("token", "command", "part"),
    [
        ("", "push", "there is no token. Log in"),
        ("", "pull", "it is private, and there is no token"),
        ("hf_revoked", "push", "does not accept the token"),
    ],
)
def test_without_a_token_that_is_accepted(
    token: str, command: str, part: str, hub: Hub, zoo: Zoo, log_in: LogIn, tmp_path: Path
) -> None:
    entry = proven(zoo)
    line = ["push", entry.ref, "--repo", REPO] if command == "push" else ["pull", REPO]
    if command == "pull":
        hub.put(REPO, {path.name: path.read_bytes() for path in entry.folder.iterdir()}, True)
    if token:
        (tmp_path / "no token").write_text(token)
    log_in(provoked(mtl("zoo", *line).err, "hub/client.py", part))
    done("zoo", *line)


@recommends("data/origins.py", "it asks for consent")
@recommends("data/origins.py", "there is no such dataset")
@pytest.mark.parametrize("private", [False, True])
def test_a_dataset_that_is_not_for_everybody(
    private: bool, hub: Hub, log_in: LogIn, tmp_path: Path
) -> None:
    files = {"README.md": b"Rows.\n"}
    for split in ("train", "validation", "test"):
        rows = io.BytesIO()
        texts = [f"the {split} cat {number}" for number in range(20)]
        pq.write_table(pa.table({"text": texts, "label": [0, 1] * 10}), rows)
        files[f"data/{split}-00000-of-00001.parquet"] = rows.getvalue()
    hub.put("datasets/ada/rows", files, private)
    hub.repos["datasets/ada/rows"].gated = not private
    task = tmp_path / "task.yaml"
    task.write_text(
        "id: own/mine\ndata: {repo: ada/rows}\nkind: classification\n"
        'inputs: ["{text}"]\nlabels: [a, b]\nmetrics: [accuracy]\n'
    )
    said = mtl("tasks", "check", task)
    part = "there is no such dataset" if private else "it asks for consent"
    log_in(provoked(said.out + said.err, "data/origins.py", part))
    assert "nothing wrong" in done("tasks", "check", task)
