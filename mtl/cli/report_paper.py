"""``mtl.report --latex``, ``--markdown``, ``--csv``, ``--cite``: what goes into a paper."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtl.zoo import Entry


def add_options(parser: Any) -> None:
    """Add the options to the parser of ``mtl.report``."""
    paper = parser.add_argument_group("for a paper")
    forms = paper.add_mutually_exclusive_group()
    said = "a suite's table as {}: tasks as columns, methods in groups"
    how: dict[str, Any] = {"dest": "form", "action": "store_const"}
    forms.add_argument("--latex", const="latex", help=said.format("LaTeX"), **how)
    forms.add_argument("--markdown", const="markdown", help=said.format("Markdown"), **how)
    forms.add_argument("--csv", const="csv", help=said.format("CSV"), **how)
    paper.add_argument("--std", action="store_true", help="with standard deviations over seeds")
    forms.add_argument("--cite", action="store_true", help="BibTeX of the methods that were used")


def asked(options: Namespace) -> bool:
    """Whether something for a paper is asked for.

    Raises:
        RequestError: an option that says nothing of it.
    """
    from mtl.errors import RequestError

    form = options.form or ("cite" if options.cite else "")
    if options.std and not options.form:
        raise RequestError("--std says something of --latex, --markdown and --csv only.")
    for name in (
        "json",
        "pick",
        "heatmap",
        "curve",
        "ensemble",
        "target",
        "against",
        "tests",
        "variance",
        "html",
    ):
        if form and getattr(options, name, None):
            raise RequestError(f"--{form} shows the tables of suites: --{name} says nothing of it.")
    return bool(form)


def show(options: Namespace, entries: Sequence[Entry], known: Sequence[Entry]) -> int:
    """Print a table per suite and base, or BibTeX of the methods of the entries.

    Args:
        known: where sources of compositions are looked up.
    """
    if options.cite:
        from mtl.report.cite import bibtex

        print(bibtex(citations(entries)))
        return 0
    from mtl.report import suite_tables
    from mtl.report.paper import paper_table

    tables = suite_tables(entries, known, options.suite)
    print("\n\n".join(paper_table(table, options.form, std=options.std) for table in tables))
    return 0


def citations(entries: Sequence[Entry]) -> dict[str, str]:
    """Method → citation, of the methods of entries and of their sources.

    A method that is registered nowhere here, of a package that is not installed, is left out and
    said.
    """
    import logging

    from mtl.compose.composition import COMPOSITIONS
    from mtl.joint.joint_method import JOINT
    from mtl.methods.method import METHODS

    registries: dict[str, Any] = {"adapter": METHODS, "composition": COMPOSITIONS, "joint": JOINT}
    used = {(entry.manifest.kind, entry.manifest.method) for entry in entries}
    used |= {("adapter", p["method"]) for entry in entries for p in entry.manifest.parents}
    found = {}
    for kind, name in sorted(used):
        if name in registries[kind]:
            found[name] = str(registries[kind].get(name).citation)
        else:
            logging.getLogger("mtl.report").warning("no citation: %s is not installed here", name)
    return found
