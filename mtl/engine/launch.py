"""The processes of a run: what a launcher says of them, and the view that ``accelerate`` has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mtl.errors import RequestError

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_PORT")
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
START = "accelerate launch -m mtl.COMMAND …"


@dataclass(frozen=True)
class Launch:
    """Attributes: ``rank`` of this process, ``local`` processes of the run on this machine."""

    rank: int = 0
    local: int = 1


def launch(environment: Mapping[str, str] = os.environ) -> Launch:
    """Read the environment as ``accelerate`` does: without ``LOCAL_RANK`` nobody launched us.

    Raises:
        RequestError: a number that is none, or a ``LOCAL_RANK`` without what goes with it.
    """
    values = {name: _whole(name, environment[name]) for name in NUMBERS if environment.get(name)}
    if values.get("LOCAL_RANK", -1) < 0:
        return Launch()
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise RequestError(
            f"LOCAL_RANK={environment['LOCAL_RANK']} says that a launcher started this process, "
            f"but {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. Unset "
            f"LOCAL_RANK; a launcher, which sets all of them, is started with {START}"
        )
    return Launch(values["RANK"], max(1, values.get("LOCAL_WORLD_SIZE", 1)))


def _whole(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -2
    if number < (-1 if name == "LOCAL_RANK" else 0):
        raise RequestError(
            f"{name}={text!r} in the environment must be a whole number, as a launcher sets it. "
            f"Unset it; a launcher is started with {START}"
        )
    return number


def asked_of_accelerate(environment: Mapping[str, str] = os.environ) -> str:
    """What the environment tells ``accelerate``, for the message when it cannot do that."""
    told = [
        f"{name}={value}"
        for name, value in sorted(environment.items())
        if name.startswith("ACCELERATE_") or (name in (*NUMBERS, "MASTER_ADDR") and value)
    ]
    return " ".join(told) or "no ACCELERATE_… variable is set"


def accelerator() -> Any:
    """``accelerate``'s view of devices and processes, after a first sum on the device."""
    import torch

    try:
        # Its flags are read while it is imported and made, by code that raises whatever it likes.
        from accelerate import Accelerator

        found = Accelerator(mixed_precision="no")
    except Exception as error:
        raise RequestError(
            f"Cannot open the device that the environment asks for ({asked_of_accelerate()}): "
            f"{_short(error)} Unset what is wrong; ACCELERATE_USE_CPU=true computes on the CPU."
        ) from error
    try:
        (torch.ones(2, device=found.device) + 1).sum().item()
    except Exception as error:
        raise RequestError(
            f"Device {found.device} is there but cannot compute: {_short(error)} "
            "ACCELERATE_USE_CPU=true computes on the CPU."
        ) from error
    return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{text or type(error).__name__}."
