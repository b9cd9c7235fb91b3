"""Models are a stranger's: what their files ask for beside being read is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl.backbone import load_backbone, load_tokenizer, skeleton
from mtl.backbone.backbones import load_text_encoder
from mtl.errors import RequestError
from mtl.untrusted import asks_for_code

Change = dict[str, Any]

ORDERS: dict[str, Change] = {
    "_attn_implementation_internal": {"_attn_implementation_internal": "evil/kernel"},
    "_attn_implementation": {"_attn_implementation": "evil/kernel@main:run"},
    "attn_implementation": {"attn_implementation": "evil/kernel"},
    "a wrapped one": {"attn_implementation": "sdpa|evil/kernel"},
    "of flash attention": {"attn_implementation": "flash_attention_2"},  # kernels fetches it
    "of experts": {"_experts_implementation_internal": "sdpa"},
    "of a part": {"attn_implementation": {"": "sdpa", "text_config": "evil/kernel"}},
    "inside": {"text_config": {"_attn_implementation_internal": "evil/kernel"}},
    "auto_map": {"auto_map": {"AutoModel": "modeling_evil.Evil"}},
    "elsewhere": {"auto_map": {"AutoConfig": "evil/repo--configuration_evil.Evil"}},
    "quantized": {"quantization_config": {"quant_method": "quark", "modules": ["os"]}},
    "compressed": {"compression_config": {"quant_method": "compressed-tensors"}},
    "another config": {"configuration_files": ["config.4.0.0.json"]},
    "other weights": {"transformers_weights": "weights.bin"},
    "generation": {"custom_generate": "evil/generate"},
}


def put(source: str, target: Path, file: str = "config.json", **values: Any) -> Path:
    """A copy of a model's folder with more keys in one of its files."""
    shutil.copytree(source, target)
    content = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**content, **values}))
    return target


def refused(load: Callable[[str], Any], folder: Path, *parts: str) -> None:
    with pytest.raises(RequestError) as raised:
        load(str(folder))
    for part in parts:
        assert part in str(raised.value), str(raised.value)


LOADERS: list[Callable[[str], Any]] = [load_backbone, load_tokenizer, load_text_encoder, skeleton]


