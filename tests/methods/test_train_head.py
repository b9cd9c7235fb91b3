"""``train_head``: SoRA's comparison leaves the head as it was drawn (docs/methods.md)."""

from __future__ import annotations

import pytest

from mtl.backbone import Network, build_head, load_backbone
from mtl.joint import JOINT
from mtl.methods import METHODS, RunFacts, attach
from mtl.methods.method import settings_dict

NAMES = ["lora", "bitfit", "houlsby", "pfeiffer", "sora"]


@pytest.mark.parametrize("train_head", [True, False])
@pytest.mark.parametrize("name", [*NAMES, "adapter-m"])
def test_the_head_trains_or_not(name: str, train_head: bool) -> None:
    backbone = load_backbone("demo")
    encoder = backbone.encoder()
    head = build_head("linear", encoder.config, 2, pooler=False)
    method = JOINT.get(name) if name in JOINT else METHODS.get(name)
    settings = method.settings(**{**method.defaults, "train_head": train_head})
    if name in JOINT:
        tuned = JOINT.get(name).attach(encoder, ["a", "b"], settings, "one", RunFacts(1)).tuned
    else:
        tuned = attach(encoder, METHODS.get(name), settings, "one")
    trained = tuned.attachment(Network(encoder, head), {}, head.trained())
    assert ("head" in [group.name for group in trained.groups()]) == train_head
    assert tuned.train_head == train_head


def test_entries_of_before_have_the_same_settings() -> None:
    """What they lack is what they were trained with; SoRA's have always told of it."""
    for name in NAMES:
        method = METHODS.get(name)
        told = settings_dict(method.settings(**method.defaults))
        assert ("train_head" in told) == (name == "sora")
        assert settings_dict(method.settings(train_head=False))["train_head"] is False
