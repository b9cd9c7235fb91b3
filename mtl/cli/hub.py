"""``mtl.zoo push``, ``pull`` and ``lock``: the zoo and the Hugging Face Hub."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.words import counted, printable

if TYPE_CHECKING:
    from mtl.backbone import Backbone, Network
    from mtl.hub import Claims, Pulled
    from mtl.hub.keeping import Judge
    from mtl.runs.answering import Answers
    from mtl.tasks import TaskSpec
    from mtl.zoo import Zoo

Command = Callable[["Zoo", Namespace], int]
ENTRY = "reference, its last parts, or the start of its digest"


def add_commands(add: Callable[[str, str], Any]) -> dict[str, Command]:
    """Add the subcommands of the Hub to the parser of ``mtl.zoo``."""
    push = add("push", "put entries, with their sources, into a repository of the Hub")
    push.add_argument("entry", nargs="*", help=ENTRY)
    push.add_argument("--all", action="store_true", help="the whole zoo")
    push.add_argument("--repo", required=True, help="user/name; made if it is not there")
    push.add_argument("--private", action="store_true", help="make the repository private")
    push.add_argument("--revision", help="branch, made if it is not there [main]")
    push.add_argument("--license", help="licence for the cards, as the Hub spells it: mit, …")
    push.add_argument("--replace", action="store_true", help="another result of an entry gives way")
    push.add_argument(
        "--with-paths",
        action="store_true",
        help="also push entries of before that name paths of the machine that made them",
    )
    push.add_argument("--dry-run", action="store_true", help="say what would be sent")
    pull = add("pull", "put entries of a repository of the Hub, with their sources, into the zoo")
    pull.add_argument("repo", nargs="?", help="user/name, or user/name@revision")
    pull.add_argument("entry", nargs="*", help=f"{ENTRY}; all if none is named")
    pull.add_argument("--without-sources", action="store_true", help="a composition alone")
    pull.add_argument("--lock", metavar="FILE", help="restore exactly what a lock file names")
    pull.add_argument("--dry-run", action="store_true", help="say what would be stored")
    theirs = pull.add_argument_group("adapters that stock adapters or peft wrote")
    theirs.add_argument("--model", help="the encoder that they were trained on")
    theirs.add_argument("--task", help="the task that they were trained on")
    theirs.add_argument("--name", help="of the entry's task, where none is named")
    theirs.add_argument("--protocol", help="the split protocol; compositions ask for it")
    theirs.add_argument("--seed", type=int, default=0, help="recorded as their seed [0]")
    theirs.add_argument("--allow-bin", action="store_true", help="read .bin files, tensors only")
    theirs.add_argument(
        "--evaluate",
        action="store_true",
        help="have them answer the task's dev and test splits: then verify, report and push can",
    )
    theirs.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    theirs.add_argument(
        "--peft",
        metavar="PLACE",
        help="a folder that peft wrote, or hub:user/name[@revision]: becomes an entry of lora",
    )
    theirs.add_argument(
        "--rank", type=int, metavar="R", help="of --peft: convert to at most this rank [256]"
    )
    theirs.add_argument(
        "--max-error",
        type=float,
        metavar="E",
        help="of --peft: a module may lose this share of what it adds [0.001]",
    )
    lock = add("lock", "write which entries, from which commits, make up this zoo")
    lock.add_argument("entry", nargs="*", help=f"{ENTRY}; with their sources; all if none is named")
    lock.add_argument(
        "--repo", action="append", default=[], help="where they can be pulled from; may be repeated"
    )
    lock.add_argument("--file", default="mtl.lock", help="the lock file [mtl.lock]")
    return {"push": _push, "pull": _pull, "lock": _lock}


def take(parser: Any, options: Namespace, rest: list[str]) -> None:
    """Names that stand behind an option (``push --repo a/b ENTRY``) are names, too.

    argparse gives a list of any length only the names before the first option.
    """
    listed = hasattr(options, "repo") or hasattr(options, "names")
    if rest and (not listed or any(name.startswith("-") for name in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest and options.command == "pull" and options.repo is None:
        options.repo = rest.pop(0)
    if rest and hasattr(options, "names"):
        options.names = [*options.names, *rest]
    elif rest:
        options.entry = [*options.entry, *rest]


@contextmanager
def _client() -> Iterator[None]:
    """The Hub's client for a command line: no endless waiting, bars only for a terminal."""
    from huggingface_hub.utils import disable_progress_bars

    from mtl.hub.client import time_limits

    if not sys.stderr.isatty():
        disable_progress_bars()
    with time_limits():
        yield


def _push(zoo: Zoo, options: Namespace) -> int:
    from mtl.cli.zoo_share import note_groups
    from mtl.hub import RepoName, parse_repo, push

    if bool(options.entry) == options.all:
        raise RequestError("mtl.zoo push: name the entries, or pass --all for the whole zoo.")
    repo = parse_repo(f"{options.repo}@{options.revision}" if options.revision else options.repo)
    if repo.revision and not options.revision:
        repo = RepoName(repo.id, repo.revision)
    with _client():
        done = push(
            zoo,
            options.entry,
            repo,
            private=options.private,
            license=options.license,
            replace=options.replace,
            with_paths=options.with_paths,
            dry_run=options.dry_run,
        )
    note_groups(zoo, [entry["digest"] for entry in done.entries])
    if options.json:
        print(json.dumps({**asdict(done), "dry_run": options.dry_run}))
        return 0
    _table(
        [[e["status"], e["ref"], e["path"], e["digest"][:12], e["reader"]] for e in done.entries],
        ["", "entry", "in the repository", "digest", "loads with"],
    )
    size = f"{counted(done.files, 'file')}, {counted(done.bytes, 'byte')}"
    if not done.files:
        print(f"Nothing to send: {done.url} holds all of it at {_short(done.revision)}.")
    elif options.dry_run:
        print(f"Would send {size}, to {done.url}.")
    else:
        print(f"{size}: {done.url} is at {_short(done.revision)}.")
    return 0


