"""Learning curves: own adapter, composition and gain over the number of training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.files import write_bytes
from mtl.report.controls import Controls, gains_over_controls
from mtl.report.heatmap import new_figure, png_of
from mtl.report.stats import LEVEL, Interval, interval_text
from mtl.report.tables import (
    Row,
    adapters_of,
    base_names,
    by_group,
    group_of,
    own_adapters,
    row_of,
)
from mtl.words import printable, printable_lines
from mtl.zoo.caveats import MARK, footnotes
from mtl.zoo.merged import once
from mtl.zoo.settings import method_settings_of, reading_of

if TYPE_CHECKING:
    from mtl.zoo import Entry
    from mtl.zoo.manifest import Manifest

OF_ROWS = ("max_train_samples", "shots", "shots_per_class", "sample")
"""Run settings in which the points of one curve differ."""
_OWN, _COMPOSED = "#666666", "#1f5fa8"
_APART = 1.025  # own and composed stand a little to the left and right of their number of rows


@dataclass(frozen=True)
class Point:
    """What was reached with so many training rows; None where there are no runs."""

    rows: int
    own: Row | None
    composed: Row | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "own": self.own.to_dict() if self.own else None,
            "composed": self.composed.to_dict() if self.composed else None,
        }


@dataclass(frozen=True)
class Curve:
    """A composition beside the own adapter, with fewest rows first.

    Attributes:
        own: the method of the own adapters.
        sources: how many a composition used, over the points: one number, or least and most.
        refs: its compositions.
    """

    task: str
    base: str
    metric: str
    method: str
    own: str
    sources: tuple[int, ...]
    points: tuple[Point, ...]
    refs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "points": [point.to_dict() for point in self.points],
            "caption": caption(self),
        }


def curve_of(
    points: Mapping[int, tuple[Sequence[Entry], Sequence[Entry]]], controls: Controls
) -> Curve | None:
    """The curve of own adapters and compositions by their number of training rows.

    Args:
        points: rows → own adapters, compositions; those of a side differ in their seeds.
        controls: those that there are, of any composition.

    Returns:
        None where there is no composition at all.
    """
    composed = [  # by rows and seed, not by when they were made: two may be of one second
        entry
        for _, (_, found) in sorted(points.items(), key=lambda item: item[0])
        for entry in sorted(found, key=lambda entry: entry.manifest.seed)
    ]
    if not composed:
        return None
    manifest = composed[0].manifest
    owns = [entry.manifest.method for own, _ in points.values() for entry in own]
    methods = owns or sorted({parent["method"] for parent in manifest.parents})
    bases = base_names(composed)
    sizes = sorted({len(entry.manifest.parents) for entry in composed})
    return Curve(
        task=manifest.task["id"],
        base=bases[manifest.base["fingerprint"]],
        metric=manifest.task["headline"],
        method=manifest.method,
        own=methods[0],
        sources=(sizes[0],) if len(sizes) == 1 else (sizes[0], sizes[-1]),
        points=tuple(
            Point(
                rows,
                row_of(own, [], {}, bases) if own else None,
                _beside_controls(found, row_of(found, own, {}, bases), controls) if found else None,
            )
            for rows, (own, found) in sorted(points.items(), key=lambda item: item[0])
        ),
        refs=tuple(entry.ref for entry in composed),
    )


def _beside_controls(entries: Sequence[Entry], row: Row, controls: Controls) -> Row:
    return replace(row, controls=gains_over_controls(entries, controls))


def curves(entries: Sequence[Entry], beside: Sequence[Entry] = ()) -> list[Curve]:
    """All curves that entries of a zoo make: compositions that differ in rows and seed alone.

    The own adapters, and controls, are those that a report compares with, among ``entries`` and
    ``beside`` (:func:`mtl.report.results`).
    """
    everything = [*entries, *beside]
    controls = Controls(by_group(e for e in everything if e.manifest.control).values())
    found = [curve_of(points, controls) for points in _points(everything)]
    return [curve for curve in found if curve is not None]


def shorter(entries: Sequence[Entry]) -> set[str]:
    """Digests of runs of curves, where one that differs in rows alone had more of them."""
    most: dict[tuple[Any, ...], int] = {}
    for manifest in (entry.manifest for entry in entries if entry.manifest.kind != "joint"):
        kind = _kind_of(manifest)
        most[kind] = max(_rows_of(manifest), most.get(kind, 0))
    return {
        entry.digest
        for points in _points(entries)
        for sides in points.values()
        for entry in (*sides[0], *sides[1])
        if _rows_of(entry.manifest) < most[_kind_of(entry.manifest)]
    }


def _rows_of(manifest: Manifest) -> int:
    """Rows that a run trained on; 0 of an entry from elsewhere, which does not say it."""
    return int((manifest.data.get("sizes") or {}).get("train", 0))


def _points(
    entries: Sequence[Entry],
) -> list[dict[int, tuple[Sequence[Entry], Sequence[Entry]]]]:
    """Of every curve, rows → own adapters, compositions; of two numbers of rows at least."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    kinds: dict[tuple[Any, ...], dict[int, dict[int, Entry]]] = {}
    for entry in sorted(once(entries), key=lambda entry: entry.manifest.created):
        manifest = entry.manifest
        if manifest.kind == "joint":
            continue
        groups.setdefault(group_of(entry), []).append(entry)
        if manifest.composes:  # of one seed and number of rows, the newest
            rows = _rows_of(manifest)
            kinds.setdefault(_kind_of(manifest), {}).setdefault(rows, {})[manifest.seed] = entry
    adapters = adapters_of(groups)
    return [
        {
            rows: (own_adapters(next(iter(by_seed.values())), adapters), list(by_seed.values()))
            for rows, by_seed in points.items()
        }
        for points in kinds.values()
        if len(points) > 1
    ]


