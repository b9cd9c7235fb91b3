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

from mtl.backbone import load_backbone, load_tokenizer, resolve_model, skeleton
from mtl.backbone.backbones import _load_weights, load_text_encoder
from mtl.backbone.model_files import read_model_files
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
    "another name": {
        "attribute_map": {"harmless": "_attn_implementation_internal"},
        "harmless": "evil/kernel",
    },
    "read as another": {"attribute_map": {"_attn_implementation": "sdpa"}, "sdpa": "evil/kernel"},
    "other parts": {"sub_configs": {"text_config": "evil"}},
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
        {"_attn_implementation_autoset": True},  # as some releases of transformers wrote it
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
        {"fast_tokenizer_files": ["../tokenizer.4.0.0.json"]},
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


@pytest.mark.parametrize(
    "values", [{"tokenizer_file": "/elsewhere"}, {"from_slow": True}, {"vocab_file": "evil"}]
)
def test_a_map_of_special_tokens_takes_nothing_from_elsewhere(
    values: Change, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    """transformers gives whatever is in it to the tokenizer, as if it stood in its config."""
    folder = tmp_path / "evil"
    shutil.copytree(tiny("roberta"), folder)
    file = folder / "special_tokens_map.json"
    plain = {"cls_token": "<s>", "mask_token": {"content": "<mask>", "lstrip": True}}
    file.write_text(json.dumps(plain))
    assert load_tokenizer(str(folder)).is_fast
    file.write_text(json.dumps({**plain, **values}))
    for load in (load_backbone, load_tokenizer, load_text_encoder):
        refused(load, folder, "'evil'", "special_tokens_map.json", repr(next(iter(values))))


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"to_dict": "x"}, "own class"),
        ({"get_text_config": {}}, "own class"),
        ({"from_dict": None}, "own class"),
        ({"__dict__": {"a": 1}}, "own class"),
        ({"base_model_tp_plan": {"*": "rowwise"}}, ""),
        ({"text_config": {"vocab_size": 5}}, "no such part"),
        ({"decoder": "evil/decoder"}, "no such part"),
        ({"num_labels": 10**12}, "from 0 to 1000000"),
        ({"num_hidden_layers": 10**9}, "from 0 to 10000"),
        ({"num_hidden_layers": "2"}, "from 0 to 10000"),
        ({"torch_dtype": "load"}, "no type of numbers"),
        ({"dtype": "int8"}, "no type of numbers"),
        ({"dtype": {"text_config": "load"}}, "no type of numbers"),
    ],
)
def test_keys_that_transformers_obeys_before_it_knows_them(
    values: Change, part: str, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    folder = put(tiny("roberta"), tmp_path / "evil", **values)
    if not part:  # orders nothing as mtl loads it: nothing is spread over devices
        assert load_backbone(str(folder)).pristine is not None
        return
    for load in LOADERS:
        refused(load, folder, "'evil'", "config.json has the key", repr(next(iter(values))), part)


def test_templates_of_chats_are_never_rendered(
    tiny: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.utils import chat_template_utils

    def rendered(*_: Any, **__: Any) -> None:
        raise AssertionError("a template of a stranger was compiled")

    for name in ("_compile_jinja_template", "render_jinja_template"):
        monkeypatch.setattr(chat_template_utils, name, rendered)
    monkeypatch.setattr("transformers.tokenization_utils_base.render_jinja_template", rendered)
    template = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}{% for _ in range(10**9) %}{% endfor %}"
    )
    folder = put(
        tiny("roberta"), tmp_path / "evil", "tokenizer_config.json", chat_template=template
    )
    (folder / "chat_template.jinja").write_text(template)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "other.jinja").write_text(template)
    plain, found = load_backbone(tiny("roberta")), load_backbone(str(folder))
    assert found.tokenizer("the cat sees") == plain.tokenizer("the cat sees")
    assert found.base.tokenizer == plain.base.tokenizer
    (folder / "additional_chat_templates" / "other.jinja").unlink()
    os.mkfifo(folder / "additional_chat_templates" / "other.jinja")
    refused(load_tokenizer, folder, "other.jinja is not a regular file")


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
