"""In what the passes behind scores compute: bf16 where that is faster and the scores stay the same.

bf16 saves about two thirds of a pass on a CPU that multiplies in it. Whether the scores that are
asked for bear it is tried before: all of them for a few dev rows of the target, in fp32 and in
bf16. They are equal where the same source is first and no value (of a source or of the plain base)
moves by more than a 50th of what lies between the best and the worst. Then all passes are bf16,
else all are fp32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.engine.hardware import cpu_has_bf16

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtl.compose.features import Extractor
    from mtl.compose.suggest import Suggestion
    from mtl.data import TaskData
    from mtl.graph.scores import Score

ROWS = 64
"""Rows of dev that are tried, and of each source's own."""
WORTH = 4 * ROWS
"""Rows that are looked at, from which a test costs less than bf16 saves."""
SHARE = 1 / 50
"""How far a score may move, of the spread of its values."""
PLAIN = "(plain base)"
PASSES = {"features", "esm"} | {
    f"{who}.{what}" for who in ("target", "source") for what in ("first", "mean", "fisher")
}
"""Needs of a score for which rows go through the encoder."""


@dataclass(frozen=True)
class SelfTest:
    """Scores of a few rows in bf16 beside those in fp32.

    Attributes:
        rows, split: of the target, that were tried.
        score: that moved most, or whose first source is another one; empty where none was had.
        moved: its largest change, as a share of the spread of its values; None without spread.
        equal: whether bf16 is taken.
        reason: why not.
    """

    rows: int
    split: str
    score: str
    moved: float | None
    equal: bool
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A sentence for people."""
        where = f"on {self.rows} {self.split} rows"
        if self.equal:
            most = f"moved by more than {self.moved or 0:.1%} of its spread"
            return f"passes in bf16: {where} no score {most}"
        return f"passes in fp32: {where} in bf16 {self.reason}"


def pays(scores: Sequence[Score], extractor: Extractor, rows: int) -> bool:
    """Whether bf16 can save more here than its test costs."""
    passes = any(PASSES.intersection(score.needs) or score.features for score in scores)
    on_cpu = extractor.device.torch_device.type == "cpu"
    return passes and on_cpu and cpu_has_bf16() and min(rows, extractor.limit) >= WORTH


def in_precision(extractor: Extractor, precision: str) -> Extractor:
    """The same passes in ``precision``."""
    return replace(extractor, device=replace(extractor.device, precision=precision))


def self_test(
    data: TaskData, look: Callable[[TaskData, Extractor], Suggestion], extractor: Extractor
) -> SelfTest:
    """Score a few dev rows in both precisions.

    Args:
        look: scores the candidates for the training rows of some data.
    """
    split = "dev" if len(data.splits.get("dev", ())) >= ROWS else "train"
    few = replace(
        data,
        splits={"train": data.splits[split]},
        fingerprints={"train": data.fingerprints[split]},
        sizes={"train": len(data.splits[split])},
    )
    small = replace(extractor, limit=ROWS)
    try:
        found = [look(few, in_precision(small, name)) for name in ("fp32", "bf16")]
    except Exception as error:  # such as dev rows of one class; more rows may do in fp32
        reason = f"nothing could be scored: {str(error).partition(chr(10))[0]}"
        return SelfTest(ROWS, split, "", None, False, reason)
    return compared(found[0], found[1], split)


def compared(exact: Suggestion, half: Suggestion, split: str) -> SelfTest:
    """What the two say of each other."""
    one, other = _by_score(exact), _by_score(half)
    worst = SelfTest(exact.rows, split, "", 0.0, True)
    if not one:
        return replace(worst, equal=False, reason="no score could be had")
    for score in sorted({*one, *other}):
        ours, theirs = one.get(score, {}), other.get(score, {})
        if ours.keys() != theirs.keys():
            reason = f"{score} judges other sources"
            return replace(worst, score=score, moved=None, equal=False, reason=reason)
        change = max(abs(ours[name] - theirs[name]) for name in ours)
        spread = max(ours.values()) - min(ours.values())
        if change and not spread:
            reason = f"{score} moved, and tells no source from another"
            return replace(worst, score=score, moved=None, equal=False, reason=reason)
        moved = change / spread if change else 0.0
        if moved >= (worst.moved or 0.0):
            worst = replace(worst, score=score, moved=round(moved, 6))
        if moved > SHARE:
            worst = replace(worst, equal=False)
        elif exact.ranked(score)[:1] != half.ranked(score)[:1]:
            reason = f"another source is first by {score}"
            return replace(worst, score=score, moved=round(moved, 6), equal=False, reason=reason)
    if not worst.equal:
        worst = replace(worst, reason=f"{worst.score} moved by {worst.moved:.1%} of its spread")
    return worst


def _by_score(found: Suggestion) -> Mapping[str, dict[str, float]]:
    """Score → source, or the plain base → value."""
    values: dict[str, dict[str, float]] = {}
    for task, own in found.values.items():
        for score, value in own.items():
            values.setdefault(score, {})[task] = value
    for score, value in found.base.items():
        values.setdefault(score, {})[PLAIN] = value
    return values
