"""``mtl.report --tests``: compositions against own adapters, over seeds and examples together."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtl.zoo import Entry


def show(options: Namespace, entries: Sequence[Entry], beside: Sequence[Entry]) -> int:
    """Print the tests of ``entries``; ``beside`` are own adapters that these leave out.

    Raises:
        RequestError: no composition has an own adapter of a seed of its own to be compared with.
    """
    from mtl.errors import RequestError
    from mtl.report.paired import paired_tests, render_tests
    from mtl.words import printable_lines

    tested = paired_tests(entries, beside)
    if not tested:
        raise RequestError(
            "--tests compares compositions with own adapters of the same task, base, rows and "
            "seed, by their stored answers: among the entries there is no such pair."
        )
    if options.json:
        print(json.dumps({"command": "report", "tests": [item.to_dict() for item in tested]}))
    else:
        print(printable_lines(render_tests(tested)))
    return 0
