"""Loading encoders: four types, and one clear message for everything that cannot be used."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mtl.backbone import load_backbone, load_tokenizer, resolve_model, skeleton
from mtl.errors import MtlError, RequestError

TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]


def fresh(folder: Path | str) -> Any:
    """Load what the folder holds now."""
    return load_backbone(str(folder))


def copy(source: str, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


@pytest.mark.parametrize("kind", TYPES)
def test_an_encoder_from_a_folder(kind: str, tiny: Any) -> None:
    found = load_backbone(tiny(kind))
    assert (found.base.type, found.base.hidden_size, found.base.layers) == (kind, 48, 2)
    assert found.base.id == f"tiny-{kind}"
    assert found.base.revision is None
    assert found.base.slug == f"tiny-{kind}-{found.base.fingerprint[:8]}"
    assert found.pooler == (kind != "deberta-v2")
    encoder = found.encoder()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", TYPES)
def test_without_an_adapter_it_is_the_stock_model(
    kind: str, tiny: Any, tokens: dict[str, torch.Tensor]
) -> None:
    from transformers import AutoModel

    from mtl.methods import METHODS, attach
    from mtl.methods.pfeiffer import PfeifferSettings

    stock = AutoModel.from_pretrained(tiny(kind)).eval()
    encoder = load_backbone(tiny(kind)).encoder()
    with torch.no_grad():
        expected = stock(**tokens).last_hidden_state
        assert torch.equal(encoder(**tokens).last_hidden_state, expected)
        attach(encoder, METHODS.get("pfeiffer"), PfeifferSettings(placement="houlsby"), "a")
        encoder.set_active_adapters(None)
        assert torch.equal(encoder(**tokens).last_hidden_state, expected)


def test_encoders_are_independent_copies(backbone: Any, tokens: dict[str, torch.Tensor]) -> None:
    first, second = backbone.encoder(), backbone.encoder()
    with torch.no_grad():
        expected = second(**tokens).last_hidden_state
        for parameter in first.parameters():
            parameter.zero_()
        assert torch.equal(second(**tokens).last_hidden_state, expected)
        assert torch.equal(backbone.encoder()(**tokens).last_hidden_state, expected)


def test_init_twice_is_once_and_stock_models_stay_stock(backbone: Any, tiny: Any) -> None:
    import adapters
    from adapters.methods.bottleneck import BottleneckLayer
    from transformers import AutoModel

    from mtl.backbone import bottleneck_layers, init

    encoder = backbone.encoder()
    classes = [type(layer) for _, _, layer in bottleneck_layers(encoder)]
    assert [type(layer) for _, _, layer in bottleneck_layers(init(encoder))] == classes
    assert len(classes) == 4
    stock = AutoModel.from_pretrained(tiny("roberta"))
    adapters.init(stock)
    for module in stock.modules():
        if isinstance(module, BottleneckLayer):
            assert "Seam" not in "".join(cls.__name__ for cls in type(module).__mro__)


def test_the_order_of_sites(encoder: Any) -> None:
    from mtl.backbone import bottleneck_layers

    found = [(index, location) for index, location, _ in bottleneck_layers(encoder)]
    expected = [(i, site) for i in (0, 1) for site in ("mh_adapter", "output_adapter")]
    assert found == expected


def test_stored_in_half_precision_has_a_fingerprint_of_what_is_loaded(
    tiny: Any, tmp_path: Path
) -> None:
    from transformers import AutoModel

    half, rounded = copy(tiny("roberta"), tmp_path / "h"), copy(tiny("roberta"), tmp_path / "r")
    model = AutoModel.from_pretrained(half).half()
    model.save_pretrained(half)
    model.float().save_pretrained(rounded)
    assert fresh(half).base.fingerprint == fresh(rounded).base.fingerprint
    assert fresh(half).base.fingerprint != fresh(tiny("roberta")).base.fingerprint
    assert next(fresh(half).encoder().parameters()).dtype == torch.float32


def test_sharded_weights_have_the_same_fingerprint(tiny: Any, tmp_path: Path) -> None:
    from transformers import AutoModel

    sharded = tmp_path / "sharded"
    copy(tiny("roberta"), sharded)
    (sharded / "model.safetensors").unlink()
    AutoModel.from_pretrained(tiny("roberta")).save_pretrained(sharded, max_shard_size="50KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert fresh(sharded).base.fingerprint == fresh(tiny("roberta")).base.fingerprint


def spoil(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_changed_weight_changes_the_fingerprint_and_the_pooler_does_not(
    tiny: Any, tmp_path: Path
) -> None:
    expected = fresh(tiny("roberta")).base.fingerprint

    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["encoder.layer.1.output.dense.bias"][3] += 1e-6

    changed = copy(tiny("roberta"), tmp_path / "changed")
    spoil(changed, nudge)
    assert fresh(changed).base.fingerprint != expected

    def lose_pooler(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.startswith("pooler")]:
            del tensors[name]

    bare = copy(tiny("roberta"), tmp_path / "bare")
    spoil(bare, lose_pooler)
    found = fresh(bare)
    assert found.base.fingerprint == expected
    assert not found.pooler


def test_a_folder_changed_on_disk_is_read_again(tiny: Any, tmp_path: Path) -> None:
    folder = copy(tiny("roberta"), tmp_path / "model")
    first = load_backbone(str(folder)).base.fingerprint
    spoil(folder, lambda tensors: tensors["encoder.layer.1.output.dense.bias"].add_(1))
    assert load_backbone(str(folder)).base.fingerprint != first


def refused(model: Path | str, *said: str) -> str:
    with pytest.raises(RequestError) as caught:
        load_backbone(str(model))
    message = str(caught.value)
    for part in said:
        assert part in message
    assert "Traceback" not in message
    assert len(message) < 700
    return message


def test_a_decoder_is_refused(tmp_path: Path, make_tiny: Any, tiny: Any) -> None:
    from transformers import OPTConfig

    OPTConfig(hidden_size=48, num_hidden_layers=2).save_pretrained(tmp_path / "opt")
    message = refused(tmp_path / "opt", "opt", "roberta")
    assert "demo" in message
    causal = make_tiny(tmp_path / "causal", "roberta", is_decoder=True)
    refused(causal, "decoder")
    (tmp_path / "opt" / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(RequestError):
        skeleton(str(tmp_path))


def test_a_folder_without_tokenizer(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "bert", tokenizer=False)
    refused(folder, "tokenizer", str(folder), "tokenizer.json")
    with pytest.raises(RequestError, match=r"tokenizer\.json"):
        load_tokenizer(str(folder))


def test_a_folder_without_weights(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "roberta")
    (folder / "model.safetensors").unlink()
    refused(folder, "weights", str(folder), "model.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_folder_with_damaged_weights(damage: str, tmp_path: Path, make_tiny: Any) -> None:
    path = make_tiny(tmp_path / "model", "roberta") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-500] if damage == "truncated" else b"hello")
    refused(path.parent, "weights", str(path.parent))


def test_a_checkpoint_that_lacks_weights(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "roberta")

    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["encoder.layer.1.output.dense.weight"]
        del tensors["encoder.layer.0.attention.self.key.bias"]

    spoil(folder, lose)
    refused(folder, "2 missing", "encoder.layer.1.output.dense.weight")


def test_a_tensor_of_another_shape(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "roberta")

    def cut(tensors: dict[str, torch.Tensor]) -> None:
        name = "encoder.layer.1.output.dense.weight"
        tensors[name] = tensors[name][:, :10].clone()

    spoil(folder, cut)
    refused(folder, str(folder))


def test_a_tokenizer_of_another_model(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "roberta")
    small = make_tiny(tmp_path / "small", "roberta", vocab_size=10)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, small / name)
    refused(small, "tokenizer", "10")


def test_a_damaged_config(tmp_path: Path, make_tiny: Any) -> None:
    folder = make_tiny(tmp_path / "model", "roberta")
    (folder / "config.json").write_text("{not json")
    refused(folder, "config.json")


def test_an_empty_folder_and_no_folder(tmp_path: Path) -> None:
    refused(tmp_path, "config.json")
    refused(tmp_path / "nowhere", "no such folder")
    refused("./nowhere", "no such folder")
    refused("what is this?", "neither a folder nor a Hub name")
    refused("", "neither a folder nor a Hub name")


def test_a_hub_name_offline_is_one_quick_message() -> None:
    start = time.monotonic()
    message = refused("no-such-owner/no-such-model", "--model", "demo", "OFFLINE", "no-such-model")
    assert time.monotonic() - start < 5
    assert message.count("no-such-owner/no-such-model") <= 3


def test_references() -> None:
    assert resolve_model("roberta-base").revision is None
    named = resolve_model("FacebookAI/roberta-base@abc123")
    assert (named.id, named.revision, named.local) == ("FacebookAI/roberta-base", "abc123", False)
    assert resolve_model("demo").local
    for bad in ("a/b/c", "~/nothing-here", "a b", "../x"):
        with pytest.raises(MtlError):
            resolve_model(bad)
