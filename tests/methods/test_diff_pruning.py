"""Diff pruning: what is computed with is what is stored, in every module of the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mtl.backbone import load_backbone
from mtl.engine import RunSettings
from mtl.methods import attach, find_method, load
from mtl.methods.diff_pruning import DiffPruningSettings

SETTINGS = DiffPruningSettings(density=0.2)


@pytest.mark.parametrize("kind", ["roberta", "bert", "deberta-v2"])
def test_after_training_it_answers_as_stored(
    kind: str, tiny: Any, tokens: Any, jiggle: Any, tmp_path: Path
) -> None:
    """The embedding, a module with two names in ``adapters``, is put back after each pass."""
    base = load_backbone(tiny(kind))
    encoder, method = base.encoder(), find_method("diff-pruning")
    held = dict(encoder.named_parameters())
    tuned = attach(encoder, method, SETTINGS, "x")
    encoder.eval()
    assert tuned.plan is not None
    begin = tuned.plan(RunSettings())[1].begin
    assert begin is not None
    assert tuned.finish is not None
    jiggle(tuned.groups[0].parameters.values())
    with torch.no_grad():
        encoder(**tokens)
        begin(True)
        pruned = encoder(**tokens)[0]
        now = dict(encoder.named_parameters())
        assert all(now[name] is value for name, value in held.items())
        tuned.finish()
        torch.testing.assert_close(encoder(**tokens)[0], pruned, rtol=0, atol=0)
        tuned.save(tmp_path, "base")
        again = base.encoder().eval()
        load(again, method, SETTINGS, "x", tmp_path, active=True)
        torch.testing.assert_close(again(**tokens)[0], pruned, rtol=0, atol=0)
