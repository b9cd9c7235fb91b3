"""Every tensor of tests/golden is looked at by a test, or there is a reason why none does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from mtl.files import read_safetensors

HERE = Path(__file__).parent
REASONS = {
    "case0[12]*:grad.*adapter.*": "sources are frozen and held in a bank; nothing asks for it",
    "case11[ab]*:threshold": "peft keeps it to itself; what falls below it is compared (E.nonzero)",
}
"""Pattern of ``file:tensor`` → why no test compares it."""


def test_every_golden_tensor_is_read_by_a_test(tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    tests = [path for path in HERE.glob("*/test_*.py") if "GOLDEN" in path.read_text("utf-8")]
    line = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "golden_watch", "-k"]
    line += ["golden or reference", *map(str, sorted(tests))]
    paths = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "GOLDEN_WATCH": str(seen), "PYTHONPATH": paths}
    said = subprocess.run(
        [*line, "-p", "no:cacheprovider"],
        env=environment,
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout[-3000:] + said.stderr[-1000:]
    taken = json.loads(seen.read_text("utf-8"))
    unread = [
        f"{path.stem}:{name}"
        for path in sorted((HERE / "golden").glob("*.safetensors"))
        for name in sorted(read_safetensors(path)[0].keys() - {*taken.get(path.name, [])})
    ]
    left = [name for name in unread if not any(fnmatchcase(name, p) for p in REASONS)]
    assert not left, f"{len(left)} golden tensors are compared by no test: {', '.join(left)}"
    for pattern in REASONS:
        assert any(fnmatchcase(name, pattern) for name in unread), f"{pattern} is compared by now"
