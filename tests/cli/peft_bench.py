"""Adapters that peft writes on tiny models, and what they answer there and here."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from cli_bench import mtl
from peft.tuners.tuners_utils import BaseTunerLayer

from mtl.backbone import load_backbone
from mtl.backbone.arch import tiny_config
from mtl.methods import find_method
from mtl.methods import load as load_adapter
from mtl.methods.method import make_settings
from mtl.runs import load
from mtl.zoo import Entry, open_zoo

HIDDEN, LAYERS = 48, 2
QV = ["query", "value"]
CONFIGS: dict[str, Any] = {
    "lora": peft.LoraConfig(r=3, lora_alpha=5, target_modules=QV, lora_dropout=0.1),
    "lora, rank-stabilised": peft.LoraConfig(r=3, use_rslora=True, target_modules=QV),
    "lora, ranks by pattern": peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=["query", "key"],
        rank_pattern={"layer.1.attention.self.query": 4},
        alpha_pattern={"key": 7, "layer.0.attention.self.query": 2},
    ),
    "lora, some layers": peft.LoraConfig(target_modules=QV, layers_to_transform=[1], r=2),
    "lora, by expression": peft.LoraConfig(target_modules=r".*\.(query|key)", r=2),
    "lora, everywhere it can be": peft.LoraConfig(
        target_modules=r".*(query|key|value|intermediate\.dense|layer\.\d\.output\.dense)", r=2
    ),
    "dora": peft.LoraConfig(r=2, use_dora=True, target_modules=QV),
    "adalora": peft.AdaLoraConfig(init_r=4, target_r=2, total_step=9, target_modules=QV),
    "loha": peft.LoHaConfig(r=3, alpha=4, target_modules=QV),
    "lokr": peft.LoKrConfig(r=2, alpha=4, target_modules=QV, decompose_both=True),
    "vera": peft.VeraConfig(r=8, target_modules=QV, projection_prng_key=3),
    "vera, drawn again": peft.VeraConfig(r=8, target_modules=QV, save_projection=False),
    "randlora": peft.RandLoraConfig(r=8, target_modules=QV),
    "c3a": peft.C3AConfig(block_size=16, target_modules=QV),
    "fourierft": peft.FourierFTConfig(n_frequency=40, scaling=50.0, target_modules=QV),
    "waveft": peft.WaveFTConfig(n_frequency=40, target_modules=QV),
    "miss": peft.MissConfig(r=8, target_modules=QV),
    "miss, bat": peft.MissConfig(r=8, init_weights="bat", target_modules=QV),
    "miss, mini": peft.MissConfig(r=8, mini_r=4, init_weights="mini", target_modules=QV),
}  # fmt: skip
Write = Callable[..., tuple[Any, Path]]


@pytest.fixture(scope="module")
def folder_of(
    tiny: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """The folder of a tiny model of any type, with RoBERTa's words where it has none of its own."""
    from transformers import AutoModel

    root = tmp_path_factory.mktemp("types")

    def folder(kind: str) -> str:
        if kind in ("bert", "roberta", "xlm-roberta", "deberta-v2"):
            return tiny(kind)
        if not (root / kind).is_dir():
            shutil.copytree(tiny("roberta"), root / kind)
            words = len(load_backbone(tiny("roberta")).tokenizer)
            torch.manual_seed(7)
            config = tiny_config(kind, vocab_size=words, pad_token_id=1)
            AutoModel.from_config(config).save_pretrained(root / kind)
        return str(root / kind)

    return folder


@pytest.fixture
def write(folder_of: Callable[[str], str], tmp_path: Path, jiggle: Any) -> Write:
    """A model of transformers under peft, with a head where ``task`` is one, and what it saves."""

    def make(
        config: Any,
        kind: str = "roberta",
        task: str | None = "SEQ_CLS",
        labels: int = 2,
        name: str = "theirs",
    ) -> tuple[Any, Path]:
        from transformers import AutoModel, AutoModelForSequenceClassification

        torch.manual_seed(1)
        source = folder_of(kind)
        if task is None:
            model = AutoModel.from_pretrained(source)
        else:
            model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=labels)
        config = type(config)(**{**config.to_dict(), "task_type": task})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tuned = peft.get_peft_model(model, config)
        trained = {key: p for key, p in tuned.named_parameters() if p.requires_grad}
        jiggle([p for key, p in trained.items() if "magnitude" not in key], 0.2)
        with torch.no_grad():
            for key, parameter in trained.items():
                if "magnitude" in key:  # as training moves it: a little
                    parameter.mul_(1 + 0.05 * torch.randn_like(parameter))
        folder = tmp_path / name
        tuned.save_pretrained(str(folder))
        return tuned.eval(), folder

    return make


def get(place: object, tiny: Any, zoo: Path, *more: object, kind: str = "roberta") -> Entry:
    line = ["pull", "--peft", place, "--model", tiny(kind), "--zoo", zoo, *more]
    said = mtl("zoo", *line, "--json")
    assert said.code == 0, said
    (entry,) = said.json["repositories"][0]["entries"]
    return open_zoo(zoo).get(entry["ref"])


def logits(entry: Entry, zoo: Path, base: str, tokens: Any) -> torch.Tensor:
    with torch.no_grad():
        return load(entry, open_zoo(zoo), load_backbone(base)).attached.logits(dict(tokens))


def again(folder: Path, base: str, tokens: Any, labels: int = 2) -> torch.Tensor:
    """What peft answers with the stored adapter on the stored model; that it does something."""
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    model = peft.PeftModel.from_pretrained(plain, str(folder)).eval()
    with torch.no_grad():
        found = model(**tokens).logits
        wrapped = model.base_model.model
        layers = [m for m in wrapped.modules() if isinstance(m, BaseTunerLayer)]
        for layer in layers:
            layer.enable_adapters(False)
        assert (wrapped(**tokens).logits - found).abs().max() > 1e-3
    return found


def states_here(entry: Entry, base: str, tokens: Any) -> torch.Tensor:
    """The last layer of the encoder with the stored adapter."""
    encoder, method = load_backbone(base).encoder(), find_method("lora")
    settings = make_settings("lora", method.settings, entry.manifest.method_settings)
    load_adapter(encoder, method, settings, "theirs", entry.folder, active=True)
    with torch.no_grad():
        found: torch.Tensor = encoder(**tokens).last_hidden_state
    return found


def inside(entry: Entry, model: Any, base: str, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The last layer of the encoder with the stored adapter, and of peft's model."""
    theirs = model.base_model.model
    theirs = getattr(theirs, theirs.base_model_prefix, theirs)
    with torch.no_grad():
        expected = theirs(**tokens).last_hidden_state
    return states_here(entry, base, tokens), expected


def change(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def pulled(place: object, tiny: Any, *more: object, kind: str = "roberta") -> Any:
    return mtl("zoo", "pull", "--peft", place, "--model", tiny(kind), *more)
