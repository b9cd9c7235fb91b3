"""``mtl.zoo copy``, ``pack`` and ``unpack``: sharing entries without a Hub."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.zoo import Zoo
    from mtl.zoo.sharing import Progress, Shared

ENTRY = "reference, its last parts, or the start of its digest"


def add_commands(add: Callable[[str, str], Any]) -> None:
    """Add the subcommands to the parser of ``mtl.zoo``."""
    copy = add("copy", "put entries, with the sources they need, into another zoo folder")
    copy.add_argument("names", nargs="+", metavar="ENTRY… FOLDER", help=f"{ENTRY}; folder last")
    copy.add_argument("--all", action="store_true", help="the whole zoo; name the folder alone")
    copy.add_argument("--dry-run", action="store_true", help="say what would be copied")
    pack = add("pack", "put entries, with the sources they need, into one file")
    pack.add_argument("names", nargs="+", metavar="ENTRY… FILE.mtlzoo", help=f"{ENTRY}; file last")
    pack.add_argument("--all", action="store_true", help="the whole zoo; name the file alone")
    pack.add_argument("--replace", action="store_true", help="another file there gives way")
    pack.add_argument(
        "--with-paths",
        action="store_true",
        help="also pack entries of before that name paths of the machine that made them",
    )
    pack.add_argument(
        "--card", metavar="FILE.md", help="also write what is in it, and what made that"
    )
    pack.add_argument("--license", metavar="NAME", help="of the weights, for the card")
    pack.add_argument("--dry-run", action="store_true", help="say what would be packed")
    unpack = add("unpack", "put the entries of such a file into the zoo, checked as pulled ones")
    unpack.add_argument("file", metavar="FILE.mtlzoo", help="what pack has made")
    unpack.add_argument(
        "--dry-run", action="store_true", help="check all; say what would be stored"
    )


def copy(zoo: Zoo, options: Namespace) -> int:
    """Copy the entries named first into the folder named last."""
    from mtl.zoo import open_zoo
    from mtl.zoo.sharing import copy as share

    keys, folder = _named(zoo, options, "copy", "FOLDER")
    with _bar("copy") as progress:
        done = share(zoo, keys, open_zoo(folder), dry_run=options.dry_run, progress=progress)
    return _say(done, options, "copied")


def pack(zoo: Zoo, options: Namespace) -> int:
    """Pack the entries named first into the file named last."""
    from mtl.files import user_path, write_text
    from mtl.zoo.card import LICENSE
    from mtl.zoo.packing import SUFFIX
    from mtl.zoo.packing import pack as share

    keys, file = _named(zoo, options, "pack", f"FILE{SUFFIX}")
    if not file.endswith(SUFFIX):
        raise RequestError(f"mtl.zoo pack: the last name is the file, FILE{SUFFIX}, not {file!r}.")
    if options.license and not options.card:
        raise RequestError("mtl.zoo pack: --license stands on the card: give --card FILE.md, too.")
    if options.license and not LICENSE.fullmatch(options.license):
        raise RequestError(f"--license {options.license!r} is no name such as mit or apache-2.0.")
    with _bar("pack") as progress:
        done = share(
            zoo,
            keys,
            user_path(file, "FILE"),
            replace=options.replace,
            with_paths=options.with_paths,
            dry_run=options.dry_run,
            progress=progress,
        )
    if options.card and not options.dry_run:
        from mtl.zoo.pack_card import pack_card

        packed = [zoo.get(row["digest"]) for row in done.entries]
        said = pack_card(packed, user_path(file, "FILE").name, options.license)
        write_text(user_path(options.card, "--card"), said)
    note_groups(zoo, [row["digest"] for row in done.entries])
    return _say(done, options, "packed")


def unpack(zoo: Zoo, options: Namespace) -> int:
    """Put the entries of a packed file into the zoo."""
    from mtl.files import user_path
    from mtl.zoo.packing import unpack as share

    with _bar("unpack") as progress:
        done = share(
            zoo, user_path(options.file, "FILE"), dry_run=options.dry_run, progress=progress
        )
    return _say(done, options, "unpacked")


def note_groups(zoo: Zoo, digests: Iterable[str]) -> None:
    """Say which entries name groups of rows (users, domains): who gets an entry reads these."""
    from mtl.cli.common import say
    from mtl.words import printable

    for digest in digests:
        entry = zoo.get(digest)
        settings = entry.manifest.method_settings
        if settings.get("groups"):
            column = printable(str(settings.get("gate")))
            say(
                f"note: {entry.ref} was made with --gate {column}: its manifest holds the values "
                f"of that column in the training rows and how many rows each has, for whoever "
                "gets it to read."
            )


def _named(zoo: Zoo, options: Namespace, command: str, last: str) -> tuple[list[str], str]:
    """The entries and the place that the names of a command line are."""
    *keys, place = options.names
    if bool(keys) == options.all:
        raise RequestError(
            f"mtl.zoo {command}: name the entries and then {last}, or {last} alone with --all for "
            "the whole zoo."
        )
    if zoo.summaries() and _is_entry(zoo, place):
        raise RequestError(f"mtl.zoo {command}: {place} is an entry; the last name is {last}.")
    return keys, place


def _is_entry(zoo: Zoo, name: str) -> bool:
    try:
        zoo.get(name)
    except RequestError as error:
        return "ambiguous" in str(error)
    return True


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from tqdm import tqdm

    with tqdm(
        desc=what, unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _say(done: Shared, options: Namespace, verb: str) -> int:
    if options.json:
        print(json.dumps({**done.to_dict(), "dry_run": options.dry_run}))
        return 0
    from tabulate import tabulate

    rows = [[row["status"], row["ref"], row["digest"][:12]] for row in done.entries]
    print(tabulate(rows, headers=["", "entry", "digest"], disable_numparse=True))
    new = sum(row["status"] != "there" for row in done.entries)
    what = f"{counted(new, 'entry', 'entries')}, {counted(done.bytes, 'byte')}"
    if options.dry_run:
        print(f"Would be {verb}: {what}; into {done.place}.")
    elif new:
        print(f"{what}: now in {done.place}.")
    else:
        print(f"Nothing to do: {done.place} holds all of it.")
    return 0
