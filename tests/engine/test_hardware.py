"""What a plan needs to know of a machine, where it is known without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mtl.engine import hardware
from mtl.engine.hardware import no_gpu, processes

ALONE = "import sys; from mtl.engine.hardware import {0}; print({0}({1}), 'torch' in sys.modules)"


def alone(function: str, argument: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", ALONE.format(function, argument)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_it_is_what_torch_says() -> None:
    assert not (no_gpu() and torch.cuda.is_available())
    without_torch, _ = alone("resolve_precision", "'auto'").split()
    assert without_torch == hardware.resolve_precision("auto")
    if not torch.cuda.is_available():  # no driver: certain without torch
        assert no_gpu()
        assert alone("resolve_precision", "'auto'") == "fp32 False"


def test_a_process_that_nobody_launched_is_one() -> None:
    assert alone("processes") == "1 False"
    assert processes() == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None\n", True),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.2'\n", False),
        ("cuda = None\n", False),
        ("cuda: str = (\n", False),
        ("hip: Optional[str] = None\n", False),
    ],
)
def test_torch_is_asked_unless_it_was_built_for_no_gpu(
    text: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("")
    (tmp_path / "torch" / "version.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "torch")
    assert hardware.no_gpu.__wrapped__() is found


@pytest.mark.parametrize("driver", [True, False])
def test_built_for_cuda_the_driver_decides_whether_torch_is_asked(
    driver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> object:
        assert name == "libcuda.so.1"
        if not driver:
            raise OSError(name)
        return object()

    monkeypatch.setattr(hardware, "_torch_build", lambda: {"cuda": "13.0", "hip": None})
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(hardware.ctypes, "CDLL", load)
    assert hardware.no_gpu.__wrapped__() is not driver


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 gfni\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx512f avx512_vnni amx_tile\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        (None, False),
    ],
)
def test_which_processors_compute_in_bf16(
    text: str | None, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    assert hardware.cpu_has_bf16.__wrapped__() is found


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_processor_is_what_torch_takes_it_for() -> None:
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if hardware.cpu_has_bf16():
        assert native
    elif torch.cpu._is_avx512_bf16_supported():
        pytest.fail("torch finds AVX512-BF16, and cpu_has_bf16 does not")
