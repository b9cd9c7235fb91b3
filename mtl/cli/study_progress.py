"""Progress of a study: bars where a terminal watches, elsewhere a line per run that is over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from mtl.cli.study_text import beside_text, duration, outcome_text
from mtl.engine.progress import quiet
from mtl.words import counted, printable_lines

if TYPE_CHECKING:
    from mtl.study.driving import Going
    from mtl.study.engines import Happened
    from mtl.study.planning import StudyPlan


@contextmanager
def showing(
    plan: StudyPlan, engine: str, workers: int, *, silent: bool
) -> Iterator[Callable[[Going, Happened], None]]:
    """Shows what happens, on standard error."""
    if silent or quiet():
        yield lambda going, happened: None
        return
    left = len(plan.nodes) - plan.count("done")
    print(
        f"{plan.study.name}: {counted(len(plan.nodes), 'run')}, {left} to be run "
        f"({engine}{beside_text(plan)})",
        file=sys.stderr,
        flush=True,
    )
    if sys.stderr.isatty():
        with ExitStack() as stack:
            yield _Bars(plan, workers, stack)
    else:
        yield _Lines()


class _Lines:
    """A line for everything that is worth one."""

    def __init__(self) -> None:
        self._held: dict[str, str] = {}
        """By whom a run is held, as it was said: it is looked for again every few seconds."""

    def __call__(self, going: Going, happened: Happened) -> None:
        key = happened.key
        if happened.what == "ended" and key in going.outcomes:
            print(_line(going, key), file=sys.stderr, flush=True)
        elif happened.what == "ended" and key in going.held:
            text = f"{going.label(key)}: held: {going.held[key]}"
            if self._held.get(key) != text:
                print(printable_lines(text), file=sys.stderr, flush=True)
            self._held[key] = text
        elif happened.what == "said":
            print(printable_lines(happened.text), file=sys.stderr, flush=True)
        elif happened.what == "lost":
            text = f"{going.label(key)}: {happened.text}"
            text += "" if key in going.outcomes else "; it goes on in another one"
            print(printable_lines(text), file=sys.stderr, flush=True)


def _line(going: Going, key: str) -> str:
    over = going.plan.count("done") + len(going.failed())
    head = f"[{over}/{len(going.plan.nodes)}] {going.label(key)}: "
    return printable_lines(head + outcome_text(going, key))


class _Bars:
    """A bar over all runs, and one per worker."""

    def __init__(self, plan: StudyPlan, workers: int, stack: ExitStack) -> None:
        from tqdm import tqdm

        self._workers, self._stack = workers, stack
        self._bars: dict[str, Any] = {}
        self._lines = _Lines()
        self._all = stack.enter_context(
            tqdm(
                total=len(plan.nodes),
                initial=plan.count("done"),
                desc=plan.study.name,
                unit="run",
                file=sys.stderr,
                position=0,
                bar_format="{desc}: {n_fmt}/{total_fmt} runs {bar} {elapsed}{postfix}",
            )
        )

    def __call__(self, going: Going, happened: Happened) -> None:
        if happened.what == "step" and happened.key in going.running:
            bar = self._bar(happened.worker)
            runs = going.with_whom(happened.key)
            text = f" and {len(runs) - 1} beside it" if len(runs) > 1 else ""
            bar.set_description_str(going.label(next(iter(runs))) + text, refresh=False)
            bar.total = sum(run.total for run in runs.values())
            bar.n = sum(run.done for run in runs.values())
            bar.refresh()
        elif happened.what in {"ended", "lost", "said"}:
            self._all.clear()
            self._lines(going, happened)
        self._all.n = going.plan.count("done")
        left = going.seconds_left(self._workers)
        told = f"{len(going.running)} running, {len(going.failed())} failed"
        self._all.set_postfix_str(told + (f", {duration(left)} left" if left else ""))

    def _bar(self, worker: str) -> Any:
        from tqdm import tqdm

        if worker not in self._bars:
            self._bars[worker] = self._stack.enter_context(
                tqdm(
                    unit="step",
                    leave=False,
                    file=sys.stderr,
                    position=len(self._bars) + 1,
                    bar_format="  {desc}: {n_fmt}/{total_fmt} {bar}",
                )
            )
        return self._bars[worker]
