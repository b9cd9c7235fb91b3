"""Every command line that the documentation shows is one that the parsers take."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from mtl.cli.main import COMMANDS, dispatch
from mtl.cli.options import Parser
from mtl.compose import COMPOSITIONS
from mtl.errors import RequestError
from mtl.joint import JOINT
from mtl.methods import METHODS
from mtl.tasks.suites import list_suites

ROOT = Path(__file__).parents[2]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
)
METHOD_NAMES = {*METHODS, *COMPOSITIONS, *JOINT, "all"}


def command_lines(text: str) -> list[str]:
    """``python -m mtl.…`` in code blocks, one a line, and between backticks, wrapped or not.

    What leaves something out (``…``) is prose, not a command line.
    """
    text = text.replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += [line.strip() for line in text.splitlines() if line.startswith("    python -m mtl.")]
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    bare = [line.partition(" #")[0] for line in lines]
    return [line for line in bare if re.match(r"python -m mtl\.\w", line) and "…" not in line]


class Parsed(Exception):  # noqa: N818  (no error: the command got past its parser)
    def __init__(self, options: Any = None):
        self.options = options


@pytest.fixture
def only_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parser, "parse_args", stop_after(Parser.parse_args))

    def opened(*_: object) -> None:  # `mtl.zoo` looks at what its parser left over, then does this
        raise Parsed

    monkeypatch.setattr("mtl.zoo.open_zoo", opened)
    monkeypatch.setenv("MTL_DEBUG", "1")  # errors are raised, not printed


def stop_after(parse: Any) -> Any:
    def stopping(*arguments: Any, **options: Any) -> None:
        raise Parsed(parse(*arguments, **options))

    return stopping


def check(line: str) -> None:
    """Raise if the command, an option, a value's type or a named method or suite is not there."""
    _, _, module, *argv = shlex.split(line)
    command = module.removeprefix("mtl.")
    assert command in COMMANDS, f"no command {module}"
    with pytest.raises(Parsed) as caught:
        dispatch(command, argv)
    for name, known in (("method", METHOD_NAMES), ("suite", set(list_suites()))):
        given = getattr(caught.value.options, name, None)
        for value in [given] if isinstance(given, str) else given or []:
            if not value.isupper():  # NAME stands for any
                assert value in known, f"no {name} {value!r}"


@pytest.mark.usefixtures("only_parse")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_of_the_documents_parse(document: str) -> None:
    for line in command_lines((ROOT / document).read_text(encoding="utf-8")):
        try:
            check(line)
        except (RequestError, AssertionError) as error:
            pytest.fail(f"{document}: `{line}`: {error}")


def test_the_reader_finds_the_commands() -> None:
    text = (
        "Say `python -m mtl.zoo\n ls` or `python -m mtl.zoo rm …`.\n```bash\n"
        "python -m mtl.train --suite demo \\\n    --seeds 0   # one\nscripts/test.sh\n```\n"
        "    python -m mtl.tasks ls\n"
    )
    assert command_lines(text) == [
        "python -m mtl.train --suite demo      --seeds 0  ",
        "python -m mtl.tasks ls",
        "python -m mtl.zoo ls",
    ]
    assert len(command_lines((ROOT / "README.md").read_text(encoding="utf-8"))) > 40


@pytest.mark.usefixtures("only_parse")
@pytest.mark.parametrize(
    "line",
    [
        "python -m mtl.train --suite demo --made-up 3",
        "python -m mtl.train --suite demo --seeds one",
        "python -m mtl.train --suite demo --method nothing",
        "python -m mtl.train --suite nowhere",
        "python -m mtl.compose --sources all",
        "python -m mtl.zoo ls --made-up",
        "python -m mtl.zoo made-up",
        "python -m mtl.graph suggest --target entail --made-up",
        "python -m mtl.graph made-up",
        "python -m mtl.methods count --made-up",
        "python -m mtl.made",
    ],
)
def test_a_made_up_command_line_is_found(line: str) -> None:
    with pytest.raises((RequestError, AssertionError)):
        check(line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_and_pages_that_the_documents_name_are_there(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    names = set(re.findall(r"\b(?:scripts|benchmarks)/\w+\.(?:sh|py)\b", text))
    names |= set(re.findall(r"\bmtl/[\w/]+\.py\b", text)) | set(
        re.findall(r"\btests/[\w/]+\.py\b", text)
    )
    missing = [name for name in sorted(names) if not (ROOT / name).is_file()]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    missing += [link for link in links if not (ROOT / document).parent.joinpath(link).is_file()]
    assert missing == []


def test_one_line_of_the_readme_makes_the_entry_that_others_name() -> None:
    """A reader who types every line is never told that ``entail/scalearn/seed0`` is ambiguous."""
    lines = command_lines((ROOT / "README.md").read_text(encoding="utf-8"))
    named = {found for line in lines for found in re.findall(r"\b(\w+)/([a-z+-]+)/seed\d", line)}
    assert ("entail", "scalearn") in named
    for target, method in named:
        makers = [
            line
            for line in lines
            if (
                line.startswith("python -m mtl.compose")
                and "--probe" not in line
                and "--control" not in line
                and f"--target {target}" in line
                and (re.findall(r"--method (\S+)", line) or ["scalearn"]) == [method]
            )
            or (
                line.startswith("python -m mtl.train --suite demo --method")
                and "--seeds" not in line
                and (re.findall(r"--method (\S+)", line)) == [method]
            )
        ]
        assert len(makers) == 1, makers


def method_rows() -> dict[str, str]:
    """Method → the number that the README's tables give for it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows: dict[str, str] = {}
    for names, cells in re.findall(r"^\| ((?:`[\w+-]+`(?:, )?)+) \|(.*)$", text, re.M):
        numbers = re.findall(r"\d[\d,]*\d|\d", cells.split("|")[1])
        rows |= dict(zip(re.findall(r"`([\w+-]+)`", names), numbers, strict=False))
    return rows


def test_the_readme_lists_every_method() -> None:
    assert set(method_rows()) == METHOD_NAMES - {"all"}


@pytest.mark.slow
def test_the_readme_gives_what_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["count", "--method", "all", "--model", "roberta-base", "--json"]
    assert dispatch("methods", argv) == 0
    counts = json.loads(capsys.readouterr().out)["methods"]
    assert len(counts) > 20
    rows = method_rows()
    for count in counts:
        assert rows[count["name"]] == f"{count['method']:,}", count["name"]
