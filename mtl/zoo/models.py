"""How files of strangers are checked against a schema: pydantic, strict, one sentence per refusal.

:func:`check` is the door. Values are looked at and stay as they are, so that no digest changes:
what counts as a number, or what a missing key means, is nothing that a schema may decide. Further
keys are kept (and, in a part of a manifest that is its identity, enter the digest) unless a schema
forbids them. Importing this module costs a tenth of a second, so it is imported where a file is
checked, not where its types are named.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from mtl.errors import MtlError, ZooError, did_you_mean
from mtl.zoo.names import safe_name, safe_path, show


def check(kind: Any, value: Any, where: str) -> Any:
    """``value`` as ``kind``, which is anything that pydantic can make a schema of.

    Raises:
        ZooError: one sentence that names ``where``, the key, and what was found there.
    """
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise ZooError(_sentence(error, value, where)) from error
    except UnicodeError as error:  # half of a surrogate pair; no JSON that we read has one
        raise ZooError(f"{where}: {show(str(error))}.") from error


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _sentence(error: ValidationError, value: Any, where: str) -> str:
    """The first refusal in words; of its place only what is a key or an index of ``value``."""
    first = error.errors(include_url=False)[0]
    key: Any = ""
    for key in first["loc"]:
        if isinstance(value, dict) and key in value:
            plain = str(key).isidentifier() and len(str(key)) < 60
            value, where = value[key], f"{where}.{key}" if plain else f"{where}[{show(key)}]"
        elif isinstance(value, list) and isinstance(key, int) and key < len(value):
            value, where = value[key], f"{where}[{key}]"
    if first["type"] == "missing":
        return f"{where}: the key {key!r} is missing."
    if first["type"] == "value_error":
        return f"{where}: {str(first['ctx']['error']).rstrip('.')}."
    said = _SAID.get(first["type"], first["msg"].removeprefix("Input "))
    return f"{where}: {said}, found {show(first['input'])}."


_SAID = dict.fromkeys(("model_type", "dict_type", "dataclass_type"), "should be an object")
_SAID["tuple_type"] = "should be a list"


def by(function: Callable[[Any], object]) -> AfterValidator:
    """A further check of a value that has the right type: ``function`` raises what is wrong."""

    def validate(value: Any) -> Any:
        try:
            function(value)
        except MtlError as error:
            raise ValueError(str(error)) from error
        return value

    return AfterValidator(validate)


class Model(BaseModel):
    """An object with at least these keys; none is turned into another type."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


def only_known(value: Any, known: Collection[str]) -> Any:
    """``value`` if it is no object with other keys than ``known``. Raises ValueError.

    pydantic's ``forbid`` makes an error of each such key: a file of a million takes a gigabyte.
    """
    for key in sorted(value.keys() - known, key=str)[:1] if isinstance(value, dict) else ():
        guess = did_you_mean(str(key)[:60], known)
        raise ValueError(f"unknown key {show(key)}.{guess}")
    return value


class Closed(Model):
    """An object with these keys alone."""

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, value: Any) -> Any:
        return only_known(value, cls.model_fields.keys())


T = TypeVar("T")
FIRST = Field(fail_fast=True)  # the first wrong item ends it, for the same reason
List = Annotated[list[T], FIRST]
Table = Annotated[dict[str, T], FIRST]
Count = Annotated[int, Field(ge=0)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
SafeName = Annotated[str, by(lambda name: safe_name(name, "name"))]
SafePath = Annotated[str, by(lambda path: safe_path(path, "path"))]
Object = Table[Any]
Text = str | None


class Base(Model):
    id: str
    revision: Text
    fingerprint: Hash
    type: str
    hidden_size: Count
    layers: Count
    tokenizer: Text


class Function(Base):
    """What a base says of its function, from schema version 3; an older one says nothing of it."""

    weights: Digest
    pooler: Digest | None
    config: Object


class Task(Model):
    id: str
    suite: str
    name: SafeName
    kind: str
    labels: List[str] | None
    metrics: List[str]
    headline: Text
    num_outputs: int | None
    spec: Object | None = None


class Data(Model):
    fingerprint: str
    protocol: Text
    sizes: Table[Count]
    notes: List[Any] | Object | Text
    splits: Table[str] | None = None
    few_shot: Object | None = None


class Value(Model):
    value: float | None
    stderr: float | None
    n: int | None
    caveat: Text = None


class Baseline(Model):
    train: Count
    says: Text
    splits: Table[Table[Value]]


class Baselines(Model):
    train: Count
    seconds: float
    scores: Table[Baseline]
    missing: Table[str]


class Losses(Model):
    constant: float
    least: float


class Training(Model):
    steps: Count
    epochs: float | None
    best_step: int | None
    seconds: float
    device: str
    precision: str
    threads: int | None
    trainable_parameters: Count
    stopped: bool | Text
    baselines: Table[Baselines] | None = None
    constant: Table[Table[str]] | None = None
    losses: Losses | None = None


class Parent(Model):
    ref: SafePath
    digest: Digest
    task: str
    method: str
    seed: int


class ManifestFile(Closed):
    """``manifest.json`` without its digest and its file table."""

    schema_version: int
    kind: Literal["adapter", "composition", "joint"]
    weights: Literal["adapters", "peft", "delta"]
    base: Base
    task: Task
    suite: SafeName
    method: SafeName
    method_settings: Object
    run_settings: Object
    seed: Count
    data: Data
    head: Object
    placement: Any
    metrics: Table[Table[Value]]
    training: Training
    versions: Table[Text]
    parents: List[Parent]
    runhash: Hash
    command: str
    verified: Object | None
    created: str


class File(Model):
    sha256: Digest
    bytes: Count


class TensorFile(File):
    """A safetensors file, from schema version 2: dtype and shape of each tensor."""

    tensors: Table[Annotated[tuple[str, List[Count]], Field(strict=False)]]


FileTable = Annotated[dict[SafePath, File], FIRST]


class JointTask(Model):
    id: SafePath
    headline: str
    num_outputs: int | None
    kind: str
    labels: List[str] | None


class JointData(Model):
    fingerprint: str
    sizes: Object | None = None
    splits: Object | None = None
    protocol: Text = None
