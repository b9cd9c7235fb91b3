"""Transferability scores against hand-computed cases, formulas and independent computations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from feature_bench import two_classes

from mtl.errors import RequestError
from mtl.graph.scores import SCORES, Candidate, TaskView, Unscorable, baseline, compute
from mtl.graph.scores.esm import apply_map, fit_map
from mtl.graph.scores.hscore import h_score
from mtl.graph.scores.knn import knn
from mtl.graph.scores.probe import probe
from mtl.graph.scores.score import first_rows
from mtl.graph.scores.taskemb import fisher_similarity
from mtl.graph.scores.textemb import cosine
from mtl.graph.scores.tfidf import tfidf_similarity
from mtl.graph.scores.weights import map_similarity

RNG = np.random.default_rng(0)


# --- H-score


def test_the_h_score_is_its_trace_formula() -> None:
    features, labels = two_classes(200, 5, 2.0)
    labels = (labels + np.arange(200) // 100) % 3
    cov = np.cov(features.T, bias=True)
    means = np.stack([features[labels == label].mean(0) for label in labels])
    wanted = np.trace(np.linalg.inv(cov) @ np.cov(means.T, bias=True))
    assert h_score(features, labels, shrink=False) == pytest.approx(wanted, rel=1e-9)


def test_the_h_score_by_hand() -> None:
    # values −1 and 1 for class 0 (twice) and 1, 3 for class 1: means 0 and 2, overall 1
    features = np.array([[-1.0], [1.0], [1.0], [3.0]])
    # between: (1 + 1)/2 = 1, total: (4 + 0 + 0 + 4)/4 = 2
    assert h_score(features, np.array([0, 0, 1, 1]), shrink=False) == pytest.approx(0.5)


def test_the_shrunk_h_score() -> None:
    from sklearn.covariance import ledoit_wolf

    features, labels = two_classes(30, 60, 3.0)  # more dimensions than rows
    centred = features - features.mean(0)
    share = ledoit_wolf(centred, assume_centered=True)[1]
    cov = centred.T @ centred / 30
    shrunk = (1 - share) * cov + share * np.trace(cov) / 60 * np.eye(60)
    means = np.stack([centred[labels == label].mean(0) for label in labels])
    wanted = (1 - share) * np.trace(np.linalg.inv(shrunk) @ (means.T @ means / 30))
    assert h_score(features, labels) == pytest.approx(wanted, rel=1e-8)
    assert 0 < wanted < 1


# --- neighbours, probe


def test_neighbours_by_hand() -> None:
    angles = np.deg2rad([0, 5, 10, 90, 95, 100.0])
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    labels = np.array([0, 0, 1, 1, 1, 1])
    # nearest other row: 0→1, 1→0 or 2 (equal: the search takes one), 2→1 (wrong), 3→4, 4→3|5, 5→4
    features[1] = [np.cos(np.deg2rad(4)), np.sin(np.deg2rad(4))]  # now 1→0 without doubt
    assert knn(features, labels, "classification", 1) == pytest.approx(5 / 6)
    # two neighbours: rows 0, 1 see one of each class and count half, row 2 sees 0 and 1: wrong
    assert knn(features, labels, "classification", 2) == pytest.approx((0.5 + 0.5 + 0 + 3) / 6)
    values = np.array([1.0, 1.0, 1.0, 5.0, 5.0, 5.0])
    assert knn(features, values, "regression", 2) == pytest.approx(1.0)


def test_a_row_is_not_its_own_neighbour() -> None:
    features = np.ones((6, 3))  # all at one place: the nearest is anybody, never oneself
    labels = np.array([0, 1, 0, 1, 0, 1])
    assert knn(features, labels, "classification", 5) == pytest.approx(0.0)  # 2 alike, 3 others


def test_the_probe_reads_what_is_linear() -> None:
    features, labels = two_classes(120, 6, 12.0)
    assert probe(features, labels, "classification") == 1.0
    noise, _ = two_classes(400, 6, 0.0, seed=3)
    assert abs(probe(noise, np.arange(400) % 2, "classification") - 0.5) < 0.1
    values = features @ np.arange(6.0)
    assert probe(features, values, "regression") > 0.9
    assert probe(noise, RNG.normal(size=400), "regression") < 0.1
    shifted = features * 1000 + 50  # standardised inside the folds
    assert probe(shifted, labels, "classification") == 1.0
    with pytest.raises(Unscorable, match="single row"):
        probe(features, np.array([1] + [0] * 119), "classification")


def test_the_probe_by_hand() -> None:
    # one feature, −1 for class 0 and +1 for class 1, ten rows each, of which one on each side is
    # of the other class: a linear reader takes the side's majority, and is right on 18 of 20
    features = np.repeat([-1.0, 1.0], 10)[:, None]
    labels = np.repeat([0, 1], 10)
    labels[[3, 17]] = [1, 0]
    assert probe(features, labels, "classification") == pytest.approx(0.9)


def test_the_probe_of_values_is_ridge_regression_by_its_normal_equations() -> None:
    from sklearn.model_selection import KFold

    rng = np.random.default_rng(4)
    features = rng.normal(3.0, 2.0, size=(53, 4))
    values = features @ rng.normal(size=4) + rng.normal(size=53)
    found = []
    for train, test in KFold(5, shuffle=True, random_state=0).split(features):
        middle, scale = features[train].mean(0), features[train].std(0)
        x, y = (features[train] - middle) / scale, values[train]
        weight = np.linalg.solve(x.T @ x + 4 * np.eye(4), x.T @ (y - y.mean()))
        left = values[test] - y.mean() - (features[test] - middle) / scale @ weight
        found.append(1 - (left**2).sum() / ((values[test] - values[test].mean()) ** 2).sum())
    assert probe(features, values, "regression") == pytest.approx(np.mean(found), rel=1e-9)


# --- texts, weights, maps, Fisher


def test_the_text_embedding_by_hand() -> None:
    # means over rows: (1, 1) and (3, 4), so the cosine is 7 / (√2 · 5)
    ours = TaskView("t", "classification", mean=np.array([[2.0, 0.0], [0.0, 2.0]]))
    theirs = TaskView("s", "classification", mean=np.array([[3.0, 3.0], [3.0, 5.0]]))
    found = compute(SCORES.get("textemb"), Candidate(ours, theirs))
    assert found == pytest.approx(7 / (math.sqrt(2) * 5))


def test_weight_similarity_is_averaged_over_sites() -> None:
    # site 0: U V = diag(1, 0) against diag(1, 1): cosine 1/√2; site 1: opposite maps: −1
    one, both = np.eye(2)[:, :1], np.eye(2)
    ours = {"0": (one, one.T), "1": (both, both)}
    theirs = {"0": (both, both), "1": (-both, both)}
    views = [TaskView(name, "classification", maps=m) for name, m in (("t", ours), ("s", theirs))]
    found = compute(SCORES.get("weights"), Candidate(*views))
    assert found == pytest.approx((1 / math.sqrt(2) - 1) / 2)


def test_tfidf_by_hand() -> None:
    assert tfidf_similarity(["red cat"], ["red cat"]) == pytest.approx(1.0)
    assert tfidf_similarity(["red cat"], ["old dog"]) == 0.0
    # two documents "a b" and "a c": idf(a) = 1, idf(b) = idf(c) = ln(3/2) + 1, rows of length 1
    rare = math.log(3 / 2) + 1
    wanted = 1 / (1 + rare**2)
    assert tfidf_similarity(["a b"], ["a c"]) == pytest.approx(wanted)
    with pytest.raises(Unscorable, match="no words"):
        tfidf_similarity(["  "], [""])


def test_cosine() -> None:
    assert cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])) == pytest.approx(24 / 25)
    with pytest.raises(Unscorable, match="zero"):
        cosine(np.zeros(2), np.ones(2))
    with pytest.raises(Unscorable, match="shapes differ"):
        cosine(np.ones(2), np.ones(3))


def test_weight_similarity_is_the_cosine_of_the_dense_maps() -> None:
    ours = {str(i): (RNG.normal(size=(7, 3)), RNG.normal(size=(3, 7))) for i in range(2)}
    theirs = {str(i): (RNG.normal(size=(7, 4)), RNG.normal(size=(4, 7))) for i in range(2)}
    found = map_similarity(ours, theirs)
    for site, (up, down) in ours.items():
        other = theirs[site][0] @ theirs[site][1]
        assert found[site] == pytest.approx(cosine(up @ down, other))
    # the bottleneck's units in another order and scale are the same map
    turn = np.diag([2.0, -0.5, 3.0])[[2, 0, 1]]
    same = {site: (up @ np.linalg.inv(turn), turn @ down) for site, (up, down) in ours.items()}
    assert map_similarity(ours, same) == pytest.approx({"0": 1.0, "1": 1.0})
    with pytest.raises(Unscorable, match="different places"):
        map_similarity(ours, {"0": ours["0"]})
    with pytest.raises(Unscorable, match="zero at site 0"):
        map_similarity({"0": ours["0"]}, {"0": (np.zeros((7, 3)), np.ones((3, 7)))})


def test_an_embedding_map_recovers_a_linear_change() -> None:
    base = RNG.normal(size=(300, 6))
    weight, bias = RNG.normal(size=(6, 6)), RNG.normal(size=6)
    tuned = base @ weight + bias
    found = fit_map(base, tuned)
    assert found.shape == (7, 6)
    np.testing.assert_allclose(found[:-1], weight, atol=1e-3)  # the slight ridge
    np.testing.assert_allclose(apply_map(found, base), tuned, atol=3e-3)
    # ESM-LogME then is LogME of the real features
    labels = (tuned[:, 0] > 0).astype(int)
    target = TaskView("t", "classification", labels=labels, first=base)
    esm = compute(SCORES.get("esm"), Candidate(target, target, esm=found))
    real = compute(SCORES.get("logme"), Candidate(target, target, features=tuned))
    assert esm == pytest.approx(real, abs=1e-3)
    # a source that changes nothing has the identity as its map, in every direction
    few = base[:3]  # fewer rows than dimensions: what was not seen stays as it is
    np.testing.assert_allclose(fit_map(few, few), np.eye(7)[:, :6], atol=1e-12)
    with pytest.raises(Unscorable, match="same rows twice"):
        fit_map(base, tuned[:4])


def test_fisher_similarity_is_averaged_over_layers() -> None:
    ours = {"0": np.array([1.0, 0.0]), "1": np.array([1.0, 1.0])}
    theirs = {"0": np.array([0.0, 2.0]), "1": np.array([2.0, 2.0])}
    assert fisher_similarity(ours, theirs) == pytest.approx({"0": 0.0, "1": 1.0})
    view = TaskView("t", "classification", fisher=ours)
    other = TaskView("s", "classification", fisher=theirs)
    assert compute(SCORES.get("taskemb"), Candidate(view, other)) == pytest.approx(0.5)


# --- what must not be scored


def candidate(**changes: Any) -> Candidate:
    features, labels = two_classes(40, 5, 2.0)
    ours = {"0": (np.ones((5, 2)), np.ones((2, 5)))}
    view = {
        "kind": "classification",
        "texts": ["a cat"] * 40,
        "labels": labels,
        "first": features,
        "mean": features + 3,
        "fisher": {"0": np.ones(5)},
        "maps": ours,
        **{k.partition("_")[2]: v for k, v in changes.items() if k.startswith("target_")},
    }
    target = TaskView("t", **view)  # type: ignore[arg-type]
    source = TaskView(
        "s",
        "classification",
        texts=["a dog"],
        mean=features + 2,
        fisher=changes.get("source_fisher", {"0": np.arange(5.0)}),
        maps=ours,
    )
    esm = np.concatenate([np.eye(5), np.zeros((1, 5))])
    return Candidate(
        target,
        source,
        features=changes.get("features", features),
        esm=changes.get("esm", esm),
        missing=changes.get("missing", {}),
    )


def test_every_score_answers_and_says_what_it_is() -> None:
    for name in SCORES:
        score = SCORES.get(name)
        assert score.name == name
        assert math.isfinite(compute(score, candidate()))
        assert score.citation
        module = __import__(f"mtl.graph.scores.{name}", fromlist=["x"])
        assert any(mark in (module.__doc__ or "") for mark in ("arXiv:", "ICIP")), name
    with pytest.raises(RequestError, match="'logme'"):
        SCORES.get("logm")


LABELLED = ("logme", "probe", "esm", "hscore", "knn")


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target_labels": np.zeros(40, int)}, "one class"),
        ({"target_labels": np.array([1])}, "has 1 rows|the labels 1"),
        ({"target_labels": None}, "target.labels is missing"),
        ({"target_kind": "span_extraction"}, "not defined for span_extraction"),
    ],
)
def test_labels_that_say_nothing(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Unscorable, match=said):
        compute(SCORES.get(name), candidate(**changes))


def spoilt(value: float) -> Any:
    features, _ = two_classes(40, 5, 2.0)
    features[7, 2] = value
    return features


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["logme", "probe", "hscore", "knn"])
def test_features_that_are_not_finite(name: str, value: float) -> None:
    with pytest.raises(Unscorable, match="features holds 1 values that are not finite"):
        compute(SCORES.get(name), candidate(features=spoilt(value)))
    with pytest.raises(Unscorable, match="no adapter for it"):
        compute(
            SCORES.get(name),
            candidate(features=None, missing={"features": "no adapter for it"}),
        )
    with pytest.raises(Unscorable, match="features has 39 rows, the labels 40"):
        compute(SCORES.get(name), candidate(features=np.ones((39, 5))))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("esm", {"target_first": spoilt(math.nan)}, "target.first holds 1 values"),
        ("esm", {"esm": np.ones((4, 4))}, "another width"),
        ("textemb", {"target_mean": spoilt(math.nan)}, "target.mean holds 1"),
        ("tfidf", {"target_texts": []}, "no rows"),
        ("weights", {"target_maps": None, "missing": {"target.maps": "no own"}}, "no own"),
        ("weights", {"target_maps": {}}, "is empty"),
        ("taskemb", {"source_fisher": {"0": np.array([1, math.nan])}}, "not finite"),
        ("taskemb", {"source_fisher": {"1": np.ones(5)}}, "different layers"),
        ("knn", {"target_kind": "regression", "target_labels": np.ones(40)}, "one value"),
    ],
)
def test_other_things_that_are_not_scored(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Unscorable, match=said):
        compute(SCORES.get(name), candidate(**changes))


def test_the_plain_base_is_a_candidate_like_any_other() -> None:
    found = candidate()
    for name in LABELLED:
        own = baseline(SCORES.get(name), found.target)
        assert own == pytest.approx(compute(SCORES.get(name), found), rel=1e-9)
    assert baseline(SCORES.get("tfidf"), found.target) is None


def test_rows_of_a_view() -> None:
    few = first_rows(candidate().target, np.array([1, 4]))
    assert few.labels is not None
    assert few.labels.tolist() == [1, 0]
    assert few.texts == ["a cat"] * 2
    assert few.fisher is not None


@pytest.mark.parametrize("name", ["logme", "probe", "hscore", "knn"])
def test_better_features_score_higher(name: str) -> None:
    good, labels = two_classes(200, 8, 3.0)
    poor, _ = two_classes(200, 8, 0.3)
    target = TaskView("t", "classification", labels=labels)
    score = SCORES.get(name)
    assert compute(score, Candidate(target, target, good)) > compute(
        score, Candidate(target, target, poor)
    )


# --- the head of TaskEmb


def heads() -> list[tuple[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        ("classification", rng.integers(0, 2, 60)),
        ("classification", np.array([0, 2, 3] * 20)),  # class 1 never occurs
        ("regression", rng.normal(size=60)),
    ]


@pytest.mark.parametrize(("kind", "labels"), heads())
def test_the_fisher_of_the_last_layer_by_hand(kind: str, labels: Any) -> None:
    from mtl.compose.feature_head import fit_head, row_losses

    features = np.random.default_rng(6).normal(size=(60, 4)).astype(np.float32)
    weight, bias = fit_head(features, labels, kind)
    state = torch.tensor(features, requires_grad=True)
    row_losses(kind, state @ weight + bias, torch.tensor(labels)).sum().backward()
    logits = features @ weight.numpy() + bias.numpy()
    if kind == "classification":  # ∂ loss / ∂ h = W (p − onehot)
        shown = np.exp(logits - logits.max(1, keepdims=True))
        error = shown / shown.sum(1, keepdims=True)
        error[np.arange(60), labels] -= 1
    else:  # W · 2 (prediction − value)
        error = 2 * (logits - labels[:, None])
    np.testing.assert_allclose(state.grad.numpy(), error @ weight.numpy().T, atol=1e-4)
    accuracy: Callable[[Any], Any] = lambda found: (found.argmax(1) == labels).mean()  # noqa: E731
    if kind == "classification":
        assert accuracy(logits) > 0.4
        with pytest.raises(Unscorable, match="one class"):
            fit_head(features, np.zeros(60, int), kind)
