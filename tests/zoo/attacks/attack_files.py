"""Attacks by names, kinds and contents of files."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
from pathlib import Path

from attack_bench import attack


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