def _pull(zoo: Zoo, options: Namespace) -> int:
    from mtl.hub import parse_repo, pull, read_lock, restore

    if options.peft is not None:
        return _pull_peft(zoo, options)
    if options.rank is not None or options.max_error is not None:
        raise RequestError("mtl.zoo pull: --rank and --max-error are of --peft PLACE.")
    if bool(options.repo) == bool(options.lock):
        raise RequestError(
            "mtl.zoo pull: name a repository (user/name), --lock FILE, or --peft PLACE."
        )
    from tqdm import tqdm

    with (
        _client(),
        tqdm(desc="pull", unit="entry", leave=False, disable=None, file=sys.stderr) as bar,
    ):

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        if options.lock:
            locked = read_lock(Path(options.lock))
            pulled = restore(zoo, locked, dry_run=options.dry_run, progress=progress)
        else:
            pulled = [
                pull(
                    zoo,
                    parse_repo(options.repo),
                    options.entry,
                    claims=_claims(options),
                    judge=_judge(zoo, options),
                    sources=not options.without_sources,
                    dry_run=options.dry_run,
                    progress=progress,
                )
            ]
    return _pulled(zoo, pulled, options)


def _pull_peft(zoo: Zoo, options: Namespace) -> int:
    """``--peft``: all other names are folders of the repository."""
    if options.model is None:
        raise RequestError(
            "mtl.zoo pull: --peft needs the encoder that the adapter was trained on: --model MODEL."
        )
    for name in ("lock", "without_sources", "allow_bin"):
        if getattr(options, name):
            option = name.replace("_", "-")
            raise RequestError(f"mtl.zoo pull: --peft and --{option} do not go together.")
    claims = _claims(options)
    from mtl.hub.peft_convert import Bounds
    from mtl.hub.peft_sources import pull_peft

    given = {"rank": options.rank, "error": options.max_error}
    bounds = Bounds(**{key: value for key, value in given.items() if value is not None})
    keys = [*([options.repo] if options.repo else []), *options.entry]
    assert claims is not None
    with _client():
        judge = _judge(zoo, options)
        done = pull_peft(zoo, options.peft, keys, claims, bounds, judge, dry_run=options.dry_run)
    return _pulled(zoo, [done], options)


def _judge(zoo: Zoo, options: Namespace) -> Judge | None:
    if not options.evaluate:
        return None
    if options.model is None or options.task is None:
        raise RequestError(
            "mtl.zoo pull: --evaluate has an adapter of others answer the task it was trained on: "
            "name it with --task TASK, and its encoder with --model MODEL."
        )
    from mtl.runs import open_workspace
    from mtl.runs.answering import answers_of

    workspace = open_workspace(zoo=zoo.root, data_root=options.data_root)

    def judge(network: Network, spec: TaskSpec, backbone: Backbone) -> Answers:
        return answers_of(network, spec, backbone, workspace, options.protocol)

    return judge


def _claims(options: Namespace) -> Claims | None:
    if options.model is None:
        return None
    from mtl.hub import Claims  # needs torch and adapters, which no other pull does

    return Claims(
        options.model,
        options.task,
        options.protocol,
        options.seed,
        options.allow_bin,
        options.name,
    )


def _pulled(zoo: Zoo, pulled: list[Pulled], options: Namespace) -> int:
    if options.json:
        value = {"zoo": str(zoo.root), "dry_run": options.dry_run}
        print(json.dumps({**value, "repositories": [asdict(item) for item in pulled]}))
        return 0
    rows = [
        [entry["status"], entry["ref"], entry["digest"][:12], f"{item.repo}@{item.revision[:12]}"]
        for item in pulled
        for entry in item.entries
    ]
    _table(rows, ["", "entry", "digest", "from"])
    for entry in (entry for item in pulled for entry in item.entries):
        if "says" in entry:
            print(printable(f"{entry['says']}."))
    new = sum(row[0] == "pulled" for row in rows)
    size = counted(sum(item.bytes for item in pulled), "byte")
    what = f"{counted(new, 'entry', 'entries')}, {size},"
    if options.dry_run:
        print(f"Would store {what} in {zoo.root}.")
    elif new:
        print(f"{what} {'is' if new == 1 else 'are'} now in {zoo.root}.")
    else:
        print(f"Nothing to pull: {zoo.root} holds all of it.")
    return 0


def _lock(zoo: Zoo, options: Namespace) -> int:
    from mtl.hub import parse_repo, write_lock
    from mtl.hub.lockfile import lock

    with _client():
        locked = lock(zoo, options.entry, [parse_repo(repo) for repo in options.repo])
    write_lock(Path(options.file), locked)
    if options.json:
        print(json.dumps({"file": options.file, "entries": [asdict(item) for item in locked]}))
        return 0
    _table(
        [[i.ref, i.digest[:12], i.repo or "–", _short(i.revision) if i.revision else "–"]
         for i in locked],
        ["entry", "digest", "repository", "revision"],
    )  # fmt: skip
    are = "is" if len(locked) == 1 else "are"
    print(f"{counted(len(locked), 'entry', 'entries')} {are} locked in {options.file}.")
    if not options.repo:
        print("No repository is recorded (--repo user/name): this lock can check, not fetch.")
    return 0


def _table(rows: list[list[str]], headers: list[str]) -> None:
    from tabulate import tabulate

    if rows:
        print(tabulate(rows, headers=headers, disable_numparse=True))


def _short(revision: str | None) -> str:
    return (revision or "")[:12]
