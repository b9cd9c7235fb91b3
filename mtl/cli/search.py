"""``mtl.search``: how are methods best trained here? Trials on dev, into a recipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace

    from mtl.cli.options import Parser
    from mtl.runs.context import Context
    from mtl.search.searching import Found
    from mtl.search.trying import Tried


def main(argv: Sequence[str]) -> int:
    from mtl.cli.common import make_parser

    parser = make_parser(
        "mtl.search",
        "Search settings of methods (or, with --target, of compositions) by trials that are judged "
        "on dev, the same number for every method. No test row is read, nothing goes into the zoo; "
        "what is found best is written as a recipe. The same line goes on where it was stopped.",
        several=False,
    )
    parser.add_argument("--task", type=str, help="search stage one of this task")
    parser.add_argument("--target", type=str, help="search compositions for this task")
    parser.add_argument("--suite", type=str, help="the suite that 'all' means [the task's]")
    parser.add_argument("--sources", nargs="+", type=str, default=["all"], metavar="TASK")
    parser.add_argument("--source-method", type=str, default="pfeiffer")
    parser.add_argument("--source-seed", type=str, metavar="SEED")
    parser.add_argument("--method", nargs="+", type=str, help="one or more [pfeiffer, scalearn]")
    parser.add_argument(
        "--over",
        nargs="+",
        type=str,
        required=True,
        metavar="KEY=…",
        help="lr=1e-4..1e-2:log (a range, drawn in the logarithm), bottleneck=8,24,48 (choices), "
        "METHOD:KEY=… for one of several methods",
    )
    parser.add_argument("--trials", type=int, default=20, help="per method [20]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100], help="of every trial [100]")
    parser.add_argument("--prune", type=str, default="median", help="median, hyperband or none")
    parser.add_argument("--out", type=str, metavar="FILE", help="the recipe [beside the trials]")
    parser.add_argument("--png", type=str, metavar="FILE", help="the trials as a picture")
    options = parser.parse_args(list(argv))

    from mtl.cli import common, tell
    from mtl.cli.grid import Point
    from mtl.files import user_path
    from mtl.search import write_recipe
    from mtl.search.recipe import check_place
    from mtl.search.table import search_text
    from mtl.tasks import list_tasks
    from mtl.words import counted

    searches, context = _open(options, parser, argv)
    if options.dry_run:
        common.say(
            "\n".join(
                f"{name}: {counted(options.trials, 'trial')} and the settings without the search, "
                f"seeds {' '.join(map(str, options.seeds))}, over {' '.join(map(str, space))}"
                for name, _, space in searches
            )
        )
        tell.print_dry_run(
            [(Point(name, context.overrides), make({})) for name, make, _ in searches],
            context,
            as_json=options.json,
        )
        return 0
    out = user_path(options.out, "--out") if options.out else None
    if out is not None:
        check_place(out)
    found = [_search(options, context, *search) for search in searches]
    first = searches[0][1]({})[0]
    path = out or found[0].folder / _file([item.folder.name for item in found], options.recipe)
    write_recipe(
        path,
        found,
        task=first.task_id,
        base=first.backbone.base.id,
        known=[task for task in (first.task_id,) if task in list_tasks()],
        recipe=options.recipe or context.recipe.name,
        asked=context.overrides.values,
        command=context.workspace.command,
    )
    if limits := _limits(context.overrides.values):
        common.say(
            f"note: the recipe limits rows as the search did ({', '.join(limits)}): all that is "
            f"trained with it is. {' '.join(_whole(limit) for limit in limits)} takes all rows."
        )
    if options.png:
        from mtl.search.picture import draw_search

        draw_search(found, user_path(options.png, "--png"))
    if options.json:
        told = [item.to_dict() for item in found]
        print(json.dumps({"command": "search", "recipe": str(path), "methods": told}))
        return 0
    for item in found:
        print(f"{search_text(item)}\n")
    print(f"recipe: {path}   (--recipe {path})")
    return 0


def _limits(asked: Mapping[str, Any]) -> list[str]:
    """What a user set that limits rows, as ``KEY=VALUE``."""
    from mtl.engine.settings import LIMITS

    plain = {key.removeprefix("run."): value for key, value in asked.items()}
    return [f"{key}={plain[key]}" for key in LIMITS if plain.get(key)]


def _whole(limit: str) -> str:
    return f"--{limit.partition('=')[0].replace('_', '-')} 0"


def _file(searches: Sequence[str], recipe: str | None) -> str:
    """The recipe's name beside the trials of the first method: another one for other methods
    together, or over another recipe, which would otherwise write over each other's."""
    if len(searches) == 1 and recipe is None:
        return "recipe.yaml"
    from mtl.files import sha256_json

    return f"recipe-{sha256_json([*searches, recipe])[:8]}.yaml"


