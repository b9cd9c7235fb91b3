"""Adapters that stock ``adapters`` wrote: in the zoo they answer the same, or are refused."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from cli_bench import mtl, refused
from hub_bench import hub
from loopback_state import Hub

from mtl.backbone import load_backbone
from mtl.errors import RequestError
from mtl.hub import Claims, parse_repo, pull
from mtl.hub.recognise import recognise
from mtl.methods import METHODS, find_method
from mtl.methods.library import load_library
from mtl.methods.lora import lora_config
from mtl.methods.method import make_settings
from mtl.runs import load
from mtl.zoo import Entry, Zoo, open_zoo

__all__ = ["hub"]  # the fixture
REPO = "ada/theirs"
CONFIGS: dict[str, Any] = {
    "pfeiffer": adapters.SeqBnConfig(reduction_factor=7, non_linearity="gelu"),
    "houlsby": adapters.DoubleSeqBnConfig(reduction_factor=16),
    "parallel": adapters.ParBnConfig(reduction_factor=8, dropout=0.1),
    "compacter": adapters.CompacterConfig(reduction_factor=4),
    "compacter++": adapters.CompacterPlusPlusConfig(reduction_factor=4),
    "prefix": adapters.PrefixTuningConfig(flat=False, prefix_length=3, bottleneck_size=8),
    "ia3": adapters.IA3Config(),
    "lora": adapters.LoRAConfig(r=3, alpha=5, attn_matrices=["v", "k"], output_lora=True),
    "unipelt-apl": adapters.UniPELTConfig(
        adapters.PrefixTuningConfig(flat=True, prefix_length=4, use_gating=True),
        adapters.SeqBnConfig(reduction_factor=4, use_gating=True),
        adapters.LoRAConfig(r=2, alpha=2, use_gating=True),
    ),
}
Write = Callable[..., tuple[Any, dict[str, bytes]]]


@pytest.fixture
def write(tiny: Callable[[str], str], tmp_path: Path, jiggle: Any) -> Write:
    """A stock model with an adapter and a head, and the files that it saves of them."""

    def make(
        config: Any, *, safe: bool = True, kind: str = "roberta", name: str = "rotten", **head: Any
    ) -> tuple[Any, dict[str, bytes]]:
        torch.manual_seed(1)
        model: Any = adapters.AutoAdapterModel.from_pretrained(tiny(kind))
        model.add_adapter(name, config=config)
        model.add_classification_head(
            name, **{"num_labels": 2, "id2label": {0: "sad", 1: "happy"}, **head}
        )
        model.set_active_adapters(name)
        jiggle([p for key, p in model.named_parameters() if name in key], 0.2)
        folder = tmp_path / f"stock-{name}-{safe}"
        model.save_adapter(str(folder), name, with_head=True, use_safetensors=safe)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return model.eval(), files

    return make


def get(zoo: Zoo, tiny: Callable[[str], str], keys: tuple[str, ...] = (), **claims: Any) -> Entry:
    done = pull(zoo, parse_repo(REPO), keys, claims=Claims(tiny("roberta"), **claims))
    return zoo.get(done.entries[0]["ref"])


@pytest.mark.parametrize("name", METHODS.names())
def test_every_library_method_is_recognised(name: str) -> None:
    method = METHODS.get(name)
    if getattr(method.load, "func", None) is not load_library:
        return
    settings = make_settings(name, method.settings, method.defaults)
    config = method.load.args[0](settings, 48).to_dict()
    found, values = recognise(json.loads(json.dumps(config)), 48)
    assert found == name
    again = method.load.args[0](make_settings(name, method.settings, values), 48).to_dict()
    assert int(48 // again.pop("reduction_factor", 1)) == int(
        48 // config.pop("reduction_factor", 1)
    )
    assert {k: v for k, v in again.items() if k != "configs"} == {
        k: v for k, v in config.items() if k != "configs"
    }


@pytest.mark.parametrize("modules", ["q,v", "k,intermediate", "output", "all"])
def test_a_lora_is_recognised_by_the_names_of_its_type(modules: str) -> None:
    """The classes of adapters for Llama call the two of the FFN the other way round."""
    settings = find_method("lora").settings(rank=3, alpha=5.0, modules=modules)
    plain, llama = {}, {"intermediate": "output", "output": "intermediate"}
    for names in (plain, llama):
        config = lora_config(names, settings.modules.split(","), r=3, alpha=5.0).to_dict()
        name, values = recognise(json.loads(json.dumps(config)), 48, names)
        assert (name, values["modules"], values["rank"]) == ("lora", settings.modules, 3)


def test_an_older_config_has_the_defaults_of_its_time() -> None:
    """What a file does not say is the library's default, not ours."""
    old = {"mh_adapter": False, "output_adapter": True, "reduction_factor": 16,
           "non_linearity": "relu", "original_ln_before": True, "leave_out": None}  # fmt: skip
    assert recognise(old, 48) == ("pfeiffer", recognise(CONFIGS["houlsby"].to_dict(), 48)[1] | {
        "activation": "relu", "placement": "pfeiffer",
    })  # fmt: skip
    del old["original_ln_before"]
    with pytest.raises(RequestError, match="original_ln_before is False, there True"):
        recognise(old, 48)


