"""Entries as an attacker would write them. Each is refused at the door, and breaks nothing inside.

An attack changes a good entry in a folder; ``reseal`` then makes the manifest agree with the files
again, as somebody who knows the format would. What must hold for every one of them:
``check_foreign`` names the kind of problem, ``fsck`` of a zoo that holds it neither raises nor is
silent, and nothing appears outside the folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_bench import raw_safetensors, read, reseal, tampered, write
from safetensors.numpy import save_file
from zoo_bench import composition, manifest, store, task

from mtl.errors import MtlError, ZooError
from mtl.limits import Limits
from mtl.zoo import check_foreign, check_listing, open_zoo
from mtl.zoo.intake import admit

Attack = Callable[[Path], None]
ATTACKS: dict[str, tuple[str, Attack]] = {}


def attack(kind: str) -> Callable[[Attack], Attack]:
    """Register an attack that has to be found as a problem of this kind."""

    def register(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (kind, function)
        return function

    return register


# ------------------------------------------------------------------ names and kinds of files


@attack("name")
def hidden_file(folder: Path) -> None:
    (folder / ".bashrc").write_text("touch /tmp/x")


@attack("name")
def device_name(folder: Path) -> None:
    (folder / "aux.json").write_text("{}")


@attack("name")
def trailing_dot(folder: Path) -> None:
    (folder / "adapter_config.json.").write_text("{}")


@attack("name")
def alternate_stream(folder: Path) -> None:
    (folder / "a.json:evil").write_text("{}")


@attack("name")
def backslashes(folder: Path) -> None:
    (folder / "..\\..\\evil.json").write_text("{}")


@attack("name")
def control_characters(folder: Path) -> None:
    (folder / "a\x1b[2Jb.json").write_text("{}")


@attack("name")
def text_direction(folder: Path) -> None:
    (folder / "a\u202enosj.json").write_text("{}")


@attack("name")
def decomposed_unicode(folder: Path) -> None:
    (folder / "e\u0301.json").write_text("{}")
    (folder / "\u00e9.json").write_text("{}")


@attack("name")
def lookalike_letters(folder: Path) -> None:
    (folder / "аdapter_config.json").write_text("{}")  # a Cyrillic а


@attack("name")
def no_text_at_all(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.json")).write_text("{}")


@attack("name")
def newline(folder: Path) -> None:
    (folder / "a\nremoved everything.json").write_text("{}")


@attack("name")
def very_long_path(folder: Path) -> None:
    deep = folder.joinpath(*["d" * 100] * 5)
    deep.mkdir(parents=True)
    (deep / "a.json").write_text("{}")


@attack("name")
def case_only(folder: Path) -> None:
    (folder / "Adapter_Config.json").write_text("{}")


@attack("name")
def case_of_folders(folder: Path) -> None:
    for name in ("heads", "Heads"):
        (folder / name).mkdir()
        (folder / name / f"{name}.json").write_text("{}")


@attack("link")
def link_to_a_secret(folder: Path) -> None:
    (folder / "notes.json").symlink_to("/etc/passwd")


@attack("link")
def weights_are_a_link(folder: Path) -> None:
    outside = folder.parent.parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.move(folder / "adapter.safetensors", outside / "weights")
    (folder / "adapter.safetensors").symlink_to(outside / "weights")


@attack("link")
def link_to_a_folder(folder: Path) -> None:
    (folder / "heads").symlink_to("/")


@attack("link")
def link_in_a_circle(folder: Path) -> None:
    (folder / "heads").symlink_to(folder)


@attack("link")
def manifest_is_a_link(folder: Path) -> None:
    (folder.parent / "elsewhere.json").write_bytes((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")


@attack("link")
def pipe(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")


@attack("link")
def listening_socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("s")
    finally:
        os.chdir(here)


@attack("pickle")
def pickled_weights(folder: Path) -> None:
    (folder / "pytorch_adapter.bin").write_bytes(pickle.dumps({"a": 1}))


@attack("pickle")
def pickled_arrays(folder: Path) -> None:
    (folder / "scores.NPY").write_bytes(pickle.dumps([1]))


@attack("stray")
def a_script_beside(folder: Path) -> None:
    (folder / "modeling_evil.py").write_text("import os")


@attack("stray")
def weights_that_nobody_named(folder: Path) -> None:
    (folder / "delta.safetensors").write_bytes((folder / "adapter.safetensors").read_bytes())


# ------------------------------------------------------------------ the manifest


def file_entry(folder: Path, name: str) -> None:
    value = read(folder)
    value["files"][name] = {"sha256": "0" * 64, "bytes": 0}
    write(folder, value)


@attack("manifest")
def table_climbs_out(folder: Path) -> None:
    file_entry(folder, "../../../../etc/cron.d/evil.json")


@attack("manifest")
def table_is_absolute(folder: Path) -> None:
    file_entry(folder, "/etc/passwd")


@attack("manifest")
def table_names_a_drive(folder: Path) -> None:
    file_entry(folder, "C:/Windows/evil.json")


@attack("manifest")
def table_names_the_manifest(folder: Path) -> None:
    file_entry(folder, "manifest.json")


@attack("manifest")
def table_names_file_as_folder(folder: Path) -> None:
    file_entry(folder, "adapter_config.json/inner.json")


@attack("manifest")
def parent_climbs_out(folder: Path) -> None:
    value = read(folder)
    value["parents"] = [
        {"ref": "../../../evil", "digest": "a" * 64, "task": "t", "method": "m", "seed": 0}
    ]
    write(folder, value)


@attack("manifest")
def method_climbs_out(folder: Path) -> None:
    value = read(folder)
    value["method"] = "../../evil"
    write(folder, value)


@attack("manifest")
def deep_json(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"a":' * 50_000 + "1" + "}" * 50_000)


@attack("manifest")
def deep_placement(folder: Path) -> None:
    value = read(folder)
    for _ in range(200):
        value["placement"] = [value["placement"]]
    write(folder, value)


@attack("manifest")
def key_twice(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"seed":', '"seed": 7, "seed":', 1))


@attack("manifest")
def infinite_number(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"seconds": 1.5', '"seconds": 1e999'))


@attack("manifest")
def endless_number(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"seed": 0', f'"seed": {"9" * 100_000}', 1))


@attack("manifest")
def half_a_surrogate(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("python -m", "\\ud800"))


@attack("manifest")
def a_million_lists(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" + "[]," * 2_000_000 + "[]]")


@attack("manifest")
def no_utf8(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b'{"a": "\xff\xfe"}')


@attack("manifest")
def better_metrics(folder: Path) -> None:
    value = read(folder)
    value["metrics"]["test"]["accuracy"]["value"] = 1.0
    write(folder, value)


@attack("manifest")
def bool_as_number(folder: Path) -> None:
    value = read(folder)
    value["seed"] = True
    write(folder, value)


# ------------------------------------------------------------------ tensors


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


# ------------------------------------------------------------------ what does not fit


@attack("fit")
def a_layer_that_the_base_has_not(folder: Path) -> None:
    save_file({"encoder.layer.99.w": np.zeros(3, np.float32)}, folder / "adapter.safetensors")
    reseal(folder)


@attack("fit")
def weights_that_are_integers(folder: Path) -> None:
    save_file({"w": np.zeros(3, np.int64)}, folder / "adapter.safetensors")
    reseal(folder)


@attack("fit")
def config_of_another_width(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"config": {}, "hidden_size": 4096}')
    reseal(folder)


@attack("fit")
def head_that_claims_a_billion_labels(folder: Path) -> None:
    head = {"config": {"num_labels": 10**9, "layers": 1}, "hidden_size": 8}
    (folder / "head_config.json").write_text(json.dumps(head))
    save_file(
        {"heads.own.1.weight": np.zeros((2, 8), np.float32)}, folder / "model_head.safetensors"
    )
    reseal(folder)


@attack("fit")
def head_of_another_task(folder: Path) -> None:
    save_file(
        {"heads.own.1.weight": np.zeros((9, 8), np.float32)}, folder / "model_head.safetensors"
    )
    reseal(folder)


@attack("fit")
def predictions_of_another_length(folder: Path) -> None:
    values = {
        "row": np.arange(4),
        "label": np.zeros(9, np.int64),
        "prediction": np.zeros(9, np.int64),
        "scores": np.zeros((4, 2), np.float32),
    }
    save_file(values, folder / "predictions.safetensors")
    reseal(folder)


@attack("fit")
def omega_of_more_sources(folder: Path) -> None:
    save_file({"omega.0": np.zeros((7, 8), np.float32)}, folder / "composition.safetensors")
    reseal(folder)


# ------------------------------------------------------------------ configs that ask for code


def config(folder: Path, value: Any) -> None:
    (folder / "adapter_config.json").write_text(json.dumps(value))
    reseal(folder)


@attack("config")
def auto_map(folder: Path) -> None:
    config(folder, {"config": {}, "auto_map": {"AutoModel": "evil--repo.modeling.Evil"}})


@attack("config")
def custom_code_inside(folder: Path) -> None:
    config(folder, {"config": {"inner": [{"custom_code": "x"}]}})


@attack("config")
def trust_remote_code(folder: Path) -> None:
    config(folder, {"config": {}, "trust_remote_code": True})


@attack("config")
def target_to_instantiate(folder: Path) -> None:
    config(folder, {"config": {"_target_": "os.system", "command": "id"}})


@attack("config")
def library_to_import(folder: Path) -> None:
    config(folder, {"peft_type": "LORA", "auto_mapping": {"parent_library": "evil.module"}})


@attack("config")
def unknown_architecture(folder: Path) -> None:
    config(folder, {"config": {"architecture": "evil.module:Class"}})


@attack("config")
def architecture_is_a_list(folder: Path) -> None:
    config(folder, {"config": {"architecture": [["lora"]]}})


@attack("json")
def config_is_no_json(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("!!python/object/apply:os.system ['id']")
    reseal(folder)


@attack("json")
def config_without_end(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("[" * 200_000)
    reseal(folder)


# ------------------------------------------------------------------ what must hold


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(root)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in root.rglob("*")
        if not path.is_relative_to(root / "zoo")
    }


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A good entry, alone in a zoo."""
    return store(open_zoo(tmp_path / "zoo"), manifest()).folder


