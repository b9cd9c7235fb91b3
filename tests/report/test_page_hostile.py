"""Words of strangers on a page are text, and no script runs but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from page_bench import EVIL, filled, read, shown
from zoo_bench import manifest

from mtl.report.dev_curves import Line
from mtl.report.page import Shown, page
from mtl.report.page_sources import Transfer
from mtl.report.tables import rows_and_runs
from mtl.zoo import Entry


def evil(number: int, **changes: Any) -> Entry:
    """An entry of a stranger who wrote markup wherever text may stand."""
    usual = {
        "task": {**manifest().task, "id": f"toy/{EVIL}"},
        "suite": EVIL,
        "method": EVIL,
        "base": {**manifest().base, "id": EVIL},
        "run_settings": {EVIL: f"{EVIL}{number}"},
        "metrics": {
            split: {"accuracy": {"value": 0.5 + number / 10, "stderr": 0.1, "n": 4, "caveat": EVIL}}
            for split in ("dev", "test")
        },
        "training": {
            **manifest().training,
            "device": EVIL,
            "selected_by": EVIL,
            "baselines": {"train": 4, "test": {"majority": {"value": 0.5, "n": 4}}},
        },
        "versions": {EVIL: EVIL},
        "command": f"python -m mtl.train '{EVIL}'",
        "runhash": f"{number:016x}",
        "seed": number % 2,
    }
    described = manifest().to_dict() | usual | changes
    return Entry(Path("/nowhere"), f"{EVIL}/{number}", _unchecked(described), f"{number:064x}", {})


def _unchecked(values: dict[str, Any]) -> Any:
    """A manifest that no schema has looked at: the page must hold what it does not."""
    found = manifest()
    return replace(found, **{k: v for k, v in values.items() if k in found.__dataclass_fields__})


def test_nothing_of_a_stranger_is_markup() -> None:
    parent = {"ref": EVIL, "digest": "ab" * 32, "task": EVIL, "method": EVIL, "seed": 0}
    entries = [evil(n) for n in range(4)]
    entries += [evil(n, kind="composition", parents=[parent, parent]) for n in range(4, 8)]
    rows = rows_and_runs(entries)
    rows = [
        (replace(row, metric=EVIL, caveats=[EVIL], findings=[EVIL], picked=2), runs)
        for row, runs in rows
    ]
    values = np.array([[0.1]])
    found = Shown(
        EVIL,
        EVIL,
        entries,
        rows,
        curves={(EVIL, EVIL): [Line(EVIL, {0: [(1, 0.5)]}, {0: 1})]},
        lost=[EVIL],
        transfer=Transfer(
            EVIL, [EVIL], [EVIL], values, values, values, {(EVIL, EVIL): EVIL}, said=[EVIL]
        ),
        notes=[EVIL],
    )
    text = page(found)
    reader = read(text)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "object", "embed", "form", "base", "link"} & set(tags)
    for tag, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert not {"src", "action", "xlink:href"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert text.count("<script") == 1
    assert "alert(1)" in text  # it is there, as text
    assert not {"\u202e", "\x1b"} & set(text)
    assert not re.search(r"https?:", text)


def test_only_its_own_script_may_run(tmp_path: Path) -> None:
    text = page(shown(filled(tmp_path / "zoo")))
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2]
    assert "innerHTML" not in script
    assert "eval" not in script
