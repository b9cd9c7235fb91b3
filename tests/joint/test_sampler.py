"""The sampler of joint runs: the reference's draws, its distribution, and what a feed gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtl.data import Encoded
from mtl.errors import RequestError
from mtl.files import read_safetensors
from mtl.joint.sampler import JointFeed, Sampling, draw, task_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "case06_multitask_sampler.safetensors"


CASES = sorted(key.rpartition(".")[0] for key in read_safetensors(GOLDEN)[0] if key[-5:] == ".task")


@pytest.mark.parametrize("prefix", CASES)
def test_golden_draws(prefix: str) -> None:
    g, said = read_safetensors(GOLDEN)
    name, temp, number = prefix.split(".")
    temperature, epoch = int(temp.removeprefix("temp")), int(number.removeprefix("epoch"))
    sizes = g[f"{name}.sizes"].tolist()
    found = draw(sizes, int(said["batch_size"]), temperature, int(said["sampler_seed"]), epoch)
    assert len(found) == int(g[f"{prefix}.num_batches"])
    expected = g[f"{prefix}.task"].tolist()
    assert [task for task, _ in found[: len(expected)]] == expected
    rows = np.stack([rows for _, rows in found[: len(expected)]])
    assert np.array_equal(rows, g[f"{prefix}.local_index"].numpy())
    np.testing.assert_allclose(
        task_weights(sizes, temperature), g[f"{prefix}.task_weights"], rtol=1e-12
    )


def test_the_golden_cases_are_there() -> None:
    assert len(CASES) == 8


def encoded(rows: int) -> Encoded:
    return Encoded(
        name="train",
        labels=np.arange(rows, dtype=np.int64) % 2,
        row=np.arange(rows, dtype=np.int64),
        choices=1,
        ids=np.arange(2 * rows, dtype=np.int32),
        types=None,
        start=2 * np.arange(rows + 1, dtype=np.int64),
        lengths=np.full(rows, 2),
        truncated=0,
        table={},
        pad_id=0,
        fingerprint="",
    )


def test_a_feed_is_a_pure_function_of_seed_and_epoch() -> None:
    splits = {"x/a": encoded(90), "x/b": encoded(10)}

    def orders(seed: int) -> list[list[tuple[str, list[int]]]]:
        feed = JointFeed(splits, 8, 1.0, seed)
        return [[(t, rows.tolist()) for t, rows in feed.order(epoch)] for epoch in (0, 1)]

    assert orders(3) == orders(3)
    assert orders(3)[0] != orders(3)[1]
    assert orders(3) != orders(4)
    (task, rows), *_ = JointFeed(splits, 8, 1.0, 3).order(0)
    batch = JointFeed(splits, 8, 1.0, 3).collate(task, rows)
    assert batch["task"] == task
    assert batch["row"].tolist() == rows.tolist()
    assert batch["input_ids"][:, 0].tolist() == (2 * rows).tolist()


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (10.0, 0.555), (1e6, 0.5)])
def test_temperature_flattens_the_draws(temperature: float, share: float) -> None:
    found = draw([9000, 1000], 1, temperature, 0, 0)
    first = np.mean([task == 0 for task, _ in found])
    assert first == pytest.approx(share, abs=0.02)


def test_settings_are_checked() -> None:
    for wrong in ({"temperature": 0.0}, {"sampler_seed": -2}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            Sampling(**wrong)