@pytest.mark.parametrize("method", CONFIGS)
def test_theirs_answers_the_same_here(
    method: str, hub: Hub, write: Write, tiny: Callable[[str], str], tokens: Any, tmp_path: Path
) -> None:
    # Stock adapters cannot write prefixes as safetensors: its layers share them.
    shared = method in {"prefix", "unipelt-apl"}
    model, files = write(CONFIGS[method], safe=not shared)
    hub.put(REPO, files)
    zoo = open_zoo(tmp_path / "zoo")
    entry = get(zoo, tiny, allow_bin=shared)
    assert entry.manifest.method == method
    assert entry.manifest.task["labels"] == ["sad", "happy"]
    assert any("Unknown: training data" in note for note in entry.manifest.data["notes"])
    assert entry.manifest.verified is None
    backbone = load_backbone(tiny("roberta"))
    with torch.no_grad():
        expected = model(**tokens).logits
        found = load(entry, zoo, backbone).attached.logits(dict(tokens))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3
    assert zoo.fsck() == []
    assert get(zoo, tiny, allow_bin=shared) == entry  # again: nothing to do
    assert "Not trained here" in (entry.folder / "README.md").read_text()


def test_bin_files_are_read_only_if_allowed(
    hub: Hub, write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    _, files = write(CONFIGS["pfeiffer"], safe=False)
    hub.put(REPO, files)
    zoo = open_zoo(tmp_path / "zoo")
    line = ["pull", REPO, "--model", tiny("roberta"), "--zoo", zoo.root]
    refused(mtl("zoo", *line), "--allow-bin", "pytorch_adapter.bin")
    assert zoo.entries() == []
    said = mtl("zoo", *line, "--allow-bin", "--json")
    assert said.code == 0, said
    (entry,) = zoo.entries()
    assert entry.manifest.head == {"design": "two_layer", "name": "foreign"}
    assert not list(zoo.root.rglob("*.bin"))


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("trapped"),)


def squeezed() -> bytes:
    """A file of tensors whose archive is compressed: a kilobyte that unpacks to megabytes."""
    plain, small = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.zeros(1 << 22)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(small, "w") as target:
        for item in source.infolist():
            target.writestr(item.filename, source.read(item), zipfile.ZIP_DEFLATED)
    return small.getvalue()


def repeated() -> bytes:
    """One number seen as a billion."""
    stream = io.BytesIO()
    torch.save({"w": torch.zeros(1).expand(1 << 30)}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        squeezed(),
        repeated(),
        pickle.dumps(Trap()),
        b"",
        b"PK\x03\x04 broken",
        pickle.dumps({"a": 1}),
    ],
    ids=["squeezed", "repeated", "code", "empty", "broken", "numbers"],
)
def test_bin_files_that_are_no_tensors(
    content: bytes,
    hub: Hub,
    write: Write,
    tiny: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    _, files = write(CONFIGS["pfeiffer"], safe=False)
    hub.put(REPO, {**files, "pytorch_adapter.bin": content})
    zoo = open_zoo(tmp_path / "zoo")
    said = mtl("zoo", "pull", REPO, "--model", tiny("roberta"), "--zoo", zoo.root, "--allow-bin")
    refused(said, "pytorch_adapter.bin", "Cannot pull ada/theirs", code=1)
    assert not Path("trapped").exists()
    assert zoo.entries() == []
    assert zoo.fsck() == []


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (adapters.SeqBnConfig(reduction_factor=8, use_gating=True), ["'pfeiffer'", "use_gating"]),
        (adapters.SeqBnInvConfig(reduction_factor=8), ["inv_adapter is nice"]),
        (adapters.SeqBnConfig(reduction_factor=8, leave_out=[0]), ["leave_out is [0]"]),
        (adapters.SeqBnConfig(reduction_factor={"0": 8, "1": 4}), ["none that mtl has"]),
        (adapters.PromptTuningConfig(prompt_length=3), ["prompt_tuning"]),
    ],
)
def test_methods_that_we_do_not_have(
    config: Any, parts: list[str], hub: Hub, write: Write, tiny: Any, tmp_path: Path
) -> None:
    _, files = write(config)
    hub.put(REPO, files)
    zoo = open_zoo(tmp_path / "zoo")
    said = mtl("zoo", "pull", REPO, "--model", tiny("roberta"), "--zoo", zoo.root)
    refused(said, "Cannot pull ada/theirs", *parts)
    assert not zoo.root.exists() or zoo.fsck() == []