def _open(
    options: Namespace, parser: Parser, argv: Sequence[str]
) -> tuple[list[tuple[str, Callable[..., Any], Any]], Context]:
    """Method, what makes a trial's runs, and its space, for every method; all is checked first."""
    from mtl.cli import common
    from mtl.cli.grid import Point, one_point
    from mtl.cli.options import names
    from mtl.compose import COMPOSITIONS, resolve_compose
    from mtl.compose.planning import Asked, read_request
    from mtl.errors import RequestError
    from mtl.methods import METHODS, find_method
    from mtl.runs.context import check_seeds, specs_of, suite_of
    from mtl.runs.settings import Overrides
    from mtl.search import compose_trials, read_space, train_trials
    from mtl.search.space import owners
    from mtl.train import resolve_train

    if bool(options.task) == bool(options.target):
        raise RequestError("Say what to search for: --task TASK (stage one) or --target TASK.")
    methods = names(options.method or ["scalearn" if options.target else "pfeiffer"])
    stray = sorted(owners(options.over) - {*methods})
    if stray:
        raise RequestError(f"--over names {', '.join(stray)}, which --method does not.")
    seeds = check_seeds(options.seeds)
    requests = {}
    if options.target:
        for name in methods:
            if name in METHODS and name not in COMPOSITIONS:
                raise RequestError(
                    f"{name!r} is a method of stage one: search it with --task TASK."
                )
            requests[name] = read_request(
                Asked(
                    target=options.target,
                    suite=options.suite,
                    protocol=options.protocol,
                    sources=names(options.sources),
                    method=name,
                    seeds=seeds,
                    source_method=options.source_method,
                    source_seed=options.source_seed,
                    zoo=options.zoo,
                )
            )
        suite = requests[methods[0]].suite
        specs = [requests[methods[0]].spec]
    else:
        hint = "That is stage two: search it with --target TASK."
        for name in methods:
            find_method(name, hint if name in COMPOSITIONS else "")
        suite = suite_of(options.suite, [options.task])
        specs = specs_of(suite, [options.task])
    registry, resolve = (COMPOSITIONS, resolve_compose) if options.target else (METHODS, None)
    spaces = {name: read_space(options.over, registry.get(name)) for name in methods}

    def check(recipe: Any, point: Point) -> None:
        for name, space in spaces.items():
            for item in space:
                for end in item.ends():
                    values = Overrides({**point.overrides.values, item.key: end})
                    if resolve is not None:
                        resolve(specs[0], name, recipe, values)
                    else:
                        resolve_train(specs[0], METHODS.get(name), recipe, values)

    grid = one_point(options, parser, methods[0], "--over says what is searched.")
    context = common.open_context(options, grid, suite, "search", argv, check)
    makes = {
        name: compose_trials(requests[name], context)
        if options.target
        else train_trials(context, specs[0], name, seeds)
        for name in methods
    }
    return [(name, makes[name], spaces[name]) for name in methods], context


def _search(
    options: Namespace, context: Context, method: str, make: Callable[..., Any], space: Any
) -> Found:
    from mtl.search import search_settings

    with _showing(method, options.trials, options.json) as tell:
        return search_settings(
            method,
            make,
            space,
            options.trials,
            context.workspace,
            prune=options.prune,
            tell=tell,
        )


@contextmanager
def _showing(method: str, trials: int, silent: bool) -> Iterator[Callable[[Tried], object]]:
    """A bar over the trials where a terminal watches; elsewhere a line for each."""
    from tqdm import tqdm

    from mtl.engine.progress import quiet
    from mtl.search.table import trial_line

    if silent or quiet():
        yield lambda tried: None
        return
    with tqdm(
        total=trials + 1, desc=f"search {method}", unit="trial", leave=False, disable=None
    ) as bar:

        def tell(tried: Tried) -> None:
            bar.update(1)
            if bar.disable:
                print(f"{method}: {trial_line(tried)}", file=sys.stderr, flush=True)

        yield tell
