"""Archives of strangers: links, lies, cuts and bytes that are others; nothing of them is stored."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_bench import composed, proven
from zoo_bench import digests, manifest, store, task, untouched

from mtl.cli.main import dispatch
from mtl.errors import MtlError, ZooError
from mtl.limits import VARIABLE
from mtl.zoo import Zoo
from mtl.zoo.packing import pack, unpack
from mtl.zoo.sharing import copy

Members = list[tuple[tarfile.TarInfo, bytes]]


def members(file: Path) -> Members:
    with tarfile.open(file) as archive:
        return [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]


def written(found: Members, form: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in found:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(kind: bytes, name: str, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def plain(name: str, data: bytes = b"{}") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def renamed(found: Members, at: int, name: str) -> Members:
    found[at][0].name = name
    return found


def resized(data: bytes, at: int, size: int) -> bytes:
    """The header at a byte with another size, and a checksum that fits it."""
    info = tarfile.TarInfo.frombuf(data[at : at + 512], "utf-8", "strict")
    info.size = size
    header = info.tobuf(tarfile.GNU_FORMAT)  # which can say more than 8 GiB
    return data[:at] + header[:512] + data[at + 512 :]


def other_bytes(found: Members) -> Members:
    info, data = found[2]
    found[2] = info, bytes([data[0] ^ 1]) + data[1:]
    return found


def lying(found: Members, **changes: Any) -> Members:
    info, data = found[0]
    return [plain(info.name, json.dumps({**json.loads(data), **changes}).encode()), *found[1:]]


HOSTILE: dict[str, tuple[str, Callable[[Members, str], Members | bytes]]] = {
    "absolute": ("not a plain relative path", lambda m, r: [plain("/etc/x"), *m]),
    "absolute manifest": ("not a plain", lambda m, r: renamed(m, 0, "/tmp/x/manifest.json")),
    "climbs": ("not a plain relative path", lambda m, r: renamed(m, 0, "a/../../x/manifest.json")),
    "climbs later": ("not a plain", lambda m, r: renamed(m, 1, f"{r}/../../../../../../x.json")),
    "a drive": ("cannot be used", lambda m, r: renamed(m, 0, "C:\\x/manifest.json")),
    "hidden": ("cannot be used", lambda m, r: renamed(m, 0, "a/.tmp-x/manifest.json")),
    "a device name": ("some systems reserve", lambda m, r: renamed(m, 0, "a/NUL/manifest.json")),
    "control characters": ("cannot be used", lambda m, r: renamed(m, 0, "a/\x1b[2J/manifest.json")),
    "very long": (
        "no regular file",
        lambda m, r: written(renamed(m, 0, "a/" * 300 + "manifest.json"), tarfile.PAX_FORMAT),
    ),
    "a header of the pax kind": (
        "no regular file (type b'x')",
        lambda m, r: [special(tarfile.XHDTYPE, "pax"), *m],
    ),
    "symbolic link": ("symbolic link", lambda m, r: [special(tarfile.SYMTYPE, "a/b", "/etc"), *m]),
    "link for weights": (
        "a symbolic link",
        lambda m, r: [m[0], special(tarfile.SYMTYPE, f"{r}/adapter.safetensors", "/etc/passwd")],
    ),
    "hard link": ("a hard link", lambda m, r: [*m, special(tarfile.LNKTYPE, "a/b", m[0][0].name)]),
    "character device": ("a device", lambda m, r: [special(tarfile.CHRTYPE, "a/b"), *m]),
    "block device": ("a device", lambda m, r: [*m, special(tarfile.BLKTYPE, "a/b")]),
    "pipe": ("a pipe", lambda m, r: [special(tarfile.FIFOTYPE, "a/b"), *m]),
    "folder": ("a folder", lambda m, r: [special(tarfile.DIRTYPE, "a"), *m]),
    "sparse": ("a sparse file", lambda m, r: [special(tarfile.GNUTYPE_SPARSE, "a/b"), *m]),
    "terabytes": ("limit file_bytes", lambda m, r: resized(written(m), 0, 1 << 50)),
    "negative": ("bytes", lambda m, r: resized(written(m), 0, -512)),
    "large manifest": (
        "limit json_bytes",
        lambda m, r: [plain(m[0][0].name, b" " * ((8 << 20) + 1)), *m[1:]],
    ),
    "longer than it is": ("cut within", lambda m, r: resized(written(m), 0, 1 << 30)),
    "the same twice": ("there twice", lambda m, r: [*m, *m]),
    "a file twice": ("should", lambda m, r: [m[0], m[1], m[1], *m[2:]]),
    "a file left out": ("should", lambda m, r: [m[0], *m[2:]]),
    "a further file": ("stands where", lambda m, r: [*m, plain(f"{r}/evil.pkl")]),
    "a pickle first": ("stands where", lambda m, r: [plain("evil.pkl"), *m]),
    "other order": ("stands where", lambda m, r: [m[0], m[2], m[1], *m[3:]]),
    "no entry": ("holds no entry", lambda m, r: []),
    "no JSON": ("cannot be read as JSON", lambda m, r: [plain(m[0][0].name, b"{"), *m[1:]]),
    "deep": ("limit json_depth", lambda m, r: [plain(m[0][0].name, b"[" * 100_000), *m[1:]]),
    "a changed manifest": ("was changed after", lambda m, r: lying(m, seed=3)),
    "bytes between members": (
        "no part of it",
        lambda m, r: written(m).replace(m[0][1] + bytes(3), m[0][1] + b"abc"),
    ),
    "other bytes": ("is damaged", lambda m, r: other_bytes(m)),
    "cut at a member": ("cut", lambda m, r: written(m)[: m[-1][0].offset]),
    "cut in a member": ("cut within", lambda m, r: written(m)[: m[-1][0].offset + 512 + 3]),
    "cut in a header": ("cut", lambda m, r: written(m)[: m[-1][0].offset + 100]),
    "half an end": ("cut", lambda m, r: written(m).rstrip(b"\0") + b"\0" * 600),
    "a tail": ("behind the end", lambda m, r: written(m) + b"x"),
    "a long tail": ("behind the end", lambda m, r: written(m) + bytes(1 << 20)),
    "a second archive behind": ("behind the end", lambda m, r: written(m) + written(m)),
    "no archive": ("no tar archive", lambda m, r: b"PK\x03\x04" + b"x" * 2000),
    "compressed": ("no tar archive", lambda m, r: gzip.compress(os.urandom(4096))),
    "empty": ("no archive", lambda m, r: b""),
    "a wrong checksum": ("no tar archive", lambda m, r: b"x" + written(m)[1:]),
    "noise": ("no tar archive", lambda m, r: os.urandom(10240)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive(
    name: str, zoo: Zoo, other: Zoo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One message, exit 1, nothing stored, nothing anywhere else."""
    entry = proven(zoo)
    file = tmp_path / "x.mtlzoo"
    pack(zoo, [], file)
    part, change = HOSTILE[name]
    made = change(members(file), entry.ref)
    file.write_bytes(made if isinstance(made, bytes) else written(made))
    before = sorted(tmp_path.iterdir())
    code = dispatch("zoo", ["unpack", str(file), "--zoo", str(other.root)])
    said = capsys.readouterr()
    assert code == 1, said
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert "x.mtlzoo" in said.err
    assert "\x1b" not in said.err
    assert untouched(other)
    assert sorted(tmp_path.iterdir()) == before


