"""Task files are looked at once for a request, and again for the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtl.errors import RequestError
from mtl.tasks import list_tasks, load_suite, load_task, yamls
from mtl.tasks.looking import one_look

TASK = "id: own/{0}\ndata: {{repo: some/data}}\nkind: classification\ninputs: ['{{a}}']\n"


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A folder of tasks, and how often it was looked through."""
    monkeypatch.setenv("MTL_TASKS", str(tmp_path))
    for number in range(5):
        _add(tmp_path, f"t{number}")
    names = "".join(f"  - own/t{number}\n" for number in range(5))
    suite = f"name: own\ntasks:\n{names}model: demo\nrecipe: none\n"
    (tmp_path / "suite.yaml").write_text(suite)
    found: list[int] = []
    real = yamls._yaml_files

    def counted(folder: Path) -> object:
        found.append(1)
        return real(folder)

    monkeypatch.setattr(yamls, "_yaml_files", counted)
    return found


def _add(folder: Path, name: str) -> None:
    (folder / f"{name}.yaml").write_text(TASK.format(name) + "labels: [a, b]\nmetrics: [f1]\n")


def test_one_look_serves_many_questions(looks: list[int]) -> None:
    load_task("own/t0")
    one = len(looks)
    looks.clear()
    with one_look():
        for name in load_suite("own").tasks:
            load_task(name)
        with one_look():
            load_task("own/t0")
        list_tasks()
    assert len(looks) == 2  # the package's folder, and the user's
    assert one > len(looks)


def test_what_is_new_is_seen_after_it(looks: list[int], tmp_path: Path) -> None:
    with one_look():
        load_task("own/t0")
        _add(tmp_path, "later")
        with pytest.raises(RequestError, match="own/later"):
            load_task("own/later")
    assert load_task("own/later").id == "own/later"
