"""Further types of models: read as they are written, refused as strictly; no kernels are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_bench import ORDERS, Change, put, refused

from mtl.backbone import resolve_model
from mtl.backbone.backbones import _load_weights
from mtl.backbone.model_files import read_model_files

SMALL: dict[str, Change] = {
    "modernbert": {"num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2},
    "electra": {"num_attention_heads": 2, "num_hidden_layers": 2, "embedding_size": 8},
    "distilbert": {"n_heads": 2, "n_layers": 2, "dim": 16, "hidden_dim": 24},
    "albert": {"num_attention_heads": 2, "num_hidden_layers": 2, "embedding_size": 8},
    "gpt2": {"n_head": 2, "n_layer": 2, "n_embd": 16},
    **{
        kind: {
            "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2,
            "intermediate_size": 24, "head_dim": 8,
        }
        for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
    },
}  # fmt: skip
"""Further types of models, each as ``transformers`` writes it, tiny."""


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``further(type)``: the folder of a tiny model of that type."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    root = tmp_path_factory.mktemp("further")

    def folder(kind: str) -> Path:
        if not (root / kind).is_dir():
            sizes = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
            if "n_embd" not in SMALL[kind] and kind != "distilbert":
                sizes["hidden_size"] = 16
            torch.manual_seed(0)
            config = CONFIG_MAPPING[kind](**sizes, **SMALL[kind])
            AutoModel.from_config(config).save_pretrained(root / kind)
        return root / kind

    return folder


def read(folder: Path) -> Any:
    return read_model_files(resolve_model(str(folder))).config


@pytest.mark.parametrize("kind", SMALL)
def test_further_types_are_read_as_transformers_writes_them(
    kind: str, further: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig, GenerationConfig

    plain = AutoConfig.from_pretrained(further(kind)).to_dict()
    found = read(further(kind)).to_dict()
    assert {k: v for k, v in found.items() if k != "_name_or_path"} == {
        k: v for k, v in plain.items() if k != "_name_or_path"
    }
    older = put(str(further(kind)), tmp_path / "older", _attn_implementation_autoset=True)
    assert read(older).model_type == kind

    # A model that generates nothing reads no config of how; nor code for it, whatever that asks.
    def generate(*_: Any, **__: Any) -> None:
        raise AssertionError("a config of generation was read")

    monkeypatch.setattr(GenerationConfig, "from_pretrained", generate)
    (older / "generation_config.json").write_text('{"custom_generate": "evil/generate"}')
    (older / "custom_generate").mkdir()
    (older / "custom_generate" / "generate.py").write_text("raise SystemExit('ran')")
    model = _load_weights(read_model_files(resolve_model(str(older))))
    assert model.config.model_type == kind


NESTED = "_attn_implementation_internal"


@pytest.mark.parametrize("order", [*ORDERS, "a method", "a part"])
@pytest.mark.parametrize("kind", SMALL)
def test_further_types_are_refused_as_the_others(
    kind: str, order: str, further: Callable[[str], Path], tmp_path: Path
) -> None:
    more: dict[str, Change] = {
        "a method": {"to_dict": 1},
        "a part": {"text_config": {"model_type": kind, "vocab_size": 5}},
    }
    folder = put(str(further(kind)), tmp_path / "evil", **{**ORDERS, **more}[order])
    refused(lambda _: read(folder), folder, "'evil'", "config.json")


@pytest.mark.parametrize("kind", ["gemma3", "llava"])
def test_an_order_inside_a_part_of_a_composite_model(kind: str, tmp_path: Path) -> None:
    from transformers import CONFIG_MAPPING

    folder = tmp_path / "evil"
    CONFIG_MAPPING[kind]().save_pretrained(folder)
    assert read(folder).get_text_config().model_type  # as it is written, it asks for nothing
    content = json.loads((folder / "config.json").read_text())
    for key, value in (
        (NESTED, "evil/kernel"),
        ("attn_implementation", "evil/kernel"),
        ("attribute_map", {"sdpa": NESTED}),
        ("quantization_config", {"quant_method": "quark"}),
        ("auto_map", {"AutoModel": "evil.Evil"}),
    ):
        inner = {**content["text_config"], key: value}
        (folder / "config.json").write_text(json.dumps({**content, "text_config": inner}))
        refused(lambda _: read(folder), folder, "asks for code", repr(key))


KERNELS = '''
"""A stand-in for the package `kernels`: says so in a file when anything of it is called."""
import os
from pathlib import Path
class _Any:
    def __init__(self, *args, **kwargs): pass
    def __or__(self, other): return self
class Mode:
    INFERENCE = TRAINING = TORCH_COMPILE = _Any()
Device = LayerRepository = _Any
def register_kernel_mapping(*args, **kwargs): pass
def use_kernel_forward_from_hub(*args, **kwargs): return lambda cls: cls
def replace_kernel_forward_from_hub(*args, **kwargs): pass
def get_kernel(*args, **kwargs):
    Path(os.environ["CALLED"]).write_text(repr((args, kwargs)))
    raise SystemExit("code of a stranger ran")
has_kernel = kernelize = get_local_kernel = get_kernel
'''

LOAD = """
import os, sys
from mtl.backbone import load_backbone, load_tokenizer, resolve_model
from mtl.backbone.backbones import _load_weights, checked_files, load_text_encoder
from mtl.errors import RequestError
from transformers import AutoModel
evil, further = sys.argv[1:].index("--"), {}
for folder in sys.argv[2 + evil:]:  # nor without an order: ModernBERT looks for it by itself
    further[folder] = _load_weights(checked_files(resolve_model(folder)))
for folder in sys.argv[1:1 + evil]:
    for load in (load_backbone, load_tokenizer, load_text_encoder):
        try:
            load(folder)
        except RequestError as error:
            assert "asks for code" in str(error), error
        else:
            raise AssertionError(f"{folder} was loaded")
assert not os.path.exists(os.environ["CALLED"])
called = []
for folder in sys.argv[1:1 + evil]:
    try:
        AutoModel.from_pretrained(folder)
    except SystemExit:  # the stand-in was called: what was refused is an order, this can fail
        os.remove(os.environ["CALLED"])
        called.append(os.path.basename(folder))
    except Exception:
        pass
print(*called)
"""


def test_the_package_kernels_is_never_called(
    tiny: Callable[[str], str], further: Callable[[str], Path], tmp_path: Path
) -> None:
    """With it, transformers alone fetches and runs what config.json names (CVE-2026-4372)."""
    (tmp_path / "site" / "kernels").mkdir(parents=True)
    (tmp_path / "site" / "kernels" / "__init__.py").write_text(KERNELS)
    info = tmp_path / "site" / "kernels-0.12.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.12.0\n")
    folders = [
        put(tiny("roberta"), tmp_path / f"evil{number}", **values)
        for number, values in enumerate(
            [
                {"_attn_implementation_internal": "evil/kernel"},
                {"attn_implementation": "evil/kernel"},
                {"attn_implementation": "flash_attention_2"},
                ORDERS["another name"],
                ORDERS["read as another"],
            ]
        )
    ]
    legitimate = [str(further(kind)) for kind in SMALL]
    root = str(Path(__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, folders), "--", *legitimate],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), root]),
            "CALLED": str(tmp_path / "called"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert {"evil0", "evil3", "evil4"} <= set(found.stdout.split())
