"""Attacks by the headers and values of tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from attack_bench import attack, raw_safetensors, reseal, tampered
from safetensors.numpy import save_file


def one(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@attack("tensors")
def header_longer_than_the_file(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(), bytes(24), length=1 << 20)
    tampered(folder)


@attack("tensors")
def header_of_exabytes(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(), bytes(24), length=2**64 - 1)
    tampered(folder)


@attack("tensors")
def overlapping_tensors(folder: Path) -> None:
    header = {**one(), "v": {"dtype": "F32", "shape": [3], "data_offsets": [12, 24]}}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def the_same_bytes_twice(folder: Path) -> None:
    header = {**one(), "v": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def a_hole_between(folder: Path) -> None:
    header = {**one(), "v": {"dtype": "F32", "shape": [1], "data_offsets": [100, 104]}}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(104))
    tampered(folder)


@attack("tensors")
def hidden_tail(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(), bytes(24) + b"#!/bin/sh\nevil")
    tampered(folder)


@attack("tensors")
def offsets_beyond_the_file(folder: Path) -> None:
    header = one(shape=[2**40], offsets=[0, 2**42])
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def negative_offsets(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(offsets=[-24, 0]), bytes(24))
    tampered(folder)


@attack("tensors")
def backward_offsets(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(offsets=[24, 0]), bytes(24))
    tampered(folder)


@attack("tensors")
def shape_that_overflows(folder: Path) -> None:
    header = one(shape=[2**32, 2**32, 6], offsets=[0, 24])
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def shape_of_booleans(folder: Path) -> None:
    header = one(dtype="F32", shape=[True], offsets=[0, 4])
    raw_safetensors(folder / "adapter.safetensors", header, bytes(4))
    tampered(folder)


@attack("tensors")
def a_hundred_axes(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(shape=[1] * 100, offsets=[0, 4]), bytes(4))
    tampered(folder)


@attack("tensors")
def unknown_dtype(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(dtype="OBJECT"), bytes(24))
    tampered(folder)


@attack("tensors")
def tensor_named_twice(folder: Path) -> None:
    text = json.dumps(one())[:-1] + "," + json.dumps(one())[1:]
    raw_safetensors(folder / "adapter.safetensors", text.encode(), bytes(24))
    tampered(folder)


@attack("tensors")
def tensor_name_that_clears_the_screen(folder: Path) -> None:
    header = {"\x1b[2J": one()["w"]}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def metadata_of_numbers(folder: Path) -> None:
    header = {"__metadata__": {"a": 1}, **one()}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


# What the library takes for a header of these is more than what we do.


@attack("tensors")
def tensor_as_a_list(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", {"w": list(one()["w"].values())}, bytes(24))
    tampered(folder)


@attack("tensors")
def dtype_as_an_object(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", one(dtype={"F32": None}), bytes(24))
    tampered(folder)


@attack("tensors")
def a_further_key(folder: Path) -> None:
    header = {"w": {**one()["w"], "loader": "os.system"}}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def an_empty_tensor_of_huge_axes(folder: Path) -> None:
    header = {**one(), "e": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [24, 24]}}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def a_name_of_a_million_letters_that_overlaps(folder: Path) -> None:
    header = {**one(), "\x1b" * 1_000_000: one()["w"]}
    raw_safetensors(folder / "adapter.safetensors", header, bytes(24))
    tampered(folder)


@attack("tensors")
def deep_header(folder: Path) -> None:
    raw_safetensors(folder / "adapter.safetensors", b'{"a":' * 20_000 + b"1" + b"}" * 20_000)
    tampered(folder)


@attack("tensors")
def other_shape_than_the_manifest(folder: Path) -> None:
    save_file({"w": np.zeros((3, 2), np.float32)}, folder / "adapter.safetensors")
    tampered(folder)


@attack("tensors")
def other_dtype_than_the_manifest(folder: Path) -> None:
    save_file({"w": np.zeros((2, 6), np.float16)}, folder / "adapter.safetensors")
    tampered(folder)


@attack("values")
def weights_that_are_nan(folder: Path) -> None:
    values = np.zeros((2, 3), np.float32)
    values[1, 2] = np.nan
    save_file({"w": values}, folder / "adapter.safetensors")
    reseal(folder)


@attack("values")
def infinite_bfloat16(folder: Path) -> None:
    header = one(dtype="BF16", shape=[2], offsets=[0, 4])
    raw_safetensors(folder / "adapter.safetensors", header, b"\x00\x00\x80\xff")
    reseal(folder)
