"""What a stage-one method is, and the operations that all methods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mtl.engine.settings import Training
from mtl.errors import RequestError
from mtl.registry import Registry

if TYPE_CHECKING:
    from mtl.methods.tuned import Tuned


@dataclass(frozen=True)
class RunFacts:
    """What a method may know of the run it is attached for.

    Attributes:
        steps: optimiser steps that are planned, 0 where nothing will train (loading, counting).
        head: name of the run's head design; BitFit trains the pooler's bias where it is read.
    """

    steps: int = 0
    head: str = ""


@dataclass(frozen=True)
class Method:
    """A way to train one adapter on one task.

    Attributes:
        name: what ``--method`` takes.
        settings: frozen dataclass of its settings; its ``__post_init__`` checks them.
        summary: one line for ``mtl.methods ls``.
        citation: paper, section.
        attach: (encoder, settings, name, request) → :class:`Tuned`: adds the method to a frozen
            encoder, trainable and active. Draws from torch's global generator.
        load: (encoder, settings, name, folder) → :class:`Tuned`: adds what is stored in ``folder``,
            frozen, active where ``activate`` would make it so.
        activate: (encoder, name) makes a loaded adapter the active one; None where loading does.
        placement: (settings, hidden size) → signature that must agree among composed sources, None
            where the method composes with nothing.
        composes: ``bottleneck``, ``low_rank``, or "" with the reason in ``refusal``.
        as_source: (encoder, settings, name) readies a loaded adapter for ``as_source``; None where
            it is ready.
        load_source: (encoder, settings, name, folder) adds what is stored as a source alone, with
            no live adapter, in place of ``load`` and ``as_source``; without a folder, zeros of its
            shapes (for counting). None where ``load`` serves.
        defaults: values by which this name differs from the dataclass' defaults.
        training: the run settings of its paper.
        weights: settings → how its entry stores weights: ``adapters``, ``peft`` or ``delta``.
        adds: whether its parameters come on top of the base's (False: it trains the base's own).
        package: the optional package that training and counting need, "" for none.
    """

    name: str
    settings: type
    summary: str
    citation: str
    attach: Callable[[Any, Any, str, RunFacts], Tuned]
    load: Callable[[Any, Any, str, Path], Tuned]
    activate: Callable[[Any, str], None] | None = None
    placement: Callable[[Any, int], Mapping[str, Any]] | None = None
    composes: str = ""
    refusal: str = ""
    as_source: Callable[[Any, Any, str], None] | None = None
    load_source: Callable[[Any, Any, str, Path | None], None] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    training: Training = field(default_factory=Training)
    weights: Callable[[Any], str] = lambda settings: "adapters"
    adds: bool = True
    package: str = ""


@dataclass(frozen=True)
class Unavailable:
    """A method that papers name and nobody can reproduce: listed with the reason."""

    name: str
    reason: str
    citation: str


METHODS: Registry[Method] = Registry("method", Method, "mtl.methods")
for _name, _target in (
    ("pfeiffer", "pfeiffer:METHOD"),
    ("houlsby", "pfeiffer:HOULSBY"),
    ("parallel", "pfeiffer:PARALLEL"),
    ("adakron", "adakron:METHOD"),
    ("madakron-full", "madakron:FULL"),
    ("madakron-partial", "madakron:PARTIAL"),
    ("adamix", "adamix:METHOD"),
    ("tensorized-cp", "tensorized:CP"),
    ("tensorized-tucker", "tensorized:TUCKER"),
    ("tensorized-tt", "tensorized:TT"),
    ("tensorized-tr", "tensorized:TR"),
    ("propetl", "propetl:METHOD"),
    ("compacter", "compacter:COMPACTER"),
    ("compacter++", "compacter:COMPACTER_PP"),
    ("bitfit", "bitfit:METHOD"),
    ("full-ft", "full_ft:METHOD"),
    ("hadamard", "hadamard:METHOD"),
    ("diff-pruning", "diff_pruning:METHOD"),
    ("lora", "lora:METHOD"),
    ("sora", "sora:METHOD"),
    ("adalora", "adalora:METHOD"),
    ("vera", "vera:METHOD"),
    ("ia3", "ia3:METHOD"),
    ("prefix", "prefix:METHOD"),
    ("unipelt-ap", "unipelt:AP"),
    ("unipelt-apl", "unipelt:APL"),
    ("loreft", "loreft:METHOD"),
):
    METHODS.add(_name, f"mtl.methods.{_target}")


UNAVAILABLE = tuple(
    Unavailable(*row)
    for row in (
        (
            "mole-adapter",
            "it needs the dependency graph of every input from an external parser, and neither the "
            "parses nor the code are published",
            "arXiv:2310.16240",
        ),
        (
            "alora",
            "there is no public code, and its allocation schedule is not given exactly",
            "arXiv:2403.16187",
        ),
        (
            "learned-adapter",
            "it is the result of an architecture search (GDNAS) whose code and found designs are "
            "not published",
            "Findings of ACL 2023",
        ),
    )
)


def find_method(name: str, hint: str = "") -> Method:
    """The method called ``name``.

    Raises:
        RequestError: unknown (with the closest name), or one that cannot be reproduced (with why).
    """
    for missing in UNAVAILABLE:
        if name == missing.name and name not in METHODS:
            raise RequestError(
                f"Method {name!r} is named in papers and cannot be reproduced: {missing.reason} "
                f"({missing.citation}). python -m mtl.methods ls lists what there is."
            )
    return METHODS.get(name, hint)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """The setting of methods that may leave the head alone.

    Attributes:
        train_head: False keeps the head as it was drawn, as SoRA's comparison does with all of its
            methods but full fine-tuning (Ding et al. 2023, their code).
    """

    LATER: ClassVar[tuple[str, ...]] = ("train_head",)
    """Settings younger than the first entries of zoos, see :func:`settings_dict`."""

    train_head: bool = True


def make_settings(owner: str, settings: type, values: Mapping[str, Any]) -> Any:
    """Build a settings dataclass from plain values.

    Raises:
        RequestError: an unknown key, or a value that the dataclass refuses.
    """
    try:
        return settings(**values)
    except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RequestError(f"Settings of {owner}: {error}.") from error


def attach(
    encoder: Any, method: Method, settings: Any, name: str, request: RunFacts | None = None
) -> Tuned:
    """Add a new adapter ``name`` to ``encoder``, trainable and active."""
    tuned = method.attach(encoder, settings, name, request or RunFacts())
    return with_head_setting(tuned, settings)


def with_head_setting(tuned: Tuned, settings: Any) -> Tuned:
    """``tuned`` with ``train_head`` as the settings have it; True where they have none."""
    return replace(tuned, train_head=getattr(settings, "train_head", True))


def load(
    encoder: Any, method: Method, settings: Any, name: str, folder: Path, *, active: bool = False
) -> Tuned:
    """Add what is stored in ``folder`` to ``encoder`` as ``name``, frozen.

    Raises:
        ZooError: the files are damaged or do not fit.
    """
    tuned = method.load(encoder, settings, name, folder)
    if active and method.activate:
        method.activate(encoder, name)
    return with_head_setting(tuned, settings)


def source_names(count: int) -> list[str]:
    """Names under which K sources live in an encoder: equal length, so none is another's prefix."""
    return [f"source{index:04d}" for index in range(count)]


def settings_dict(settings: Any) -> dict[str, Any]:
    """A settings dataclass as the manifest records it.

    Those in its ``LATER`` are left out where they have their default, which is what entries of
    before they existed were trained with.
    """
    later = {
        item.name: item.default
        for item in fields(settings)
        if item.name in getattr(settings, "LATER", ())
    }
    return {k: v for k, v in asdict(settings).items() if k not in later or v != later[k]}
