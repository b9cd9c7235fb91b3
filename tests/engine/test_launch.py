"""What launchers and ``accelerate`` are told by the environment: read, or refused in a message."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mtl.engine import open_device
from mtl.engine.launch import Launch, launch
from mtl.errors import RequestError

WHOLE = {
    "LOCAL_RANK": "1",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Launch(0, 1)),
        (WHOLE, Launch(3, 2)),
        # `accelerate` does not look at a rank without a local one, so this process is the only one
        ({"RANK": "1"}, Launch(0, 1)),
        ({**WHOLE, "LOCAL_RANK": "-1"}, Launch(0, 1)),
        ({"LOCAL_RANK": "", "RANK": ""}, Launch(0, 1)),
    ],
)
def test_a_launcher_is_heard(environment: dict[str, str], found: Launch) -> None:
    assert launch(environment) == found


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "abc"}, r"RANK='abc' in the environment must be a whole number"),
        ({"WORLD_SIZE": "2.5"}, r"WORLD_SIZE='2\.5'"),
        ({**WHOLE, "MASTER_PORT": "http"}, r"MASTER_PORT='http'"),
        ({"RANK": "-1"}, r"RANK='-1'"),
        (
            {"LOCAL_RANK": "0"},
            r"LOCAL_RANK=0 .* but RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT are not set",
        ),
        ({k: v for k, v in WHOLE.items() if k != "RANK"}, r"but RANK is not set\. Unset LOCAL"),
    ],
)
def test_what_no_launcher_says_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        launch(environment)


@pytest.fixture
def fresh() -> Any:
    """``accelerate`` reads the environment once per process; here, again."""
    from accelerate.state import AcceleratorState, PartialState

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()

    reset()
    yield
    reset()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed is not installed"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "Megatron is not installed"),
        ("ACCELERATE_USE_CPU", "maybe", "invalid truth value maybe"),
        ("ACCELERATE_TORCH_DEVICE", "nonsense", "device"),
        ("ACCELERATE_TORCH_DEVICE", "meta", "meta is there but cannot compute"),
    ],
)
def test_what_accelerate_cannot_do_is_one_message(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match=said) as caught:
        open_device("fp32")
    assert "ACCELERATE_USE_CPU=true" in str(caught.value)
    assert f"{name}={value}" in str(caught.value) or value == "meta"


@pytest.mark.usefixtures("fresh")
def test_a_device_that_cannot_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """An old GPU is there and has no kernels in this build: the first sum says so."""

    def ones(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", ones)
    with pytest.raises(RequestError, match=r"cpu is there but cannot compute: CUDA error: no ker"):
        open_device("fp32")
