"""Errors and what the command line makes of them."""

from __future__ import annotations

import pytest

from mtl.cli.main import COMMANDS, run_main
from mtl.errors import MtlError, RequestError, RunError, ZooError, did_you_mean, unknown


def test_guesses() -> None:
    assert did_you_mean("Pfeifer", ["pfeiffer", "average"]) == " Did you mean 'pfeiffer'?"
    assert did_you_mean("rte", ["glue/rte", "glue/sst2"]) == " Did you mean 'glue/rte'?"
    assert did_you_mean("rte", ["glue/rte", "superglue/rte"]) in {"", " Did you mean 'glue/rte'?"}
    assert did_you_mean("zzz", ["pfeiffer"]) == ""
    assert did_you_mean("", ["a"]) == ""


def test_unknown_lists_what_is_known() -> None:
    said = str(unknown("method", "x", ["b", "a"], "Try a."))
    assert said == "Unknown method 'x'. Known: a, b. Try a."
    assert "none" in str(unknown("method", "x", []))
    many = str(unknown("task", "x", [f"t{i:03d}" for i in range(100)]))
    assert "t039" in many
    assert "t040" not in many


@pytest.mark.parametrize(
    ("error", "code"), [(RequestError, 2), (RunError, 1), (ZooError, 1), (MtlError, 1)]
)
def test_user_errors_are_one_message_and_an_exit_code(
    error: type[MtlError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: object) -> int:
        raise error("what, where, what to do")

    assert run_main(main, []) == code
    captured = capsys.readouterr()
    assert captured.err == "error: what, where, what to do\n"
    assert captured.out == ""
    with pytest.raises(error):
        run_main(main, ["--debug"])


def test_debug_is_not_an_argument_of_commands() -> None:
    seen: list[object] = []

    def main(argv: object) -> int:
        seen.append(argv)
        return 0

    assert run_main(main, ["a", "--debug", "b"]) == 0
    assert seen == [["a", "b"]]


def test_defects_keep_their_traceback_and_interrupts_do_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(argv: object) -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_main(broken, [])

    def stopped(argv: object) -> int:
        raise KeyboardInterrupt

    assert run_main(stopped, []) == 130
    assert "again" in capsys.readouterr().err


def test_commands_say_what_they_do() -> None:
    assert all(target.startswith("mtl.cli.") and text for target, text in COMMANDS.values())
