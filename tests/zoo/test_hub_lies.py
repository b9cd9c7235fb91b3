"""A Hub, or somebody on the way, that lies: what it answers, where it sends us, what it changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_bench import hub, proven
from loopback_hub import serving
from loopback_state import Hub
from zoo_bench import task

from mtl.cli.main import dispatch
from mtl.hub import parse_repo, pull, push
from mtl.zoo import Zoo, open_zoo

__all__ = ["hub"]  # the fixture
Answer = tuple[int, dict[str, str], bytes]
INFO, TREE = "GET /api/models/ada/zoo/revision", "GET /api/models/ada/zoo/tree"
MORE = "HEAD /ada/zoo/resolve"


@pytest.fixture
def there(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A Hub with a repository of one entry."""
    monkeypatch.chdir(tmp_path)
    mine = open_zoo(tmp_path / "mine")
    proven(mine)
    push(mine, [], parse_repo("ada/zoo"))
    return hub


def answers(hub: Hub, begin: str, edit: Callable[[Any], Any], **more: str) -> None:
    """Change the JSON that requests are answered with; ``more``: further headers."""

    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if request.startswith(begin) and status == 200:
            value = edit(json.loads(data))
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            headers = {**headers, **{key.replace("_", "-"): text for key, text in more.items()}}
        return status, headers, data

    hub.twist = twist


def row(**changes: Any) -> Callable[[Any], Any]:
    """Change the first file of a listing."""

    def edit(rows: Any) -> Any:
        first = next(item for item in rows if item["type"] == "file")
        first.update(changes)
        return rows

    return edit


REPOSITORY = "GET /api/models/ada/zoo"
LIES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "info: a list": (REPOSITORY, lambda value: []),
    "info: null": (REPOSITORY, lambda value: None),
    "info: text": (REPOSITORY, lambda value: "x"),
    "info: no JSON": (REPOSITORY, lambda value: b"<html>"),
    "info: no commit": (INFO, lambda value: {**value, "sha": None}),
    "info: commit outside": (INFO, lambda value: {**value, "sha": "../../../outside"}),
    "info: commit that clears the screen": (INFO, lambda value: {**value, "sha": "\x1b[2J\u202e"}),
    "info: siblings": (INFO, lambda value: {**value, "siblings": [1, "x", None]}),
    "tree: an object": (TREE, lambda value: {}),
    "tree: null": (TREE, lambda value: None),
    "tree: numbers": (TREE, lambda value: [1, 2]),
    "tree: no path": (TREE, lambda value: [{"type": "file", "size": 3, "oid": "0" * 40}]),
    "tree: path of another type": (TREE, row(path=["a"])),
    "tree: size of another type": (TREE, row(size="many", lfs=None)),
    "tree: negative size": (TREE, row(size=-1, lfs=None)),
    "tree: lfs of another type": (TREE, row(lfs="x")),
    "tree: lfs without hash": (TREE, row(lfs={"size": 3})),
    "tree: not finite": (TREE, lambda value: b'[{"type": "file", "path": "a", "size": NaN}]'),
    "tree: deep": (TREE, lambda value: b"[" * 100_000),
    "tree: an unknown type": (TREE, lambda value: [{"type": "device", "path": "a", "size": 1}]),
}


def pulled(zoo: Zoo, capsys: pytest.CaptureFixture[str]) -> str:
    """What a pull says that has to end in one message."""
    capsys.readouterr()
    code = dispatch("zoo", ["pull", "ada/zoo@main", "--zoo", str(zoo.root)])
    said = capsys.readouterr()
    assert code in {1, 2}, said
    assert said.err.startswith("error: ")
    assert said.err.count("\n") < 5
    assert not {"\x1b", "\u202e"} & {*said.err, *said.out}
    return said.err


