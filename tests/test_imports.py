"""The order of the rooms, read from the imports; and that help costs no heavy import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl.cli.main import COMMANDS

PACKAGE = Path(__file__).parents[1] / "mtl"
ROOMS = (
    *("tasks", "data", "backbone", "checks", "zoo", "engine", "methods", "hub", "report", "graph"),
    *("runs", "train", "compose", "joint", "export", "predict", "serve", "face", "search", "study"),
    *("bench", "cli"),
)
ROOT = {
    "mtl",
    "registry",
    "errors",
    "files",
    "lazy",
    "limits",
    "remembered",
    "threads",
    "typed",
    "untrusted",
    "words",
    "fitting",
}
UPWARD = {("runs", "loading.py"): {"mtl.compose.stored", "mtl.joint.training"}}
"""The one switchboard: what loads an entry of a kind is named there, and imported when one is."""
HEAVY = ("torch", "transformers", "datasets", "matplotlib", "pandas", "adapters", "sklearn")


def room_of(module: str) -> str:
    """``mtl.tasks.spec`` → ``tasks``; the modules at the root are one room, the lowest."""
    parts = module.split(".")
    return "mtl" if len(parts) == 1 or parts[1] in ROOT else parts[1]


def imports(path: Path, package: Path = PACKAGE) -> Iterator[tuple[int, str]]:
    """Every import in a file, wherever it stands (functions, ``TYPE_CHECKING``, strings)."""
    relative = path.relative_to(package.parent).with_suffix("")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ".".join(relative.parts[: -node.level])
                yield node.lineno, f"{base}.{node.module}" if node.module else base
            else:
                yield node.lineno, node.module or ""
                if node.module == "mtl":  # `from mtl import tasks` names a room, too
                    yield from ((node.lineno, f"mtl.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Lazy targets of registries: "mtl.room.module:attribute".
            module, colon, attribute = node.value.partition(":")
            parts = module.split(".")
            if colon and parts[0] == "mtl" and attribute.isidentifier():
                yield node.lineno, module


def wrong_imports(package: Path) -> list[str]:
    found = []
    for path in sorted(package.rglob("*.py")):
        if path.name == "__main__.py":  # two lines that call mtl.cli
            continue
        if path == package / "__init__.py":  # the face: names alone, imported when used
            continue
        own = room_of(".".join(path.relative_to(package.parent).with_suffix("").parts))
        if own == "cli":
            continue
        height = ROOMS.index(own) if own in ROOMS else -1
        for line, module in imports(path, package):
            if module.split(".")[0] != "mtl":
                continue
            other = room_of(module)
            if other == "mtl" or other == own:
                continue
            if module in UPWARD.get((own, path.name), ()):
                continue
            if other not in ROOMS:
                # `from mtl import __version__`: a name, no room
                if not (package / other).is_dir() and not (package / f"{other}.py").is_file():
                    continue
                found.append(f"{path.name}:{line} imports {module}, which is in no room")
            elif ROOMS.index(other) > height or (own, other) == ("joint", "compose"):
                found.append(f"mtl/{own}/{path.name}:{line} imports {module}")
    return found


def test_a_room_imports_only_rooms_above_it() -> None:
    assert wrong_imports(PACKAGE) == []


def at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for rest in node.orelse:
                yield rest
                yield from at_run_time(rest)
        else:
            yield node
            yield from at_run_time(node)


def edges(package: Path) -> dict[str, set[str]]:
    """File → files that it imports at run time, in functions, too; names of rooms resolved.

    What is named by a string (registries, ``later``) is looked up by name, and no import here.
    """
    trees = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): ast.parse(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
    }
    homes: dict[str, str] = {}  # public name of a room → the module that holds it
    for room, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "exports":
                for module, names in ast.literal_eval(node.args[1]).items():
                    homes |= {f"{room}.{name}": f"{room}.{module}" for name in names}
    found: dict[str, set[str]] = {}
    for own, tree in trees.items():
        wanted: set[str] = set()
        for node in at_run_time(tree):
            if isinstance(node, ast.Import):
                wanted |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{own}: a relative import"
                for alias in node.names:
                    target = f"{node.module}.{alias.name}"
                    while target in homes:  # mtl.train_adapter → mtl.face → mtl.face.making
                        target = f"{homes[target]}.{alias.name}"
                    wanted.add(target if target in trees else target.rpartition(".")[0])
        found[own] = (wanted & trees.keys()) - {own}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    import networkx

    whole = networkx.DiGraph([(own, other) for own, others in graph.items() for other in others])
    found = networkx.strongly_connected_components(whole)
    return sorted(sorted(part) for part in found if len(part) > 1)


def test_no_circle_between_files() -> None:
    assert circles(edges(PACKAGE)) == []


def test_the_reader_finds_circles(tmp_path: Path) -> None:
    root = tmp_path / "mtl"
    (root / "one").mkdir(parents=True)
    (root / "two").mkdir()
    (root / "__init__.py").write_text("")
    (root / "two" / "__init__.py").write_text("")
    (root / "one" / "__init__.py").write_text("exports(__name__, {'first': ['first']})")
    (root / "one" / "first.py").write_text("def f():\n    from mtl.two import second")
    (root / "two" / "second.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from mtl.one import first"
    )
    assert circles(edges(root)) == []
    (root / "two" / "second.py").write_text("from mtl.one import first")
    assert circles(edges(root)) == [["mtl.one.first", "mtl.two.second"]]


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_every_folder_is_a_room_of_the_table() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders <= set(ROOMS)
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert files <= ROOT


@pytest.mark.parametrize(
    ("room", "text"),
    [
        ("tasks", "import mtl.engine"),
        ("backbone", "def f():\n    from mtl.methods import attach"),
        ("zoo", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mtl.train"),
        ("methods", "from mtl import compose"),
        ("engine", "from ..cli import main"),
        ("joint", "from mtl.compose.bank import Bank"),
        ("tasks", "add('x', 'mtl.runs.running:execute')"),
    ],
)
def test_the_reader_finds_wrong_imports(room: str, text: str, tmp_path: Path) -> None:
    for name in (*ROOMS, room):
        (tmp_path / "mtl" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "mtl" / room / "bad.py").write_text(text)
    assert len(set(wrong_imports(tmp_path / "mtl"))) == 1
    (tmp_path / "mtl" / room / "bad.py").write_text("import torch\nfrom mtl.errors import unknown")
    assert wrong_imports(tmp_path / "mtl") == []


def test_entry_modules_are_two_lines() -> None:
    for path in PACKAGE.glob("*/__main__.py"):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert lines == [
            "from mtl.cli.main import module_entry",
            f'module_entry("{path.parent.name}")',
        ]


def existing() -> list[str]:
    """Commands whose module is there: rooms are built one after the other."""
    names = {name: target.partition(":")[0] for name, (target, _) in COMMANDS.items()}
    return [name for name, module in names.items() if importlib.util.find_spec(module)]


PROBE = """
import sys
from mtl.cli.main import dispatch
try:
    code = dispatch({command!r}, {argv!r})
