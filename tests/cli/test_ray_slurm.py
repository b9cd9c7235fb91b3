"""``scripts/ray_slurm.sh`` with a SLURM, a Ray and a study that are acted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from cli_bench import ROOT

STUBS = {
    "scontrol": "printf 'one\\ntwo\\n'",
    "srun": 'while [ "$1" != ray ]; do shift; done; exec "$@"',
    "ray": 'echo "ray $RAY_AUTH_TOKEN $$ $*" >> "$SAID"; exec sleep 100',
    "python": f"""
case "$*" in
  -c*) exec {sys.executable} "$@" ;;
  *ray_wait*) while [ "$(grep -c ^ray "$SAID")" -lt 2 ]; do sleep 0.05; done ;;
  *) trap 'echo "told" >> "$SAID"; exit 143' TERM
     echo "study $RAY_AUTH_TOKEN $$ $*" >> "$SAID"
     [ "$LAST" = 0 ] || {{ sleep "$LAST" & wait; }}
     exit 3 ;;
esac""",
}


def start(folder: Path, last: int) -> subprocess.Popen[str]:
    for name, body in STUBS.items():
        path = folder / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "30007",
        "SLURM_JOB_NODELIST": "[one-two]",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "MTL_HEAD_IP": "10.0.0.1",
    }
    return subprocess.Popen(
        [ROOT / "scripts" / "ray_slurm.sh", "demo", "--per-gpu", "2"],
        env={
            **os.environ,
            **slurm,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "SAID": str(folder / "said"),
            "LAST": str(last),
        },
        stderr=subprocess.PIPE,
        text=True,
    )


def alive(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_head_workers_driver_and_their_end(tmp_path: Path) -> None:
    (tmp_path / "said").touch()
    script = start(tmp_path, 0)
    _, err = script.communicate(timeout=60)
    assert script.returncode == 3, err  # the driver's own
    said = [line.split(" ", 3) for line in (tmp_path / "said").read_text().splitlines()]
    rays = sorted(words for who, _, _, words in said if who == "ray")
    assert len(rays) == 2
    assert rays[0] == "start --block --address 10.0.0.1:30007 --num-cpus 4"
    assert "--head --block --node-ip-address 10.0.0.1 --port 30007" in rays[1]
    assert "--include-dashboard false" in rays[1]
    (study,) = (words for who, _, _, words in said if who == "study")
    assert study == "-m mtl.study run demo --per-gpu 2 --engine ray --address 10.0.0.1:30007"
    (token,) = {token for _, token, _, _ in said}  # one for all
    assert len(token) == 64
    assert not any(token in words for *_, words in said)
    deadline = time.monotonic() + 10
    while any(alive(pid) for who, _, pid, _ in said if who == "ray"):
        assert time.monotonic() < deadline, "a step outlived the script"
        time.sleep(0.05)


def test_the_warning_of_slurm_reaches_the_driver(tmp_path: Path) -> None:
    (tmp_path / "said").touch()
    script = start(tmp_path, 100)
    deadline = time.monotonic() + 30
    while "study" not in (tmp_path / "said").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    script.terminate()
    assert script.wait(30) == 143
    assert "told" in (tmp_path / "said").read_text()


def test_outside_of_slurm(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "ray_slurm.sh", "demo"],
        env={key: value for key, value in os.environ.items() if not key.startswith("SLURM")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "inside a SLURM allocation" in done.stderr