def test_there_are_enough() -> None:
    assert len(ATTACKS) >= 30


def test_a_good_entry_passes(staged: Path, tmp_path: Path) -> None:
    assert check_foreign(staged) == []
    sources = [store(open_zoo(tmp_path / "b"), manifest(task=task(name))) for name in ("a", "b")]
    made = composition(open_zoo(tmp_path / "b"), sources, np.ones((2, 2, 8), np.float32))
    assert check_foreign(made.folder) == []


@pytest.mark.parametrize("name", ATTACKS)
def test_refused_at_the_door(name: str, staged: Path, tmp_path: Path) -> None:
    kind, perform = ATTACKS[name]
    try:
        perform(staged)
    except OSError as error:
        pytest.skip(f"this file system does not allow it: {error}")
    before = snapshot(tmp_path)
    found = check_foreign(staged)
    assert kind in {problem.kind for problem in found}, found
    for problem in found:
        assert str(problem).encode(), "has to be printable"
        assert len(str(problem)) < 3000
    with pytest.raises(ZooError, match="was not taken into the zoo"):
        admit(staged, "the entry")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ATTACKS)
def test_breaks_nothing_inside(name: str, staged: Path, tmp_path: Path) -> None:
    """A copy of somebody's zoo: whoever looks at it sees what is wrong, and the rest of it."""
    _, perform = ATTACKS[name]
    kept = store(open_zoo(tmp_path / "zoo"), manifest(seed=5, runhash="5" * 16))
    try:
        perform(staged)
    except OSError as error:
        pytest.skip(f"this file system does not allow it: {error}")
    zoo = open_zoo(tmp_path / "zoo")
    assert kept.ref in [entry.ref for entry in zoo.entries()]
    assert zoo.fsck() != []
    with contextlib.suppress(MtlError):
        zoo.load_check(zoo.get(staged.relative_to(zoo.root).as_posix()))
    zoo.load_check(kept)


