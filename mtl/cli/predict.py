"""``mtl.predict``: answer the rows of a file with a stored adapter, composition or joint model."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mtl.cli.options import Parser


def main(argv: Sequence[str]) -> int:
    parser = Parser(prog="mtl.predict", description=__doc__)
    parser.add_argument(
        "entry",
        help="reference, its last parts, the start of its digest, hub:user/name, or a folder",
    )
    parser.add_argument(
        "--input", required=True, metavar="FILE", help=".csv, .tsv, .txt, .jsonl, .json or .parquet"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet"
    )
    parser.add_argument("--scores", action="store_true", help="a column per class, score_NAME, too")
    parser.add_argument(
        "--explain", action="store_true", help="how much each source counts, by answer"
    )
    parser.add_argument("--column", default="prediction", help="name of the answers [prediction]")
    parser.add_argument("--of", metavar="TASK", help="which of the tasks of a joint model")
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16"),
        help="to answer in [that of the entry's stored answers]",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output")
    parser.add_argument("--model", help="the entry's base: Hub name, folder, 'demo' [MTL_MODEL]")
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    group = parser.add_argument_group("how the input is read (where its suffix does not say it)")
    group.add_argument(
        "--separator",
        "--delimiter",
        metavar="C",
        help="between cells: one character, tab, semicolon, …",
    )
    group.add_argument("--unquoted", action="store_true", help="quotes are part of the texts")
    group.add_argument("--encoding", help="of the text [UTF-8]")
    group.add_argument("--no-header", action="store_true", help="the first line is a row")
    group.add_argument("--columns", nargs="+", metavar="NAME", help="of a file without header")
    group.add_argument("--field", help="of a JSON file: the key of the list of rows")
    options = parser.parse_args(list(argv))

    from tqdm import tqdm

    from mtl.cli.common import note_unknown, quieten
    from mtl.engine.progress import quiet
    from mtl.errors import RequestError
    from mtl.face.loading import load
    from mtl.files import user_path
    from mtl.predict.job import Job, answer_file, check_files, outcome_text
    from mtl.tasks.dialect import Dialect, separator_of

    if options.json:
        os.environ["MTL_QUIET"] = "1"
    quieten()
    given = {
        "separator": separator_of(options.separator) if options.separator else None,
        "quoting": "none" if options.unquoted else None,
        "header": False if options.no_header else None,
        "columns": options.columns or (),
        "encoding": options.encoding,
        "field": options.field,
    }
    source = user_path(options.input, "--input")
    said = {name: value for name, value in given.items() if value not in (None, ())}
    try:
        dialect = Dialect.from_data({"files": {"new": source.name}, **said})
    except ValueError as error:
        raise RequestError(f"How --input {options.input} is read {error}.") from error
    job = Job(
        source=source,
        target=user_path(options.output, "--output"),
        task=options.of,
        scores=options.scores,
        explain=options.explain,
        column=options.column,
        dialect=dialect,
        overwrite=options.overwrite,
    )
    check_files(job)
    model = load(options.entry, model=options.model, zoo=options.zoo, precision=options.precision)
    note_unknown([model.entry])
    with tqdm(
        desc=f"answer {Path(options.input).name}",
        unit="row",
        leave=False,
        disable=True if quiet() else None,
        file=sys.stderr,
    ) as bar:
        try:
            found = answer_file(model, job, lambda rows: bar.update(rows))
        except RequestError as error:
            raise RequestError(by_options(str(error))) from error
    if options.json:
        told = asdict(found)
        told["explained"] = found.explained.to_dict() if found.explained else None
        print(json.dumps({"command": "predict", "output": str(job.target), **told}))
        return 0
    print(outcome_text(found, job))
    if options.explain:
        print()
        print(found.explained.text() if found.explained else "No source has a share of its own.")
    return 0


_WRITE = re.compile(
    r"[Ww]rite (`(\w+): [^`]*`(?: or `\w+: [^`]*`)*) below `data` in the task file"
    r"(?: \(`python -m mtl\.tasks new [^`]*`\))?"
)
_OPTION = {"separator": "--separator", "encoding": "--encoding", "field": "--field"}


def by_options(text: str) -> str:
    """A message on a file that is read wrongly, with the options of this command for its advice.

    The readers tell what to write into a task file; of a file to be answered it is said here.
    """

    def option(found: re.Match[str]) -> str:
        said = []
        for key, value in re.findall(r"`(\w+): ([^`]*)`", found[1]):
            word = value.strip('"').replace("\\t", "tab")
            said.append("--unquoted" if key == "quoting" else f"{_OPTION[key]} {shlex.quote(word)}")
        return f"{'Pass' if found[0][0] == 'W' else 'pass'} {' or '.join(said)}"

    mended = _WRITE.sub(option, text)
    # answers are given to rows as they stand: there is no option for a cell that is meant so
    return (
        mended.partition(", `quoting: double` if")[0] + "." if "--unquoted if" in mended else mended
    )