except SystemExit as ended:
    code = ended.code
print("HEAVY", code, [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.mark.parametrize("command", existing())
def test_help_imports_nothing_heavy(command: str) -> None:
    code = PROBE.format(command=command, argv=["--help"], heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY 0 []", done.stdout[-500:]
    assert f"mtl.{command}" in done.stdout or f"mtl {command}" in done.stdout


def test_python_m_and_the_console_script_are_the_same_door() -> None:
    command = existing()[0]
    outputs = []
    for argv in (
        ["-m", f"mtl.{command}"],
        ["-m", "mtl", command],
        ["-c", "from mtl.cli.main import entry; entry()", command],
    ):
        done = subprocess.run(
            [sys.executable, *argv, "--help"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


ROOMS_THERE = [path.parent.name for path in sorted(PACKAGE.glob("*/__init__.py"))]


def test_importing_the_rooms_imports_nothing_heavy() -> None:
    code = (
        f"import sys, importlib\nfor room in {ROOMS_THERE!r}:\n"
        "    importlib.import_module(f'mtl.{room}')\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not heavy, (room, heavy)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.parametrize("room", ROOMS_THERE)
def test_the_public_names_of_a_room_exist(room: str) -> None:
    module = importlib.import_module(f"mtl.{room}")
    for name in getattr(module, "__all__", []):
        getattr(module, name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