def test_another_encoder_and_no_encoder(
    hub: Hub, write: Write, tiny: Callable[[str], str], make_tiny: Any, tmp_path: Path
) -> None:
    _, files = write(CONFIGS["pfeiffer"])
    hub.put(REPO, files)
    line = ["pull", REPO, "--zoo", tmp_path / "zoo"]
    refused(mtl("zoo", *line), "stock adapters", "--model MODEL")
    refused(mtl("zoo", *line, "--model", tiny("bert")), "model_type is roberta", "bert")
    deeper = make_tiny(tmp_path / "deeper", "roberta", num_hidden_layers=3)
    refused(mtl("zoo", *line, "--model", deeper), "do not fit", "layer.2", code=1)
    hub.put("ada/empty", {"README.md": b"nothing"})
    refused(mtl("zoo", "pull", "ada/empty", "--zoo", tmp_path / "zoo"), "holds neither")


def test_a_head_that_is_none_of_ours(
    hub: Hub, write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    _, files = write(CONFIGS["pfeiffer"], layers=3)
    hub.put(REPO, files)
    entry = get(open_zoo(tmp_path / "zoo"), tiny)
    assert entry.manifest.head == {"design": None, "name": None}
    assert "head" in entry.manifest.data["notes"][-1]
    assert "model_head.safetensors" not in entry.files


def test_weights_that_are_no_numbers(
    hub: Hub, write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    from safetensors.torch import load, save

    _, files = write(CONFIGS["pfeiffer"])
    tensors = load(files["adapter.safetensors"])
    next(iter(tensors.values()))[0] = float("nan")
    hub.put(REPO, {**files, "adapter.safetensors": save(tensors)})
    said = mtl("zoo", "pull", REPO, "--model", tiny("roberta"), "--zoo", tmp_path / "zoo")
    refused(said, "holds NaN or infinite weights", code=1)


@pytest.mark.parametrize(
    "change",
    [
        {"config": "pfeiffer"},
        {"config": None},
        {"config": {"architecture": "evil", "__class__": "x"}},
        {"config": {"reduction_factor": 1e-300, "mh_adapter": True}},
        {"name": ["x"]},
        {"name": "../../x"},
        {"version": {"a": 1}},
    ],
)
def test_configs_of_strangers(
    change: dict[str, Any], hub: Hub, write: Write, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    _, files = write(CONFIGS["pfeiffer"])
    config = {**json.loads(files["adapter_config.json"]), **change}
    hub.put(REPO, {**files, "adapter_config.json": json.dumps(config).encode()})
    zoo = open_zoo(tmp_path / "zoo")
    said = mtl("zoo", "pull", REPO, "--model", tiny("roberta"), "--zoo", zoo.root)
    assert said.code in ({0} if "version" in change else {1, 2}), said
    assert "Traceback" not in said.err
    assert zoo.fsck() == []


def test_theirs_can_be_a_source(hub: Hub, stocked: Path, write: Write, tiny: Any) -> None:
    _, files = write(CONFIGS["pfeiffer"])
    more = {f"nested/deep/{name}": content for name, content in files.items()}
    hub.put(REPO, {**files, **more})
    line = ["pull", REPO, "--model", tiny("roberta"), "--protocol", "official", "--seed", "5"]
    refused(mtl("zoo", *line, "nested/dee"), "nested/deep")
    refused(mtl("zoo", *line, "nested/deep", "--task", "mini/same"), "sad, happy", "other, same")
    said = mtl("zoo", *line, "nested/deep", "--task", "mini/mood", "--json")
    assert said.code == 0, said
    ref = said.json["repositories"][0]["entries"][0]["ref"]
    assert "/mini/mood/pfeiffer/seed5-" in ref
    shown = mtl("zoo", "ls", "--task", "mood")
    assert "seed5" in shown.out
    said = mtl(
        "compose", "--target", "same", "--sources", "mood", "--source-seed", "5", "--epochs", "1",
        "--json",
    )  # fmt: skip
    assert said.code == 0, said
    assert said.json["sources"] == [ref]
    assert mtl("report", "--suite", "mini").code == 0
