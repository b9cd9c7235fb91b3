"""The text of a file: UTF-8, or the encoding that the task's file names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mtl.errors import RequestError

_OTHER = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (unpack it, or save the sheet as CSV)",
    b"\x1f\x8b": "a gzip archive (unpack it with `gunzip`)",
    b"PAR1": "a parquet file (give it the suffix .parquet)",
}
_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LOOKED_AT = 1 << 16
"""Bytes that a guess is made from."""
_LATIN = ("cp1252", "cp1250", "cp1254", "cp1257")
"""What Latin scripts are written in. Of two dozen letters the library believes in rarer codecs."""
_RUN = 3
"""Bytes beyond ASCII in a row from which they are a word of another script, and no accents."""
_SAMPLE = 48
"""Characters of a sample."""


@dataclass(frozen=True)
class Guess:
    """What the bytes of a file look like.

    Attributes:
        encoding: a codec of Python; None: a mixture, or nothing that is known.
        why: how it was seen, to go on from "it looks like …", or what is wrong.
        sample: some of the text that it gives, where it is not ASCII.
    """

    encoding: str | None
    why: str
    sample: str = ""


def decoded(path: Path, encoding: str | None) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        RequestError: missing, an archive, of another encoding, or with NUL characters; says file,
            line, and what the file looks like.
    """
    data = read_bytes(path)
    doing = encoding or "UTF-8"
    if encoding is None and data.startswith(_MARKS):
        raise RequestError(f"{path}, line 1: this is UTF-16. {_advice('utf-16')}")
    try:
        text = data.decode(encoding or "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = guess_encoding(data)
        told = f"It looks like {found.encoding}{found.why}. {_advice(found.encoding)}"
        if found.encoding is None:
            told = found.why
        raise RequestError(
            f"{path}, line {line}: the byte 0x{data[error.start]:02x} is not {doing}. {told}"
        ) from error
    zero = text.find("\0")
    if zero >= 0:
        line = text.count("\n", 0, zero) + 1
        found = guess_encoding(data)
        told = "The file is damaged, or binary; write it again."
        if found.encoding is not None and encoding is None:
            told = f"It looks like {found.encoding}{found.why}. {_advice(found.encoding)}"
        raise RequestError(
            f"{path}, line {line}: there is a NUL character, which no text has. {told}"
        )
    return text.removeprefix("\ufeff")


def read_bytes(path: Path) -> bytes:
    """What stands in a file.

    Raises:
        RequestError: it cannot be read, or is no text by its first bytes.
    """
    check_magic(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"Cannot read {path}: {error.strerror or error}.") from error


def check_magic(path: Path) -> None:
    """Refuse archives and the like by their first bytes.

    Raises:
        RequestError: the file cannot be read, or is no text.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(max(map(len, _OTHER)))
    except OSError as error:
        raise RequestError(f"Cannot read {path}: {error.strerror or error}.") from error
    for magic, what in _OTHER.items():
        if head.startswith(magic):
            raise RequestError(f"{path}, line 1: this is {what}, not text.")


def guess_encoding(data: bytes) -> Guess:
    """The encoding of bytes that are no UTF-8.

    ``charset-normalizer`` looks at the lines that are not ASCII; where its choice and cp1252 read
    them alike, it is cp1252, which most programs in the West write. A file of which some lines
    are UTF-8 and others are not is a mixture: no encoding reads it rightly. Whoever uses a guess
    shows its sample.
    """
    from charset_normalizer import from_bytes

    if data.startswith(_MARKS):
        return Guess("utf-16", "", _sample(data.decode("utf-16", "replace")))
    wide = _wide(data)
    if wide is not None:
        return wide
    lines = data.split(b"\n")
    odd = [(number, line) for number, line in enumerate(lines, 1) if not line.isascii()]
    good, bad = [], []
    for number, line in odd:
        try:
            line.decode("utf-8")
            good.append(number)
        except UnicodeDecodeError:
            bad.append(number)
    if good and bad:
        fewer = min((good, bad), key=len)
        return Guess(
            None,
            f"{len(good):,} lines with such bytes are UTF-8 and {len(bad):,} are not: no encoding "
            f"reads all of them. Write line {', '.join(map(str, fewer[:3]))}"
            f"{' and so on' if len(fewer) > 3 else ''} again, in the encoding of the others.",
        )
    head = b"\n".join([lines[0], *(line for _, line in odd)])[:_LOOKED_AT]
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", head)]
    latin = sum(run for run in runs if run >= _RUN) < sum(runs) / 2
    best = from_bytes(head, cp_isolation=[*_LATIN] if latin else None).best()
    names = [*_LATIN] if latin else []
    if best is not None and "cp1252" not in best.could_be_from_charset:
        names.insert(0, best.encoding)
    for name in names:
        try:
            text = data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        sample = _sample(text)
        return Guess(name, f" ({sample!r} stands there then)", sample)
    return Guess(None, "No encoding that is known reads it; save the file as UTF-8.")


def _wide(data: bytes) -> Guess | None:
    """UTF-16 without a byte order mark: every second byte of Western text is zero."""
    head = data[: _LOOKED_AT & ~1]
    for name, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if zeros and zeros.count(0) > 0.7 * len(zeros):
            try:
                text = data.decode(name)
            except UnicodeDecodeError:
                continue
            return Guess(name, "", _sample(text))
    return None


def _sample(text: str) -> str:
    """The surroundings of the first character that is not ASCII."""
    place = next((place for place, letter in enumerate(text) if not letter.isascii()), 0)
    begin = max(place - _SAMPLE // 3, text.rfind("\n", 0, place) + 1)
    return text[begin:].split("\n", 1)[0][:_SAMPLE].strip()


def _advice(encoding: str | None) -> str:
    return (
        f"Write `encoding: {encoding}` below `data` in the task file "
        f"(`python -m mtl.tasks new --encoding {encoding}`), or save the file as UTF-8."
    )
