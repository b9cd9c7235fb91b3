"""Which sources to compose: by calibrated scores, or by evidence that is there; with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, unknown
from mtl.graph.calibrate import Calibration, Trust, expected_gains, trust_text
from mtl.graph.evidence import KINDS
from mtl.graph.model import ORDER, choice_value, edge_value
from mtl.graph.request import SourceRequest
from mtl.typed import graph_places
from mtl.words import printable

if TYPE_CHECKING:
    import networkx as nx

WITHIN_ONE = ("reliance", "attribution")
"""Evidence that compares within one composition only."""
FALLBACK = "logme"
"""The score that decides where nobody calibrated."""


@dataclass(frozen=True)
class Choice:
    """One candidate and what became of it.

    Attributes:
        value: what it was ranked by, None where that is unknown.
        expected: measured transfer that the calibration expects.
        measured: measured transfer on these rows, on the dev split.
    """

    source: str
    chosen: bool
    reason: str
    value: float | None = None
    expected: float | None = None
    measured: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Selection:
    """All candidates, the chosen ones first, and what they were ranked by.

    Attributes:
        no_candidates: source → why it could not be judged at all (another base, no adapter, ...).
    """

    ranked_by: str
    trust: str
    choices: list[Choice]
    no_candidates: Mapping[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> list[str]:
        return [choice.source for choice in self.choices if choice.chosen]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ranked_by": self.ranked_by,
            "trust": self.trust,
            "choices": [choice.to_dict() for choice in self.choices],
            "no_candidates": dict(self.no_candidates),
        }


def measured_for(graph: nx.DiGraph, target: str, base: str, rows: str) -> dict[str, dict[str, Any]]:
    """Source → the measured transfer to ``target`` on this base and these training rows.

    Only what was measured on dev, too: choices go by that. And only by one composition, the one
    that most sources were measured with: gains of several do not compare.
    """
    return _findings(graph, target, base, rows, "measured", None)


def choose_auto(
    values: Mapping[str, float],
    plain: float | None,
    measured: Mapping[str, Mapping[str, Any]],
    trust: Trust | None,
    score: str,
    request: SourceRequest,
) -> Selection:
    """Pick by a score, calibrated where it is.

    A source's gain is its measured transfer on these rows, else what the calibration expects of its
    score. Ranked by gain where every candidate has one, else by the score. Left out: gains below
    ``min_gain``, without one those that are not above 0; where gains are not known, sources whose
    features say no more about the labels than the plain base's do; whatever is beyond the budget.
    The best one stays, unless ``min_gain`` says otherwise.

    Args:
        values: source → score.
        plain: the score of the plain base, None where the score has none.
        measured: source → measured finding.
        trust: the score's calibration, None where there is none.

    Raises:
        RequestError: no candidate, or a least gain where no gain is known.
    """
    if not values and not measured:
        raise RequestError(
            "--sources auto has no candidate that could be scored; "
            f"'python -m mtl.graph suggest --target TASK{graph_places()}' says why. Name the "
            "sources, or train some (--train-missing)."
        )
    expected = expected_gains(values, trust) if trust is not None and values else {}
    sources = sorted({*values, *measured})
    gains = {
        source: choice_value(measured[source]) if source in measured else expected.get(source)
        for source in sources
    }
    known = all(gain is not None for gain in gains.values())
    if request.min_gain is not None and not known:
        unknown_ones = [source for source in sources if gains[source] is None]
        raise RequestError(
            f"--min-gain {request.min_gain} needs a gain of every candidate, and nobody measured "
            f"or calibrated for {', '.join(unknown_ones)}. Run first "
            f"'python -m mtl.graph measure --targets TASK --scores all{graph_places()}' and "
            f"'python -m mtl.graph calibrate{graph_places()}', or leave --min-gain out."
        )
    if known:
        order = sorted(sources, key=lambda s: (-(gains[s] or 0.0), s))
    else:
        order = sorted(sources, key=lambda s: (-values.get(s, float("-inf")), s))
    reasons: dict[str, str] = {}
    taken: list[str] = []
    for source in order:
        gain, value = gains[source], values.get(source)
        if request.min_gain is not None and gain is not None and gain < request.min_gain:
            reasons[source] = f"left out: gain below --min-gain {request.min_gain:g}"
        elif known and request.min_gain is None and gain is not None and gain <= 0 and taken:
            how = "measured" if source in measured else "expected"
            reasons[source] = f"left out: {how} gain {gain:+.4f} (--min-gain -1 takes it)"
        elif not known and value is None:
            reasons[source] = f"left out: no value of {score}"
        elif not known and plain is not None and value is not None and value <= plain and taken:
            reasons[source] = "left out: its features say no more than the plain base's"
        elif len(taken) >= request.budget:
            reasons[source] = f"left out: beyond the budget of {request.budget}"
        else:
            taken.append(source)
            reasons[source] = _why(source, measured, expected, score, value, plain)
    if not taken:
        raise RequestError(
            f"--sources auto leaves no source: no gain reaches --min-gain {request.min_gain:g}. "
            "The best are "
            + ", ".join(f"{s} ({gains[s]:+.4f})" for s in order[:3])
            + ". Lower it, "
            "or train the target's own adapter alone (mtl.train)."
        )
    ranked = "measured or expected transfer" if known else score
    return Selection(
        ranked_by=f"{ranked} ({score})" if known and expected else ranked,
        trust=f"{score}: {trust_text(trust)}",
        choices=[
            _choice(s, s in taken, reasons[s], values.get(s), expected.get(s), measured.get(s))
            for s in [*taken, *(s for s in order if s not in taken)]
        ],
    )


def choose_from_graph(
    graph: nx.DiGraph,
    target: str,
    base: str,
    rows: str,
    request: SourceRequest,
    tasks: Collection[str],
    typed: str = "",
) -> Selection:
    """The ``k`` strongest edges into ``target`` by evidence that is there; nothing is computed.

    Without ``by``, the first kind of evidence (measured, attribution, reliance, predicted) that as
    many as k sources have, else the one that most have. Findings on the same training rows count
    before those on others.

    Args:
        tasks: ids of the sources that may be chosen.
        typed: how a command line names the target, for messages [its id].

    Raises:
        RequestError: unknown ``by``, or no evidence of it.
    """

    def among(kind: str, method: str | None) -> dict[str, dict[str, Any]]:
        found = _findings(graph, target, base, None, kind, method)
        how = next((item["method"] for item in found.values()), method)
        here = _findings(graph, target, base, rows, kind, how)
        found = here if here and kind in WITHIN_ONE else {**found, **here}
        return {source: item for source, item in found.items() if source in tasks}

    plain_kinds = [kind for kind in KINDS if kind != "predicted"]
    if request.by is None:
        tables = {kind: among(kind, None) for kind in ORDER}
        enough = [kind for kind in ORDER if len(tables[kind]) >= request.budget]
        kind = enough[0] if enough else max(ORDER, key=lambda k: len(tables[k]))
        if kind == "predicted" or not tables[kind]:
            named = "measured, attribution or reliance"
            raise RequestError(_nothing(target, base, named, typed or target))
        found, named = tables[kind], kind
    elif request.by in plain_kinds:
        found, named = among(request.by, None), request.by
    else:
        from mtl.graph.scores import SCORES

        if request.by not in SCORES:
            raise unknown("evidence", request.by, [*plain_kinds, *SCORES.names()])
        found = among("predicted", request.by)
        named = request.by
    if not found:
        raise RequestError(_nothing(target, base, named, typed or target))
    measured = measured_for(graph, target, base, rows)
    values = {source: choice_value(item) or 0.0 for source, item in found.items()}
    order = sorted(found, key=lambda s: (-values[s], s))
    choices, taken = [], 0
    for source in order:
        item = found[source]
        gain = choice_value(measured[source]) if source in measured else None
        elsewhere = "" if item["rows"] == rows else ", on other training rows"
        if request.min_gain is not None and (gain is None or gain < request.min_gain):
            why = "not measured" if gain is None else "gain"
            reason, chosen = f"left out: {why}, --min-gain {request.min_gain:g}", False
        elif taken >= request.budget:
            reason, chosen = f"left out: beyond k={request.budget}", False
        else:
            taken, chosen = taken + 1, True
            reason = f"{named} {values[source]:+.4f} ({item['method']}{elsewhere})"
        choices.append(_choice(source, chosen, reason, values[source], None, measured.get(source)))
    if not taken:
        raise RequestError(
            f"--sources graph:k={request.budget} leaves no source: none has a measured gain of "
            f"{request.min_gain:g} or more."
        )
    choices.sort(key=lambda choice: not choice.chosen)
    return Selection(f"{named} in the graph", "as found, nothing was computed", choices)


def trusted_score(found: Calibration | None) -> tuple[str, Trust | None]:
    """The score that decides, and its calibration: the best one here, else :data:`FALLBACK`."""
    best = found.best() if found is not None else None
    return (best.score, best) if best is not None else (FALLBACK, None)


def selection_text(found: Selection, target: str) -> str:
    """The table that says why."""
    from tabulate import tabulate

    def text(value: float | None, form: str = "+.4f") -> str:
        return "" if value is None else format(value, form)

    rows = [
        [
            "+" if choice.chosen else "",
            printable(choice.source),
            text(choice.value, ".4f"),
            text(choice.expected),
            text(choice.measured),
            choice.reason,
        ]
        for choice in found.choices
    ]
    rows += [
        ["", printable(task), "", "", "", f"no candidate: {printable(reason)}"]
        for task, reason in found.no_candidates.items()
    ]
    headers = ["", "source", "score", "expected", "measured (dev)", "why"]
    lines = [
        tabulate(rows, headers=headers, disable_numparse=True),
        f"sources for {printable(target)}, ranked by {found.ranked_by}; {found.trust}",
    ]
    for choice in found.choices:
        if choice.measured is not None and choice.measured < 0:
            lines.append(
                f"negative transfer on dev: {printable(choice.source)} → {printable(target)} "
                f"{choice.measured:+.4f}" + (", chosen all the same" if choice.chosen else "")
            )
    return "\n".join(lines)


def _findings(
    graph: nx.DiGraph,
    target: str,
    base: str,
    rows: str | None,
    kind: str,
    method: str | None,
) -> dict[str, dict[str, Any]]:
    """Source → finding of ``kind`` that a choice may go by, all of one method.

    Shares and contributions compare within one composition only (a third of three sources is no
    more than a sixth of six): those of the composition that has most of them, then the latest.

    Args:
        rows: only findings on these training rows, None for any.
        method: None for the one that most sources have.
    """
    usable: dict[str, list[dict[str, Any]]] = {}
    if target in graph:
        for source, _, data in graph.in_edges(target, data=True):
            usable[source] = [
                item
                for item in data["evidence"]
                if (item["kind"], item["base"]) == (kind, base)
                and rows in (None, item["rows"])
                and choice_value(item) is not None
                and source != target
            ]
    counts = Counter(how for items in usable.values() for how in {i["method"] for i in items})
    if method is None and counts:
        method = max(sorted(counts), key=lambda how: counts[how])
    if kind in WITHIN_ONE:
        among = Counter[str]()
        latest: dict[str, str] = {}
        for items in usable.values():
            for one in items:
                if one["method"] == method:
                    mark = one["settings"]
                    among[mark] += 1
                    latest[mark] = max(latest.get(mark, ""), one["created"])
        best = max(among, key=lambda mark: (among[mark], latest[mark]), default="")
        usable = {s: [i for i in items if i["settings"] == best] for s, items in usable.items()}
    found = {}
    for source, items in usable.items():
        item = edge_value({"evidence": items}, (kind,), method)
        if item is not None:
            found[source] = item
    return found


def _choice(
    source: str,
    chosen: bool,
    reason: str,
    value: float | None,
    expected: float | None,
    measured: Mapping[str, Any] | None,
) -> Choice:
    seen = choice_value(measured) if measured else None
    return Choice(source, chosen, reason, value, expected, seen)


def _why(
    source: str,
    measured: Mapping[str, Mapping[str, Any]],
    expected: Mapping[str, float],
    score: str,
    value: float | None,
    plain: float | None,
) -> str:
    if source in measured:
        return f"measured {choice_value(measured[source]):+.4f} ({measured[source]['method']})"
    if source in expected:
        return f"{score} lets expect {expected[source]:+.4f}"
    if plain is not None and value is not None:
        better = "above" if value > plain else "not above, but the best of all;"
        return f"{score} {value:.4f} {better} the plain base's {plain:.4f}"
    return f"{score} {value:.4f}" if value is not None else ""


def _nothing(target: str, base: str, named: str, typed: str) -> str:
    at = graph_places()
    if named == "reliance":
        do = f"'python -m mtl.compose --target {typed}{at}' adds it (of several sources)"
    elif named == "attribution":
        do = f"With a composition of several, 'python -m mtl.graph attribute ENTRY{at}' adds it"
    elif named.startswith("measured"):
        do = f"'python -m mtl.graph measure --targets {typed}{at}' adds it (measured)"
    else:
        do = f"'python -m mtl.graph suggest --target {typed} --scores {named}{at}' adds it"
    return (
        f"The graph has no {named} evidence for {target} on base {base[:8]}. {do}; "
        "--sources auto computes scores itself."
    )
