"""What leaves a machine names nothing of it: no folder, no user, no host."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_bench import VERIFIED, hub, proven
from loopback_state import Hub
from zoo_bench import manifest, store, task

from mtl.backbone import load_backbone
from mtl.backbone.reference import resolve_model
from mtl.errors import RequestError
from mtl.hub import parse_repo, pull, push
from mtl.remembered import recall, remember
from mtl.zoo import open_zoo
from mtl.zoo.entry import again_text
from mtl.zoo.machine import machine_paths, portable_text, remember_command

__all__ = ["hub"]  # the fixture
REPO = parse_repo("ada/zoo")


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("python -m mtl.train --suite demo --seeds 0 1", None),
        ("python -m mtl.train --task glue/rte --model FacebookAI/roberta-base", None),
        (
            "python -m mtl.train --task /home/ada/x/foo.yaml,mini/mood --model /models/my-bert",
            "python -m mtl.train --task foo.yaml,mini/mood --model my-bert",
        ),
        (
            "python -m mtl.compose --zoo /srv/zoo --runs=../runs --data-root ~/data --graph g "
            "--target sub/foo.yml --set lr=1e-3",
            "python -m mtl.compose --data-root DATA_ROOT --target foo.yml --set lr=1e-3",
        ),
        (
            "python -m mtl.export same/scalearn ../out/dir --to adapters --model ./m",
            "python -m mtl.export same/scalearn dir --to adapters --model m",
        ),
        (
            "python -m mtl.compose --sources all /home/ada/my/nli.yaml:pfeiffer/seed0-ab12 "
            "my/sick.yaml:lora mini/mood:pfeiffer/seed1",
            "python -m mtl.compose --sources all nli.yaml:pfeiffer/seed0-ab12 sick.yaml:lora "
            "mini/mood:pfeiffer/seed1",
        ),
        ("python -m mtl.train --model /srv/bert/model", "python -m mtl.train --model bert"),
        ("python -m mtl.train --model /home/ada/model", "python -m mtl.train --model model"),
        (r"python -m mtl.train --model 'C:\models\bert' '--config=\\srv\share\c.yaml'",
         "python -m mtl.train --model bert --config=c.yaml"),
        ("python -m mtl.train --model 'unclosed", None),
    ],
)  # fmt: skip
def test_a_command_line_without_its_places(typed: str, kept: str | None) -> None:
    assert portable_text(typed) == (kept or typed)
    assert portable_text(portable_text(typed)) == (kept or typed)


def test_a_model_folder_is_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    typed = "python -m mtl.train --model models/mine --task glue/rte"
    assert portable_text(typed) == "python -m mtl.train --model mine --task glue/rte"


def test_a_folder_called_model_is_named_by_the_one_above(
    make_tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny(tmp_path / "minilm" / "model", "bert")
    base = load_backbone(str(folder)).base
    assert base.id == "minilm"
    assert base.slug.startswith("minilm-")
    monkeypatch.chdir(folder.parent)
    typed = "python -m mtl.train --model model --task glue/rte"
    assert portable_text(typed) == "python -m mtl.train --model minilm --task glue/rte"
    monkeypatch.setenv("HOME", str(tmp_path / "minilm"))  # whose it is, is nobody's business
    assert resolve_model(str(folder)).id == "model"


def test_an_entry_of_before_is_pushed_without_its_command(hub: Hub, tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    entry = proven(zoo, command="python -m mtl.train --task /home/ada/foo.yaml --zoo /home/ada/z")
    push(zoo, [entry.ref], REPO)
    sent = b"\n".join(hub.files("ada/zoo").values())
    assert b"/home/ada" not in sent
    assert b"python -m mtl.train --task foo.yaml" in sent
    pull(open_zoo(tmp_path / "other"), REPO)
    (again,) = open_zoo(tmp_path / "other").entries()
    assert again.digest == entry.digest
    assert push(zoo, [entry.ref], REPO).files == 0


def test_paths_under_a_digest_are_refused_and_named(hub: Hub, tmp_path: Path) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    files = {"train": "/home/ada/secret/train.csv", "test": "test.csv"}
    described = {**task("mine"), "spec": {"id": "mine", "data": {"files": files}}}
    entry = store(zoo, manifest(verified=VERIFIED, task=described), 1.0)
    assert machine_paths(entry.manifest) == ["/home/ada/secret/train.csv"]
    with pytest.raises(RequestError, match=r"/home/ada/secret/train\.csv\n.*--with-paths"):
        push(zoo, [entry.ref], REPO)
    assert not hub.repos
    push(zoo, [entry.ref], REPO, with_paths=True)
    assert b"/home/ada/secret" in hub.files("ada/zoo")["manifest.json"]


def test_what_to_type_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    entry = proven(zoo, command="python -m mtl.train --task foo.yaml --seeds 0")
    assert "your own path of foo.yaml" in again_text(entry)
    typed = "python -m mtl.train --task ../foo.yaml --seeds 0"
    remember_command(entry.manifest.runhash, typed)
    assert again_text(entry) == f"make it again: {typed}"
    here = os.getcwd()
    monkeypatch.chdir(tmp_path)
    assert again_text(entry) == f"make it again: cd {here} && {typed}"


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("")
    remember("tasks", "key", {"a": 1})
    assert recall("tasks", "key") is None
    monkeypatch.setenv("MTL_CACHE", str(tmp_path / "cache"))
    remember("tasks", "key", {"a": 1})
    assert recall("tasks", "key") == {"key": "key", "a": 1}
    assert recall("commands", "key") is None
