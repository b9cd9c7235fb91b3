"""What is stored of a composition means what the network computes with, for all who read it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_bench import composed, low_rank, sources
from zoo_bench import composition, manifest, store, task

from mtl.compose.modules.scalearn import ScaLearnSite
from mtl.errors import RequestError, ZooError
from mtl.export.omega import omega_sizes
from mtl.files import write_safetensors
from mtl.graph.collect import reliance
from mtl.report import draw_heatmap, source_weights
from mtl.zoo import Entry, Zoo, open_zoo
from mtl.zoo.composition import FILE, used_weights
from mtl.zoo.composition import source_weights as stored_weights
from mtl.zoo.diff import distances

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("scalearn", {}),
    "mean": ("scalearn", {"normalise": "mean"}),
    "softmax": ("scalearn", {"normalise": "softmax"}),
    "uniform softmax": ("scalearn-uniform", {"normalise": "softmax"}),
    "++ mean": ("scalearn++", {"normalise": "mean"}),
    "uniform++ softmax": ("scalearn-uniform++", {"normalise": "softmax"}),
}


@pytest.fixture
def zoo(tmp_path: Path) -> Zoo:
    return open_zoo(tmp_path / "zoo")


def three(zoo: Zoo) -> list[Entry]:
    return [store(zoo, manifest(task=task(name))) for name in ("a", "b", "own")]


def stored(zoo: Zoo, tensors: Any, **settings: Any) -> Entry:
    """An entry of three sources with these tensors in ``composition.safetensors``."""
    entry = composition(zoo, three(zoo), np.ones((1, 3, 1), np.float32), runhash="22" * 8)
    write_safetensors(entry.folder / FILE, tensors)
    entry.manifest.method_settings.update(settings)
    return entry


@pytest.mark.parametrize("form", ["bottleneck", "low-rank"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_everything_reads_the_weights_that_the_network_uses(
    variant: Any, form: str, zoo: Zoo, tmp_path: Path, backbone: Any, jiggle: Any
) -> None:
    name, values = variant
    if form == "low-rank":
        loaded, found = low_rank(backbone, [4, 1, 7], ("q", "output"), name, **values)
    else:
        encoder = backbone.encoder()
        entries = sources(encoder, [("pfeiffer", {"placement": "houlsby"})] * 3, jiggle)
        loaded, found = composed(encoder, entries, name, **values)
    entry = stored(zoo, found.tensors(), **values)
    encoder = loaded.network.encoder
    live = [m.effective().detach().numpy() for m in encoder.modules() if type(m) is ScaLearnSite]
    read = used_weights(entry)
    assert read is not None
    for value in live:
        alike = [v.shape == value.shape and np.allclose(v, value) for v in read.values()]
        assert sum(alike) == 1
    for value in read.values():
        assert any(value.shape == used.shape and np.allclose(value, used) for used in live)

    drawn, names, layers = source_weights(entry)
    assert names == ["a", "b", "own"]
    assert layers == list(read)
    columns = {tuple(np.round(value.mean(1), 9)) for value in live}
    assert {tuple(np.round(column, 9)) for column in drawn.T} == columns
    if "normalise" in values:  # of every site and dimension, so of their mean, too
        np.testing.assert_allclose(drawn.sum(0), 1)
    how, sites, shares = reliance(entry)  # type: ignore[misc]
    assert (how, sites) == ("omega", layers)
    if values.get("normalise") == "softmax":  # shares of what adds up to 1 are what is drawn
        np.testing.assert_allclose(shares, drawn)
    squares = [np.mean(value.astype(np.float64) ** 2, axis=1) for value in live]
    np.testing.assert_allclose(omega_sizes(entry), np.sqrt(np.mean(squares, axis=0)), rtol=1e-6)
    draw_heatmap([entry], tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000


def test_what_is_drawn_by_hand(zoo: Zoo) -> None:
    omega = torch.tensor([[1.0, 2.0], [2.0, 2.0], [1.0, 4.0]])
    entry = stored(zoo, {"omega.0": omega}, normalise="mean")
    np.testing.assert_allclose(source_weights(entry)[0], [[0.25], [0.375], [0.375]])
    entry.manifest.method_settings["normalise"] = "none"
    np.testing.assert_allclose(source_weights(entry)[0], [[1.5], [2.0], [2.5]])


def test_omega_that_differs_by_what_normalisation_takes_away_is_one(zoo: Zoo) -> None:
    omega = torch.tensor([[1.0, 2.0], [2.0, 2.0], [1.0, 4.0]])
    entry = stored(zoo, {"omega.0": omega})
    other = composition(zoo, three(zoo), np.ones((1, 3, 1), np.float32), runhash="33" * 8)
    for how, moved, same in (
        ("softmax", omega + 3, True),
        ("mean", omega * 3, True),
        ("none", omega * 3, False),
    ):
        write_safetensors(other.folder / FILE, {"omega.0": moved})
        for one in (entry, other):
            one.manifest.method_settings["normalise"] = how
        found = distances(entry, other)
        assert found.whole is not None
        assert (found.whole.relative < 1e-6) is same, how


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        ({"omega.0": torch.ones(2, 4)}, {}, "no weights per source"),
        ({"omega.0": torch.ones(3, 0)}, {}, "no weights per source"),
        ({"omega.0": torch.tensor(1.0)}, {}, "no weights per source"),
        ({"omega.0": torch.tensor([[1.0], [-1.0], [0.0]])}, {"normalise": "mean"}, "not finite"),
        ({"omega.0": torch.full((3, 1), float("nan"))}, {}, "not finite"),
        ({"omega.0": torch.ones(3, 1)}, {"normalise": "sum"}, "none, mean, softmax"),
        ({"omega.0": torch.ones(3, 1)}, {"normalise": ["mean"]}, "none, mean, softmax"),
        ({"attention.0": torch.ones(2)}, {}, "no weights per source"),
    ],
)
def test_weights_that_mean_nothing_are_named(
    tensors: Any, settings: Any, message: str, zoo: Zoo
) -> None:
    with pytest.raises(ZooError, match=message):
        stored_weights(stored(zoo, tensors, **settings))


def test_a_soup_of_before_says_its_weights_and_is_no_evidence(zoo: Zoo) -> None:
    entry = stored(zoo, {"soup.weights": torch.tensor([0.5, 0.5, 0.0])})
    found = stored_weights(entry)
    assert found is not None
    assert (found.kind, found.rows, found.sites) == ("soup", "", ("shared",))
    np.testing.assert_allclose(found.share, [[0.5], [0.5], [0.0]])
    assert reliance(entry) is None


def test_a_fusion_of_before_without_attention_is_unknown(zoo: Zoo, tmp_path: Path) -> None:
    entry = stored(zoo, {"fusion.0.value.weight": torch.eye(4)})
    assert stored_weights(entry) is None
    with pytest.raises(RequestError, match="stores no weights per source"):
        draw_heatmap([entry], tmp_path / "map.png")
    fusion = replace(entry, manifest=replace(entry.manifest, method="fusion"))
    with pytest.raises(RequestError, match=r"is unknown.*To know, .*again"):
        draw_heatmap([fusion], tmp_path / "map.png")
    assert reliance(fusion) is None
