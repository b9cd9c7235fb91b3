"""How a stranger's entry gets into a zoo: its place, its sizes, its files, then one rename.

Pulled, copied and unpacked entries all come this way (the checks: :mod:`mtl.zoo.intake`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mtl.errors import RunError, ZooError
from mtl.files import write_text
from mtl.zoo.card import card, license_of
from mtl.zoo.check import file_table
from mtl.zoo.intake import admit, check_listing
from mtl.zoo.manifest import Recorded, digest
from mtl.zoo.merged import JOIN, beside, plain, same_run
from mtl.zoo.names import CARD, MANIFEST, safe_path
from mtl.zoo.place import option_of
from mtl.zoo.staging import cannot

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.store import Zoo


def check_sizes(recorded: Recorded, where: str) -> int:
    """Bytes of all files of an entry, if no limit forbids them.

    Raises:
        ZooError: too many, too large, or with names that cannot be stored.
    """
    sizes = {name: item["bytes"] for name, item in recorded.files.items()}
    for problem in check_listing(sizes):
        raise ZooError(f"{where}: {problem} Nothing was stored.")
    return sum(sizes.values())


def check_place(zoo: Zoo, ref: str) -> None:
    """Refuse a reference that lies inside an entry, or where something else stands.

    Raises:
        RequestError: no plain relative path.
        ZooError: the place cannot be that of an entry.
    """
    folder = zoo.path(safe_path(ref, "reference"))
    for above in folder.parents:
        if above == zoo.root:
            break
        if (above / MANIFEST).exists() or (above.exists() and not above.is_dir()):
            raise ZooError(f"Cannot store {ref}: {zoo.ref(above)} is an entry or a file.")
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise ZooError(
            f"Cannot store {ref}: {folder} is there and is no entry. Move it out of the zoo."
        )


def check_staged(folder: Path, recorded: Recorded, ref: str) -> None:
    """Refuse a staged entry, manifest included, that is not exactly what its manifest says.

    Raises:
        ZooError: the first problems; what was expected and found.
    """
    admit(folder, ref)
    found = {name: item["sha256"] for name, item in file_table(folder, ref).items()}
    again = digest(recorded.manifest, found)
    if again != recorded.digest:
        raise ZooError(
            f"{ref} was not taken into the zoo: its files give the digest {again[:16]}…, its "
            f"manifest says {recorded.digest[:16]}…."
        )


def free_place(zoo: Zoo, ref: str, recorded: Recorded, doing: str) -> str:
    """Where an entry that comes from elsewhere is to stand: at ``ref``, if nothing is there.

    Another result of the same run (from another machine) stays; the new one stands beside it
    (:mod:`mtl.zoo.merged`).

    Args:
        doing: "pull x from y", for the message.

    Raises:
        RequestError, ZooError: see :func:`check_place`; or the name has another digest in it.
        RunError: the zoo holds the result of another run there.
    """
    check_place(zoo, ref)
    other = beside(plain(ref), recorded.digest)
    if ref not in (plain(ref), other):
        raise ZooError(
            f"Cannot {doing}: its name says the digest {ref.rpartition(JOIN)[2]}, its manifest "
            f"{recorded.digest[:12]}…. Nothing was stored; ask whoever made it for a name that is "
            "its own."
        )
    if not (zoo.path(ref) / MANIFEST).is_file():
        return ref
    there = zoo.get(ref)
    if same_run(there.manifest, recorded.manifest) and other != ref:
        return free_place(zoo, other, recorded, doing)
    raise RunError(
        f"Cannot {doing}: the zoo holds the result of another run there (digest "
        f"{there.digest[:12]}…; that one has {recorded.digest[:12]}…). Keep yours, remove it "
        f"(python -m mtl.zoo rm {there.ref}{option_of(there)}), or take another zoo (--zoo DIR)."
    )


def take_in(
    zoo: Zoo, ref: str, recorded: Recorded, fill: Callable[[Path], None], *, orphan: bool = False
) -> Entry:
    """Store what ``fill`` writes into a staging folder, if it is exactly what ``recorded`` says.

    The licence of a card among the files is kept.

    Raises:
        ZooError: it is not, or its sources are not in the zoo (unless ``orphan``).
        RunError: the system refuses.
    """
    check_place(zoo, ref)
    with zoo.stage(ref) as folder:
        try:
            fill(folder)
        except OSError as error:
            raise cannot(f"store {ref} in the zoo {zoo.root}", error) from error
        check_staged(folder, recorded, ref)
        license = license_of(folder / CARD)
        entry = zoo.commit(folder, ref, recorded.manifest, orphan=orphan)
    if license is not None:
        write_text(entry.folder / CARD, card(entry.manifest, license))
    return entry