def _kind_of(manifest: Manifest) -> tuple[Any, ...]:
    """What runs that differ in rows and seed alone have in common."""
    from mtl.files import canonical_json

    settings = {k: v for k, v in manifest.run_settings.items() if k not in OF_ROWS}
    sources = tuple(
        (parent["task"], parent["method"], own or parent["digest"])
        for parent in manifest.parents
        for own in ["" if parent["task"] != manifest.task["id"] else "of the same rows"]
    )
    return (
        manifest.task["id"],
        manifest.base["fingerprint"],
        manifest.data.get("protocol"),
        manifest.method,
        canonical_json(method_settings_of(manifest)),
        canonical_json(settings),
        canonical_json(reading_of(manifest)),
        sources,
    )


def render(curve: Curve) -> str:
    """The curve as a table, and what stands in it as a sentence."""
    from tabulate import tabulate

    twins = sorted({how for p in curve.points if p.composed for how in p.composed.controls})
    table = [
        [
            f"{point.rows:,}",
            _text(point.own, "test"),
            _text(point.composed, "test"),
            _text(point.composed, "gain"),
            *(_over(point.composed, how) for how in twins),
            _seeds(point),
        ]
        for point in curve.points
    ]
    head = ["train rows", f"own ({curve.own})", _composed(curve), "gain"]
    head += [*(f"gain over {how} twins" for how in twins), "seeds"]
    doubts = footnotes(
        (f"{row.metric} of {row.method} with {point.rows:,} rows", why)
        for point in curve.points
        for row in filter(None, (point.own, point.composed))
        for why in row.caveats
    )
    text = tabulate(table, headers=head, disable_numparse=True)
    return printable_lines(f"{text}{doubts}\n\n{caption(curve)}")


def _text(row: Row | None, what: str) -> str:
    value: Interval | None = getattr(row, what) if row else None
    if row is None or value is None:
        return "–"
    doubts = row.caveats if what == "test" else row.gain_caveats
    return interval_text(value, sign=what == "gain", mark=MARK if doubts else "")


def _over(row: Row | None, how: str) -> str:
    gain = row.controls.get(how) if row else None
    return "–" if gain is None else interval_text(gain, sign=True)


def _seeds(point: Point) -> str:
    sides = [len(row.seeds) if row else 0 for row in (point.own, point.composed)]
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]} and {sides[1]}"


