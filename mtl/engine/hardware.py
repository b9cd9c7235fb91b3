"""What a run will compute in and with how many processes: what its plan needs to know.

Where no GPU can be there and nobody launched us, the answers need neither torch nor ``accelerate``;
everywhere else they are theirs.
"""

from __future__ import annotations

import ast
import ctypes
import os
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def resolve_precision(precision: str) -> str:
    """``auto`` → bf16 where the run's GPU computes in it, else fp32; what is asked for otherwise.

    A GPU that only emulates bf16 (before Ampere) is faster in fp32.
    """
    if precision != "auto":
        return precision
    if "torch" not in sys.modules and not _told_anything() and no_gpu():
        return "fp32"
    import torch

    # `accelerate` keeps to the CPU when it is told so, GPU or not.
    if _told_cpu() or not torch.cuda.is_available():
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


@lru_cache(maxsize=1)
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies in bf16: x86 with AVX512-BF16 or AMX.

    Others compute the same by rounding fp32, which saves nothing. False where Linux does not say.
    """
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return not BF16_FLAGS.isdisjoint(flags.split())


def device_name() -> str:
    """The device that a run will compute on, as manifests name it: ``cpu``, or the GPU's name."""
    if not _told_anything() and no_gpu() and find_spec("torch_xla") is None:
        return "cpu"
    import torch

    from mtl.engine.launch import accelerator

    device = accelerator().device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)


def processes() -> int:
    """The number of processes that train a run together.

    Each draws its dropout from a generator of its own, so a run in two is another run than in one.

    Raises:
        RequestError: as :func:`mtl.engine.device.open_device`, where the environment says more.
    """
    if "accelerate" not in sys.modules and not _told_anything() and find_spec("torch_xla") is None:
        return 1
    from mtl.engine.launch import accelerator

    return int(accelerator().num_processes)


def _told_anything() -> bool:
    """Whether the environment has anything to say to ``accelerate``."""
    return any(name.startswith("ACCELERATE_") or name == "LOCAL_RANK" for name in os.environ)


def _told_cpu() -> bool:
    from accelerate.utils import parse_flag_from_env

    return bool(parse_flag_from_env("ACCELERATE_USE_CPU"))


@lru_cache(maxsize=1)
def no_gpu() -> bool:
    """Whether torch is certain to find no GPU; False where only torch itself can tell.

    It is where torch was built for none, or for CUDA on Linux and there is no driver to load.
    """
    build = _torch_build()
    if build is None or build["hip"] is not None:
        return False
    if build["cuda"] is None:
        return True
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return True
    return False


def _torch_build() -> dict[str, str | None] | None:
    """For what torch was built, from its own ``version.py``, which nothing runs here."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    found: dict[str, str | None] = {}
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                value = ast.literal_eval(node.value)
                found[node.target.id] = None if value is None else str(value)
    except (OSError, ValueError, SyntaxError):
        return None
    return found if {"cuda", "hip"} <= found.keys() else None