@pytest.mark.parametrize("order", ORDERS)
def test_a_config_that_asks_for_code_is_refused_by_every_loader(
    order: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    folder = put(tiny("roberta"), tmp_path / "evil", **ORDERS[order])
    key = next(iter(ORDERS[order]))
    key = "_attn_implementation_internal" if order == "inside" else key
    for load in LOADERS:
        refused(load, folder, "'evil'", "config.json asks for code", repr(key))


@pytest.mark.parametrize(
    "values",
    [
        {"attn_implementation": "eager"},
        {"_attn_implementation": "sdpa", "_attn_implementation_internal": None},
        {"auto_map": None, "quantization_config": {}},
        {"return_dict": False, "torchscript": True, "output_attentions": True},
    ],
)
def test_what_orders_nothing_is_loaded(
    values: Change, tiny: Callable[[str], str], tmp_path: Path, tokens: Any
) -> None:
    found = load_backbone(str(put(tiny("roberta"), tmp_path / "good", **values)))
    assert found.base.fingerprint == load_backbone(tiny("roberta")).base.fingerprint
    answer = found.encoder()(**tokens)
    assert answer.last_hidden_state.shape[-1] == found.base.hidden_size
    assert answer.attentions is None


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": {"AutoTokenizer": [None, "tokenization_evil.Evil"]}},
        {"tokenizer_file": "/elsewhere/tokenizer.json"},
        {"vocab_file": "https://evil.example/vocab"},
        {"from_slow": True},
        {"init_inputs": ["/elsewhere"]},
        {"tokenizer_class": "RagRetriever"},
        {"tokenizer_class": "AutoModel"},
        {"tokenizer_class": ["BertTokenizer"]},
    ],
)
def test_a_tokenizer_takes_nothing_from_elsewhere(
    values: Change, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    folder = put(tiny("roberta"), tmp_path / "evil", "tokenizer_config.json", **values)
    for load in (load_backbone, load_tokenizer, load_text_encoder):
        refused(load, folder, "'evil'", "tokenizer_config.json")


def test_the_class_of_a_tokenizer_in_the_config(tiny: Callable[[str], str], tmp_path: Path) -> None:
    folder = put(tiny("roberta"), tmp_path / "evil", tokenizer_class="RagRetriever")
    refused(load_tokenizer, folder, "config.json names the class 'RagRetriever'")
    good = put(tiny("roberta"), tmp_path / "good", tokenizer_class="RobertaTokenizer")
    assert load_tokenizer(str(good)).is_fast


def test_a_folder_that_is_an_adapter_loads_no_other_model(
    tiny: Callable[[str], str], tmp_path: Path
) -> None:
    """transformers would take `base_model_name_or_path` in place of what the user named."""
    folder = tmp_path / "evil"
    shutil.copytree(tiny("roberta"), folder)
    other = {"base_model_name_or_path": tiny("bert"), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(other))
    for load in (load_backbone, load_text_encoder):
        refused(load, folder, "adapter_config.json makes it an adapter", "mtl.zoo pull")


@pytest.mark.parametrize("name", ["weights.bin", "../other/model.safetensors", "/etc/x", 3, None])
def test_the_list_of_weights_names_safetensors_beside_it(
    name: Any, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(tiny("roberta"), folder)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(load_backbone, folder, "model.safetensors.index.json names")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"[1, 2]", "holds no JSON object"),
        (b'{"model_type": "bert", "model_type": "roberta"}', "there twice"),
        (b'{"model_type": "bert", "layer_norm_eps": NaN}', "NaN is not JSON"),
        (b'{"x": ' + b"[" * 99 + b"]" * 99 + b"}", "nested deeper"),
        (b"{}", "model_type None"),
        (b'{"model_type": "../evil"}', "model_type '../evil'"),
        (b'{"model_type": "roberta", "use_return_dict": true}', "config.json"),
        (b'{"model_type": "roberta", "vocab_size": "many"}', "evil"),
    ],
)
def test_a_config_that_is_none(
    content: bytes, part: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(tiny("roberta"), folder)
    (folder / "config.json").write_bytes(content)
    refused(load_backbone, folder, part)


def test_a_config_that_is_no_file(tiny: Callable[[str], str], tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(tiny("roberta"), folder)
    (folder / "tokenizer_config.json").unlink()
    os.mkfifo(folder / "tokenizer_config.json")  # reading it would never end
    refused(load_tokenizer, folder, "not a regular file")


def cached(home: Path, name: str, source: Path) -> None:
    """What the client's cache of the Hub looks like after ``name`` was fetched."""
    repository = home / f"models--{name.replace('/', '--')}"
    commit = "ab" * 20
    shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_models_of_the_hub_are_read_as_strictly(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path))
    cached(tmp_path, "good/model", Path(tiny("roberta")))
    found = load_backbone("good/model")
    assert found.base.revision == "ab" * 20
    assert found.base.fingerprint == load_backbone(tiny("roberta")).base.fingerprint
    cached(tmp_path, "evil/model", put(tiny("roberta"), tmp_path / "x", attn_implementation="a/b"))
    for load in LOADERS:
        refused(load, Path("evil/model"), "'evil/model'", "asks for code")
    other = put(
        tiny("roberta"), tmp_path / "y", "tokenizer_config.json", tokenizer_file="/elsewhere"
    )
    cached(tmp_path, "evil/words", other)
    refused(load_backbone, Path("evil/words"), "tokenizer_file")
    (tmp_path / "z").mkdir()
    adapter = put(tiny("roberta"), tmp_path / "z" / "a")
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "good/model"}')
    cached(tmp_path, "evil/adapter", adapter)
    refused(load_backbone, Path("evil/adapter"), "makes it an adapter")


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
from mtl.backbone import load_backbone, load_tokenizer
from mtl.backbone.backbones import load_text_encoder
from mtl.errors import RequestError
from transformers import AutoModel
for folder in sys.argv[1:]:
    for load in (load_backbone, load_tokenizer, load_text_encoder):
        try:
            load(folder)
        except RequestError as error:
            assert "asks for code" in str(error), error
        else:
            raise AssertionError(f"{folder} was loaded")
assert not os.path.exists(os.environ["CALLED"])
try:
    AutoModel.from_pretrained(sys.argv[1])
except SystemExit:  # the stand-in was called: what was refused is an order, and this test can fail
    assert os.path.exists(os.environ["CALLED"])
else:
    raise AssertionError("the stand-in is not what transformers calls")
"""


def test_the_package_kernels_is_never_called(tiny: Callable[[str], str], tmp_path: Path) -> None:
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
            ]
        )
    ]
    root = str(Path(__file__).parents[2])
    found = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, folders)],
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


@pytest.mark.parametrize(
    "value",
    [
        {"config": {"attn_implementation": "evil/kernel"}},
        {"megatron_config": {"x": 1}},
        {"auto_mapping": {"parent_library": "os"}},
        [{"_attn_implementation_internal": "a/b"}],
    ],
)
def test_configs_of_adapters_are_asked_the_same(value: Any) -> None:
    assert asks_for_code(value) is not None
    plain = {"config": {"leave_out": [], "scaling": 1.0}, "trust_remote_code": False}
    assert asks_for_code(plain) is None