def test_the_second_entry_of_an_archive_is_damaged(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    """Bytes of all are compared before the first one is stored."""
    proven(zoo)
    proven(zoo, 2.0, task=task("more"))
    file = tmp_path / "x.mtlzoo"
    pack(zoo, [], file)
    data = bytearray(file.read_bytes())
    last = max(m.offset_data for m, _ in members(file) if m.name.endswith("adapter.safetensors"))
    data[last + 20] ^= 1
    file.write_bytes(data)
    with pytest.raises(ZooError, match="is damaged"):
        unpack(other, file)
    assert untouched(other)


def test_every_cut_and_every_bit(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    """A message, or exactly the entry: wherever an archive is cut or a byte of it is another."""
    entry = proven(zoo)
    file = tmp_path / "x.mtlzoo"
    pack(zoo, [], file)
    whole = file.read_bytes()
    end = max(m.offset_data + m.size for m, _ in members(file))
    spoilt = [whole[:at] for at in range(0, end, 331)]
    spoilt += [whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :] for at in range(0, end, 97)]
    stored = 0
    for data in spoilt:
        file.write_bytes(data)
        try:
            unpack(other, file)
        except MtlError:
            assert untouched(other)
            continue
        stored += 1  # a byte of the card, or of what no reader looks at in a header
        assert digests(other) == {entry.ref: entry.digest}
        assert other.fsck() == []
        shutil.rmtree(other.root)
    assert stored < len(spoilt) / 3


def test_content_that_no_zoo_takes(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    """Hashes fit; the weights are no numbers: refused by the checks of a pull."""
    store(zoo, manifest(), float("nan"))
    pack(zoo, [], tmp_path / "x.mtlzoo")
    for share in (lambda: unpack(other, tmp_path / "x.mtlzoo"), lambda: copy(zoo, [], other)):
        with pytest.raises(ZooError, match="NaN or infinite"):
            share()
        assert untouched(other)


def test_a_source_that_is_nowhere(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    whole, _ = composed(zoo)
    file = tmp_path / "x.mtlzoo"
    pack(zoo, [whole.ref], file)
    file.write_bytes(written([m for m in members(file) if m[0].name.startswith(whole.ref)]))
    with pytest.raises(ZooError, match="neither before it in the archive nor in the zoo"):
        unpack(other, file)
    assert untouched(other)


def test_limits_hold(zoo: Zoo, other: Zoo, tmp_path: Path, monkeypatch: Any) -> None:
    proven(zoo)
    pack(zoo, [], tmp_path / "x.mtlzoo")
    for limit in ("files=2", "file_bytes=50", "entry_bytes=100", "json_bytes=100"):
        monkeypatch.setenv(VARIABLE, limit)
        with pytest.raises(ZooError, match=limit.partition("=")[0]):
            unpack(other, tmp_path / "x.mtlzoo")
    monkeypatch.delenv(VARIABLE)
    assert untouched(other)


def test_an_entry_inside_another(zoo: Zoo, other: Zoo, tmp_path: Path) -> None:
    one, two = proven(zoo), proven(zoo, 2.0, task=task("more"))
    file = tmp_path / "x.mtlzoo"
    pack(zoo, [], file)
    found = members(file)
    for info, _ in found:
        info.name = info.name.replace(two.ref, f"{one.ref}/inner")
    file.write_bytes(written(found))
    with pytest.raises(ZooError, match="cannot stand beside each other"):
        unpack(other, file)
    assert untouched(other)
    kept = proven(other)
    file.write_bytes(written([m for m in found if "/inner/" in m[0].name]))
    with pytest.raises(ZooError, match="is an entry"):
        unpack(other, file)
    assert digests(other) == {kept.ref: kept.digest}
