"""What ``manifest.json`` must hold, beyond the types of its keys (:mod:`mtl.zoo.models`)."""

from __future__ import annotations

from typing import Any

from mtl.errors import ZooError
from mtl.zoo.names import CARD, MANIFEST, TENSOR_SUFFIX, clash, is_pickle, show

JsonObject = dict[str, Any]


def check_manifest(value: JsonObject, where: str) -> None:
    """Check the keys of a manifest (all there, none unknown) and of its sections.

    Further keys inside a section are kept and, where the section is part of the identity, enter
    the digest.

    Raises:
        ZooError: names ``where``, the key, what was expected and found.
    """
    from mtl.backbone.identity import function_fingerprint
    from mtl.zoo.models import Function, ManifestFile, check

    check(ManifestFile, value, where)
    base = value["base"]
    if not {"weights", "pooler", "config"} & base.keys():
        return
    check(Function, base, f"{where}.base")
    found = function_fingerprint(base["weights"], base["type"], base["config"], base["tokenizer"])
    if found != base["fingerprint"]:
        raise ZooError(
            f"{where}.base.fingerprint: {show(base['fingerprint'])} is not that of the weights, "
            f"config and tokenizer beside it ({found[:16]}…)."
        )


def joint_sections(
    task: JsonObject, data: JsonObject, where: str
) -> dict[str, tuple[JsonObject, JsonObject]]:
    """Task id → what a joint manifest says of the task, and of its data, in the order of its run.

    Args:
        task, data: the manifest's sections.

    Raises:
        ZooError: ``task.tasks`` does not describe every task once, or ``data.tasks`` not one of
            them.
    """
    from mtl.zoo.models import JointData, JointTask, List, Table, check

    listed, datas = task.get("tasks"), data.get("tasks")
    check(List[JointTask], listed, f"{where}.task.tasks")
    found = {section["id"]: section for section in listed or ()}
    if not found or len(found) != len(listed or ()):
        raise ZooError(f"{where}.task.tasks: no task, or one that is there twice: {show(listed)}.")
    check(Table[JointData], datas, f"{where}.data.tasks")
    assert isinstance(datas, dict)
    if missing := found.keys() - datas.keys():
        raise ZooError(f"{where}.data.tasks: the key {show(sorted(missing)[0])} is missing.")
    return {name: (section, datas[name]) for name, section in found.items()}


def check_files(files: Any, where: str, *, headers: bool = True) -> dict[str, JsonObject]:
    """Check the file table: safe names, hashes, sizes, and the headers of safetensors files.

    Args:
        headers: whether the schema version has ``tensors`` (dtype and shape by name) in the table.

    Raises:
        ZooError: says which file, and what is wrong.
    """
    from mtl.zoo.models import FileTable, TensorFile, check

    where = f"{where}.files"
    check(FileTable, files, where)
    for name, item in files.items():
        if is_pickle(name) or name in {MANIFEST, CARD}:
            raise ZooError(f"{where}[{show(name)}]: such a file is never part of the file table.")
        if headers and name.endswith(TENSOR_SUFFIX):
            check(TensorFile, item, f"{where}[{show(name)}]")
    two = clash(files)
    if two:
        raise ZooError(
            f"{where}: {two[0]!r} and {two[1]!r} are one file on some systems; "
            "names may not differ only in case, or be file and folder."
        )
    return files
