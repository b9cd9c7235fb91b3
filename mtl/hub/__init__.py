"""The zoo on the Hugging Face Hub: push, pull, lock. All networked code of the zoo is here.

A pushed entry is its folder as the zoo holds it, a copy of its weights for stock ``adapters``, and
a line in the repository's index. What is pulled is checked file by file before it enters a zoo.
"""

from typing import TYPE_CHECKING

from mtl.lazy import exports

if TYPE_CHECKING:
    from mtl.hub.client import RepoName, UnreachableError, parse_repo
    from mtl.hub.keeping import Claims
    from mtl.hub.lockfile import Locked, read_lock, write_lock
    from mtl.hub.pulling import pull, restore
    from mtl.hub.pushing import Pushed, push
    from mtl.hub.remote import Pulled
    from mtl.hub.stock import write_stock_copies

__all__, __getattr__, __dir__ = exports(
    __name__,
    {
        "client": ["RepoName", "UnreachableError", "parse_repo"],
        "keeping": ["Claims"],
        "lockfile": ["Locked", "read_lock", "write_lock"],
        "pulling": ["pull", "restore"],
        "remote": ["Pulled"],
        "pushing": ["Pushed", "push"],
        "stock": ["write_stock_copies"],
    },
)
