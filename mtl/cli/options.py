"""The option parser of every command; its complaints are one message, like every other error."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mtl.errors import RequestError, did_you_mean

ELSEWHERE = {
    "--learning-rate": "--lr",
    "--learning_rate": "--lr",
    "--num-epochs": "--epochs",
    "--num-train-epochs": "--epochs",
    "--num_train_epochs": "--epochs",
    "--train-batch-size": "--batch-size",
    "--per-device-train-batch-size": "--batch-size",
    "--per_device_train_batch_size": "--batch-size",
    "--max-seq-length": "--max-length",
    "--max_seq_length": "--max-length",
    "--model-name-or-path": "--model",
    "--model_name_or_path": "--model",
    "--seed": "--seeds",
    "--warmup-ratio": "--warmup",
    "--output-dir": "--zoo",
    "--tasks": "--task",
}
"""What other programs call options of ours."""
NOT_IN_FILES = {"help", "config", "print_config"}
"""Options that a ``--config`` file cannot have."""


class Several(argparse._StoreAction):
    """An option that takes several values, a run for each; in a file one may stand alone."""


class Parser(argparse.ArgumentParser):
    """Options; where there is a ``--config``, any of them may stand in the YAML file it names.

    Flags go over the file. No flag may be shortened: what is short today means two tomorrow.

    Attributes:
        from_file: option → its value in the file, of the last command line that was parsed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self.from_file: dict[str, Any] = {}

    def error(self, message: str) -> NoReturn:
        text = " ".join(message.split()).rstrip(".").removeprefix("argument ")
        lost = text.partition("unrecognized arguments: ")[2].split()
        end = self._hint(lost[0]) if lost else ""
        raise RequestError(
            f"{self.prog}: {text}.{end} See {self.prog.replace('mtl.', 'mtl ')} --help."
        )

    def _hint(self, word: str) -> str:
        """What may have been meant by a word that is no option, as a sentence with a space."""
        known = [flag for action in self._actions for flag in action.option_strings]
        flag = word.partition("=")[0]
        if not word.startswith("-"):
            option = next((name for name in ("--task", "--target") if name in known), None)
            return f" A task is named by {option}." if option else ""
        if ELSEWHERE.get(flag) in known:
            return f" Here it is {ELSEWHERE[flag]}."
        return did_you_mean(flag, known)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse does. Raises RequestError where that would print its usage and exit."""
        argv = [str(item) for item in args or []]
        self._refuse_repeats(argv)
        for place, item in enumerate(argv):
            if item == "--config" and place + 1 < len(argv):
                self._read(Path(argv[place + 1]))
            elif item.startswith("--config="):
                self._read(Path(item.partition("=")[2]))
        return super().parse_args(argv, namespace)

    def _refuse_repeats(self, argv: Sequence[str]) -> None:
        # The last one would win, and the values of the first be lost without a word.
        for action in self._actions:
            again = type(action).__name__ == "_ExtendAction"
            for flag in action.option_strings if action.nargs in {"+", "*"} and not again else ():
                if sum(item.split("=")[0] == flag for item in argv) > 1:
                    self.error(f"{flag} is given twice; write all values after one {flag}")

    def _read(self, path: Path) -> None:
        """Make what stands in a YAML file the defaults."""
        from mtl.files import user_path
        from mtl.tasks.yamls import check_keys, read_yaml

        content = read_yaml(user_path(path, "--config"))
        actions = {a.dest: a for a in self._actions if a.dest not in NOT_IN_FILES}
        check_keys(content, list(actions), (), str(path))
        for name, value in content.items():
            action = actions[name]
            if value is None:
                continue
            if isinstance(action, Several) and not isinstance(value, list):
                value = [value]
            if action.nargs in {"+", "*"} and not isinstance(value, list):
                shown = "key=value" if name == "set" else value
                raise RequestError(f"{path}: {name} must be a list: `{name}: [{shown}]`.")
            if isinstance(action, Several) and not value:
                raise RequestError(f"{path}: {name} is an empty list.")
            self.from_file[name] = self._converted(action, value)
            self.set_defaults(**{name: self.from_file[name]})
            action.required = False

    def _converted(self, action: argparse.Action, value: Any) -> Any:
        if action.nargs in {"+", "*"}:
            return [self._one(action, item) for item in value]
        if action.nargs == 0:  # a switch
            if not isinstance(value, bool):
                self.error(f"{action.option_strings[0]} takes true or false, not {value!r}")
            return value
        return self._one(action, value)

    def _one(self, action: argparse.Action, value: Any) -> Any:
        convert: Callable[[str], Any] = action.type or str  # type: ignore[assignment]
        try:
            return convert(str(value).lower() if isinstance(value, bool) else str(value))
        except argparse.ArgumentTypeError as error:
            self.error(f"{action.option_strings[0]}: {error}")
        except ValueError:
            what, flag = _SPOKEN.get(convert, "another value"), action.option_strings[0]
            several = isinstance(action, Several) and "," in str(value)
            hint = f"; several stand with spaces, as {flag} ONE OTHER" if several else ""
            self.error(f"{flag} takes {what}, not {value!r}{hint}")

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        if action.type in _SPOKEN:
            return self._one(action, arg_string)
        return super()._get_value(action, arg_string)  # type: ignore[misc]


def true_or_false(text: str) -> bool:
    """``true`` or ``false``. Raises ValueError."""
    found = {"true": True, "false": False}.get(text.lower())
    if found is None:
        raise ValueError(text)
    return found


def number_or_text(text: str) -> int | float | str:
    """A length: a number, or one with its unit (``5 epochs``), which its owner reads."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


_SPOKEN: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    true_or_false: "true or false",
}


def option_type(kind: Any) -> Callable[[str], Any]:
    """What reads a setting of a type from a command line."""
    if kind is bool:
        return true_or_false
    return kind if kind in (int, float, str) else number_or_text  # type: ignore[no-any-return]


def add_task_files(parser: argparse._ActionsContainer) -> None:
    """``--task``, of commands that need the tasks of stored entries again."""
    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="FILE",
        help="the YAML file of the entry's task, if it is your own and not below MTL_TASKS",
    )


def names(values: Sequence[str]) -> list[str]:
    """Names given with spaces, commas or both."""
    return [name for item in values for name in item.split(",") if name]