def _composed(curve: Curve) -> str:
    return f"{curve.method} (K={'–'.join(map(str, curve.sources))})"


def caption(curve: Curve) -> str:
    """What the picture shows, for who reads it, and for who cannot see it."""
    rows = ", ".join(f"{point.rows:,}" for point in curve.points)
    sides = [row for point in curve.points for row in (point.own, point.composed) if row]
    seeds = sorted({len(row.seeds) for row in sides})
    how_many = "one seed, so without intervals" if seeds == [1] else (
        f"means over {'–'.join(map(str, seeds))} seeds with {LEVEL:.0%} Student-t intervals"
    )  # fmt: skip
    tested = sorted({row.examples for row in sides if row.examples})
    paired = "" if seeds == [1] else ", paired by seed"
    return (
        f"Test {curve.metric} of {curve.task} ({'/'.join(f'{n:,}' for n in tested)} rows) with "
        f"{rows} training rows, base {curve.base}: own adapter ({curve.own}) and {curve.method} "
        f"over {'–'.join(map(str, curve.sources))} sources; {how_many}. "
        f"Gain: composition minus own adapter{paired}. {_in_words(curve)}"
    )


def _in_words(curve: Curve) -> str:
    """What a picture of gains says at a glance: where they are sure, and which sign they have."""
    found: dict[str, list[str]] = {}
    for point in curve.points:
        gain = point.composed.gain if point.composed else None
        if gain is None:
            continue
        what = "not told from zero"
        if gain.low is not None and gain.high is not None and not gain.caveat:
            what = "above zero" if gain.low > 0 else "below zero" if gain.high < 0 else what
        found.setdefault(what, []).append(f"{point.rows:,}")
    parts = [f"{what} at {', '.join(rows)} rows" for what, rows in found.items()]
    return f"The gain is {'; '.join(parts)}." if parts else "There is nothing to compare."


def draw_curve(curve: Curve, path: Path) -> None:
    """Draw scores and gains over the number of rows as a PNG, atomically; the caption is in it.

    Raises:
        RequestError: matplotlib is not installed.
    """
    from textwrap import fill

    figure = new_figure(6.4, 6.4, 130)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2]})
    for side, name, colour, shift, mark in (
        ("own", f"own adapter ({curve.own})", _OWN, 1 / _APART, "s"),
        ("composed", _composed(curve), _COMPOSED, _APART, "o"),
    ):
        found = {p.rows: getattr(p, side).test for p in curve.points if getattr(p, side)}
        _bars(upper, found, shift, label=name, color=colour, marker=mark)
    gains = {p.rows: p.composed.gain for p in curve.points if p.composed}
    _bars(lower, gains, 1.0, color=_COMPOSED, marker="o")
    lower.axhline(0, color="black", linewidth=0.8)
    upper.set_ylabel(f"test {curve.metric}")
    lower.set_ylabel("gain")
    lower.set_xlabel("training rows (log scale)")
    lower.set_xscale("log")
    places = [point.rows for point in curve.points]
    lower.set_xticks(places, [f"{rows:,}" for rows in places], minor=False)
    lower.set_xticks([], minor=True)
    for axes in (upper, lower):
        axes.grid(axis="y", linewidth=0.4, alpha=0.6)
    upper.legend(fontsize=8, frameon=False)
    said = printable(caption(curve))
    figure.suptitle(fill(said, 100), fontsize=7, ha="left", x=0.02)
    write_bytes(path, png_of(figure, said))


def _bars(axes: Any, values: Mapping[int, Interval | None], shift: float, **style: Any) -> None:
    """Means as a line, with bars where there are intervals."""
    found = {rows: value for rows, value in values.items() if value is not None}
    halves = [
        value.half if value.half and not value.caveat else float("nan") for value in found.values()
    ]
    axes.errorbar(
        [rows * shift for rows in found],
        [value.mean for value in found.values()],
        yerr=halves,
        capsize=3,
        linewidth=1.2,
        markersize=4,
        **style,
    )
