"""Attacks by a manifest, by files that do not fit it, and by configs that ask for code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from attack_bench import attack, read, reseal, write
from safetensors.numpy import save_file


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