def test_hard_links_are_refused_at_the_door_only(staged: Path, tmp_path: Path) -> None:
    """A backup made of hard links is a good zoo; something fetched has none."""
    os.link(staged / "adapter.safetensors", tmp_path / "other")
    assert {problem.kind for problem in check_foreign(staged)} == {"link"}
    assert open_zoo(tmp_path / "zoo").fsck() == []


def test_a_folder_that_is_a_link(staged: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(staged)
    assert {problem.kind for problem in check_foreign(tmp_path / "link")} == {"link"}


def test_sizes_and_counts_are_limited(staged: Path) -> None:
    for limits, kind in (
        (Limits(file_bytes=50), "size"),
        (Limits(entry_bytes=100), "size"),
        (Limits(files=2), "size"),
        (Limits(json_bytes=100), "manifest"),
        (Limits(json_depth=2), "manifest"),
        (Limits(json_values=20), "manifest"),
        (Limits(header_bytes=20), "tensors"),
        (Limits(rank=1), "tensors"),
    ):
        found = check_foreign(staged, limits)
        assert kind in {problem.kind for problem in found}, (limits, found)


def test_sparse_file_of_a_terabyte(staged: Path) -> None:
    """Declared size without a byte on the disk: refused by its size, not read."""
    try:
        os.truncate(staged / "adapter.safetensors", 1 << 40)
    except OSError as error:
        pytest.skip(str(error))
    assert {problem.kind for problem in check_foreign(staged)} == {"size"}


def test_what_is_declared_is_checked_before_it_is_fetched() -> None:
    assert check_listing({"a/manifest.json": 10, "a/adapter.safetensors": 10}) == []
    for sizes in (
        {"../a.json": 1},
        {"/etc/passwd": 1},
        {"a//b.json": 1},
        {"a.json": -1},
        {"a.json": 1 << 60},
        {"a.json": 1, "A.json": 1},
        {"a.json": 1, "a.json/b.json": 1},
        {"con": 1},
        {f"{index}.json": 1 for index in range(3000)},
        {f"{index}.json": 10 << 30 for index in range(10)},
    ):
        assert check_listing(sizes), sizes


def test_a_repository_of_adapters_without_manifest(staged: Path) -> None:
    (staged / "manifest.json").unlink()
    assert check_foreign(staged) == []
    (staged / "pytorch_adapter.bin").write_bytes(b"x")
    assert {problem.kind for problem in check_foreign(staged)} == {"pickle"}
    assert check_foreign(staged, unread={"pytorch_adapter.bin"}) == []
    (staged / "setup.py").write_text("x")
    assert {p.kind for p in check_foreign(staged, unread={"pytorch_adapter.bin"})} == {"stray"}


def test_the_limits_of_the_environment(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTL_LIMITS", "file_bytes=10KiB, files=100")
    assert check_foreign(staged) == []
    monkeypatch.setenv("MTL_LIMITS", "file_bytes=90")
    assert "size" in {problem.kind for problem in check_foreign(staged)}
    for text, says in (
        ("file_byte=1", "Did you mean"),
        ("files=many", "files=2000"),
        ("files=0", "1"),
    ):
        monkeypatch.setenv("MTL_LIMITS", text)
        with pytest.raises(MtlError, match=says):
            check_foreign(staged)