@pytest.mark.parametrize("name", LIES)
def test_answers_that_make_no_sense(
    name: str, there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zoo = open_zoo(tmp_path / "zoo")
    kept = proven(zoo, task=task("kept"))
    outside = set(tmp_path.iterdir())
    answers(there, *LIES[name])
    if name == "info: siblings":  # nothing of ours reads them
        with pytest.MonkeyPatch.context():
            dispatch("zoo", ["pull", "ada/zoo@main", "--zoo", str(zoo.root)])
        return
    pulled(zoo, capsys)
    assert zoo.entries() == [kept]
    assert zoo.fsck() == []
    assert set(tmp_path.iterdir()) <= outside | {tmp_path / "hf"}


def test_a_listing_without_end(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from mtl.hub import remote

    monkeypatch.setattr(remote, "MAX_FILES", 200)
    url = f"{there.url}/api/models/ada/zoo/tree/main?cursor=0"
    answers(there, TREE, lambda value: value, Link=f'<{url}>; rel="next"')
    assert "more than 200 files and folders" in pulled(open_zoo(tmp_path / "zoo"), capsys)
    assert len(there.sent(r"/tree/")) < 220


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://[::1"])
@pytest.mark.parametrize("begin", [MORE, "GET /ada/zoo/resolve", TREE])
def test_sent_to_a_place_that_is_no_web_address(
    place: str, begin: str, there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if request.startswith(begin):
            return 302, {**headers, "Location": place}, b""
        return status, headers, data

    there.twist = twist
    zoo = open_zoo(tmp_path / "zoo")
    pulled(zoo, capsys)
    assert zoo.entries() == []


def test_another_host_gets_no_token(there: Hub, tmp_path: Path) -> None:
    """Large files lie elsewhere: whoever serves them learns nothing, and what is wrong is seen."""
    with serving() as other:
        other.objects.update(there.objects)
        there.tokens.clear()

        def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
            if "Location" in headers:
                place = headers["Location"].replace(there.url, other.url)
                place = place.replace("127.0.0.1", "localhost")
                headers = {**headers, "Location": place}
            return status, headers, data

        there.twist = twist
        zoo = open_zoo(tmp_path / "zoo")
        assert len(pull(zoo, parse_repo("ada/zoo")).entries) == 1
        assert other.log
        assert set(other.tokens) == {""}
        assert "Bearer hf_ada" in there.tokens
    assert zoo.fsck() == []


def test_a_repository_that_changes_after_it_was_listed(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit does not change; who changes it all the same is found out by hashes."""
    files = there.files("ada/zoo")

    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if request.startswith(TREE):
            there.twist = lambda *answer: answer[1:]
            name = "adapter_config.json"
            files[name] = files[name].replace(b"config", b"gifnoc")
        return status, headers, data

    there.twist = twist
    zoo = open_zoo(tmp_path / "zoo")
    assert "not what the Hub lists" in pulled(zoo, capsys)
    assert zoo.entries() == []


def test_a_branch_that_moves_on_between_listing_and_download(there: Hub, tmp_path: Path) -> None:
    """What was listed is pulled: files are asked for by the commit that was listed."""
    mine = open_zoo(tmp_path / "mine")
    (entry,) = mine.entries()

    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if request.startswith(TREE):
            there.twist = lambda *answer: answer[1:]
            there.put("ada/zoo", {"manifest.json": b"{}", "adapter.safetensors": b"later"})
        return status, headers, data

    there.twist = twist
    zoo = open_zoo(tmp_path / "zoo")
    assert [item["digest"] for item in pull(zoo, parse_repo("ada/zoo")).entries] == [entry.digest]
    assert zoo.fsck() == []


def test_a_card_with_escape_sequences_is_not_printed(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = b"---\nlicense: \x1b[2Jmit\ntags: [\x1b]0;x\x07]\n---\n\x1b[31mowned\x1b[0m\n"
    there.put("ada/zoo", {"README.md": evil})
    zoo = open_zoo(tmp_path / "zoo")
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(zoo.root)]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    (entry,) = zoo.entries()
    assert "\x1b" not in (entry.folder / "README.md").read_text()


@pytest.mark.parametrize(
    "edit",
    [
        lambda ref: ref.replace("pfeiffer", "PFEIFFER"),
        lambda ref: f"{ref}/inside",
    ],
)
def test_an_index_whose_references_clash(
    edit: Callable[[str], str], there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = json.loads(there.files("ada/zoo")["mtl_zoo.json"])
    first = index["entries"]["."]
    index["entries"]["other"] = {**first, "ref": edit(first["ref"])}
    there.put("ada/zoo", {"mtl_zoo.json": json.dumps(index).encode()})
    assert "mtl_zoo.json" in pulled(open_zoo(tmp_path / "zoo"), capsys)


@pytest.mark.parametrize("name", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
@pytest.mark.parametrize("mark", ["../../../../evil", "/tmp/evil", "..", "a/../../../evil"])
def test_marks_that_lead_out_of_the_cache(
    name: str, mark: str, there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The client makes file names of an ETag, and folder names of a commit."""

    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if "/resolve/" in request and name in headers:
            headers = {**headers, name: mark if name == "X-Repo-Commit" else f'"{mark}"'}
        return status, headers, data

    there.twist = twist
    zoo = open_zoo(tmp_path / "zoo")
    assert name in pulled(zoo, capsys)
    assert zoo.entries() == []
    assert not list(tmp_path.rglob("evil*"))
    assert not (tmp_path.parent / "evil").exists()


def test_marks_of_other_answers_are_nobodys_names(there: Hub, tmp_path: Path) -> None:
    def twist(request: str, status: int, headers: dict[str, str], data: bytes) -> Answer:
        if "/api/" in request:
            headers = {**headers, "ETag": 'W/"5d3-x/Jk8+a=="'}
        return status, headers, data

    there.twist = twist
    assert dispatch("zoo", ["pull", "ada/zoo", "--zoo", str(tmp_path / "zoo")]) == 0
