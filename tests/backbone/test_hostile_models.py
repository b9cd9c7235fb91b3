"""Models are a stranger's: what their files ask for beside being read is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_bench import LOADERS, ORDERS, Change, put, refused

from mtl.backbone import load_backbone, load_tokenizer
from mtl.backbone.backbones import load_text_encoder
from mtl.untrusted import asks_for_code


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


@pytest.mark.parametrize("longest", ["x", 0, -3, True])
def test_a_tokenizers_length_is_a_number_of_tokens(
    longest: Any, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    file = "tokenizer_config.json"
    folder = put(tiny("roberta"), tmp_path / "evil", file, model_max_length=longest)
    refused(load_backbone, folder, "'evil'", file, f"model_max_length {longest!r}")


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
        ({"layer_norm_eps": "x"}, "no number"),
        ({"layer_norm_eps": None}, "no number"),
        ({"chunk_size_feed_forward": [2]}, "no number"),
        ({"hidden_act": 5}, "no text"),
        ({"adapters": [1]}, "no object"),
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
