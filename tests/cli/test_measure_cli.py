"""``zoo show --measure``: shares of the mixture, change and error of omega."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import TARGET, composed, mtl, refused
from safetensors.numpy import load_file

from mtl.compose.measured import _fisher, _sites
from mtl.compose.stored import load_composition
from mtl.engine import open_device
from mtl.runs import open_workspace
from mtl.runs.loading import data_of_entry
from mtl.tasks import task_loss
from mtl.zoo import open_zoo
from mtl.zoo.composition import FILE


def dev_rows(entry: Any, backbone: Any) -> Any:
    return backbone.encode(data_of_entry(entry, open_workspace()), "dev")


def shares_by_hand(entry: Any, backbone: Any) -> tuple[Any, list[str]]:
    """One dev row after the other, every source's own output times its omega; and the sites."""
    loaded = load_composition(entry, open_workspace().zoo, backbone)
    rows, sites = dev_rows(entry, backbone), _sites(loaded)
    shares: dict[str, list[Any]] = {key: [] for key in sites}
    for key, site in sites.items():

        def hook(module: Any, inputs: Any, output: Any, key: str = key) -> None:
            features = module.bank.features(inputs[0])
            added = []
            for source, omega in enumerate(module.omega):
                own = module.bank.owner == source
                plain = features[..., own] @ module.bank.up[own] + module.bank.bias[source]
                added.append(omega * plain)
            assert torch.allclose(sum(added), output, atol=1e-5)
            norms = torch.stack([value.norm(dim=-1) for value in added], -1)
            shares[key].append((norms / norms.sum(-1, keepdim=True))[0])

        site.register_forward_hook(hook)
    with torch.no_grad():
        for row in range(len(rows)):
            loaded.network(rows.collate(np.array([row])))
    return np.stack([torch.cat(shares[key]).mean(0).numpy() for key in sites], 1), list(sites)


def test_the_share_of_a_source_is_that_of_its_norm_in_the_sum(stocked: Path, backbone: Any) -> None:
    entry = composed(stocked, "scalearn")
    before = {name: item["sha256"] for name, item in entry.files.items()}
    said = mtl("zoo", "show", entry.ref, "--measure", "--json")
    assert said.code == 0, said
    found = said.json["measured"]
    assert found["rows"] == len(dev_rows(entry, backbone))
    wanted, sites = shares_by_hand(entry, backbone)
    assert found["sites"] == sites
    np.testing.assert_allclose(found["mixture"], wanted, atol=1e-5)
    np.testing.assert_allclose(np.sum(found["mixture"], 0), 1, atol=1e-6)
    stored = load_file(entry.folder / FILE)
    start = entry.manifest.method_settings["init_scale"] / len(entry.manifest.parents)
    change = np.stack([np.abs(stored[f"omega.{key}"] - start).mean(1) for key in sites], 1)
    np.testing.assert_allclose(found["change"], change, atol=1e-6)
    again = open_zoo(stocked).get(entry.ref)  # the entry itself is as it was
    assert {name: item["sha256"] for name, item in again.files.items()} == before


@pytest.mark.parametrize("rank", [24, 40])
def test_shares_of_low_rank_sources_that_fold_to_one_matrix(
    mini: Path, backbone: Any, rank: int
) -> None:
    """Two of rank 24 have as many units together as the base has dimensions."""
    line = ["--suite", "mini", "--task", "mood", "same", "--method", "vera", "--epochs", "2"]
    said = mtl("train", *line, "--set", f"rank={rank}", "lr=0.3")
    assert said.code == 0, said
    line = ["--target", "same", "--sources", "mood", "same", "--source-method", "vera"]
    said = mtl("compose", *line, "--epochs", "1", "--json")
    assert said.code == 0, said
    entry = open_zoo(mini).get(said.json["runs"][0]["ref"])
    said = mtl("zoo", "show", entry.ref, "--measure", "--json")
    assert said.code == 0, said
    wanted, sites = shares_by_hand(entry, backbone)
    assert said.json["measured"]["sites"] == sites
    assert all(site.bank.dense for site in _sites_of(entry, backbone))
    np.testing.assert_allclose(said.json["measured"]["mixture"], wanted, atol=1e-5)


def _sites_of(entry: Any, backbone: Any) -> list[Any]:
    return [*_sites(load_composition(entry, open_workspace().zoo, backbone)).values()]


def test_the_fisher_information_is_that_of_every_answer_the_model_may_give(
    stocked: Path, backbone: Any
) -> None:
    """The drawn one, over many draws, beside the sum over rows and classes, row by row."""
    entry = composed(stocked, "scalearn-uniform++")
    workspace = open_workspace(zoo=stocked)
    loaded = load_composition(entry, workspace.zoo, backbone)
    assert loaded.composed is not None
    data = data_of_entry(entry, workspace)
    rows = backbone.encode(data, "train")
    learned = loaded.composed.parameters
    (name,) = learned
    exact = torch.zeros_like(learned[name], dtype=torch.float64)
    learned[name].requires_grad_(True)
    for row in range(len(rows)):
        batch = rows.collate(np.array([row]))
        chances = loaded.network(batch).detach().softmax(1)[0]
        for label, chance in enumerate(chances):
            loss = task_loss(data.spec, loaded.network(batch), torch.tensor([label]))
            (gradient,) = torch.autograd.grad(loss, [learned[name]])
            exact += chance * gradient.double().square()
    device = open_device("fp32", hidden_size=backbone.base.hidden_size)
    drawn, used = _fisher(loaded, learned, rows, data.spec, device)
    assert used == len(rows)
    ratio = (drawn[name] / exact).mean()
    assert 0.5 < ratio < 2.0  # some 24 drawn squares: a standard error of about a third
    assert not learned[name].requires_grad


def test_pictures_and_show_tell_what_was_measured(stocked: Path, tmp_path: Path) -> None:
    entry = composed(stocked, "scalearn-uniform")
    plain, more = tmp_path / "plain.png", tmp_path / "more.png"
    line = ["--target", TARGET, "--method", "scalearn-uniform", "--heatmap"]
    assert mtl("report", *line, plain).code == 0
    assert "share of the mixture" not in mtl("zoo", "show", entry.ref).out
    said = mtl("zoo", "show", entry.ref, "--measure")
    assert said.code == 0, said
    for part in ("share of the mixture", "change of omega", "omega ± 95 %", "mini/mood"):
        assert part in said.out
    assert mtl("zoo", "show", entry.ref).out == said.out  # kept on this machine
    assert mtl("report", *line, more).code == 0
    from matplotlib.image import imread

    assert imread(more).shape[0] > 1.8 * imread(plain).shape[0]


@pytest.mark.parametrize("method", ["fusion"])
def test_what_cannot_be_measured_is_refused(stocked: Path, method: str) -> None:
    entry = composed(stocked, method)
    refused(mtl("zoo", "show", entry.ref, "--measure"), "no omega that is the same for every input")
    own = open_zoo(stocked).entries(kind="adapter")[0]
    refused(mtl("zoo", "show", own.ref, "--measure"), "is no composition")


def test_of_fixed_weights_the_mixture_alone_is_told(stocked: Path) -> None:
    entry = composed(stocked, "average")
    found = mtl("zoo", "show", entry.ref, "--measure", "--json").json["measured"]
    assert found["mixture"]
    assert found["change"] is found["omega"] is found["stderr"] is None
