"""The modules of N runs at the sites of one encoder (:mod:`mtl.backbone.beside`).

The first run's network leads: its encoder is the one that computes, and where it has a module that
trains, the N modules at that place answer together. Which these are is found by walking the N
networks in step; what is found in none of the forms below is refused, and so is a parameter that
no site would use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from adapters.methods.lora import IA3, LoRA
from adapters.methods.modeling import Adapter
from torch import Tensor, nn
from torch.func import functional_call

from mtl.backbone.beside import Blocks, Draws, UnfitError
from mtl.backbone.injection import FusionSite
from mtl.backbone.lean import dropping


class Answer(Protocol):
    """(x (M,T,D), the pass, its draws) → (M,T,D'), every row by its run's module."""

    def __call__(self, x: Tensor, blocks: Blocks, draws: Draws, /) -> Tensor: ...


Stacked = Mapping[int, Tensor]
"""id of a trainable parameter → the stacked one (N,…)."""

BATCHED: dict[type, Callable[[Sequence[Any], Stacked], Answer]] = {}
"""Module class → how those of N runs answer together, for modules that have a form of their own or
keep their tensors elsewhere, on the encoder under :data:`ELSEWHERE`. Filled by the rooms whose
classes they are."""

ELSEWHERE = "omega."


class Sites:
    """The sites of N networks, of which the first computes; ordinary ones after :meth:`release`.

    Args:
        encoders: of the runs; built alike.
        stacked: id of a trainable parameter → the stacked one (N,…).

    Raises:
        UnfitError: they are not alike, or something trains where it cannot be told how.
    """

    def __init__(self, encoders: Sequence[nn.Module], stacked: Mapping[int, Tensor]) -> None:
        self._stacked = stacked
        self._encoder = encoders[0]
        self._now: tuple[Blocks, Draws] | None = None
        self._drawing: list[nn.Module] | None = None
        self._taken: list[nn.Module] = []
        covered: set[int] = set()
        skipped: tuple[str, ...] = ()
        try:
            for name, modules in _in_step(encoders):
                if skipped and name.startswith(skipped):
                    continue
                leader = modules[0]
                if type(leader) in BATCHED:
                    answer = BATCHED[type(leader)](modules, stacked)
                    self._take(leader, self._own(answer, leader))
                    covered |= _under(encoders[0], ELSEWHERE)
                    covered |= {id(p) for p in leader.parameters()}
                    skipped += (f"{name}.",)
                elif any(p.requires_grad for p in leader.parameters()) and _is_site(leader):
                    for unit, own in _units(modules):
                        self._take(unit, self._together(own, unit.forward))
                        covered |= {id(p) for p in unit.parameters()}
                    skipped += (f"{name}.",)
                elif isinstance(leader, (LoRA, IA3, Adapter)):  # frozen: what banks were made of
                    skipped += (f"{name}.",)
                elif f"{name}." != ELSEWHERE and not _held_alike(modules):
                    raise UnfitError(f"weights of the base that differ, at {name}")
            for name, parameter in encoders[0].named_parameters():
                if parameter.requires_grad and id(parameter) not in covered:
                    raise UnfitError(f"{name} trains at no site that is known here")
        except UnfitError:
            self.release()
            raise

    def release(self) -> None:
        """Give every module its own forward back."""
        for module in self._taken:  # one that was taken twice is its own again at once
            module.__dict__.pop("forward", None)
        self._taken.clear()

    @contextmanager
    def passing(self, blocks: Blocks, draws: Draws) -> Iterator[None]:
        """A pass with the rows of several runs through the leader's encoder.

        The first is watched throughout: what it draws is known then, and only there torch's calls
        are looked at from the second on.
        """
        self._now = blocks, draws
        try:
            with dropping(draws.dropped):
                if self._drawing is None:
                    with self._watched(draws), draws:
                        yield
                else:
                    yield
        finally:
            self._now = None

    @contextmanager
    def _watched(self, draws: Draws) -> Iterator[None]:
        """Find out in which modules something is drawn, and let the draws act in these."""
        inside: list[nn.Module] = []
        found: list[nn.Module] = []
        hooks: list[Any] = []
        for module in self._encoder.modules():
            hooks.append(module.register_forward_pre_hook(lambda m, _: inside.append(m)))
            hooks.append(module.register_forward_hook(lambda *_: inside.pop() and None))
        draws.drawn = lambda: found.append(inside[-1]) if inside else None
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            draws.drawn = lambda: None
        self._drawing = list(dict.fromkeys(found))
        for module in self._drawing:
            plain = type(module) is nn.Dropout
            self._take(module, self._dropout(module) if plain else self._drawn(module.forward))

    def _dropout(self, module: Any) -> Any:
        plain = module.forward

        def forward(x: Tensor) -> Tensor:
            if self._now is None:
                return plain(x)
            return self._now[1].dropped(x, module.p) if module.training else x

        return forward

    def _drawn(self, plain: Any) -> Any:
        def forward(*inputs: Any, **named: Any) -> Any:
            if self._now is None:
                return plain(*inputs, **named)
            with self._now[1]:
                return plain(*inputs, **named)

        return forward

    def _take(self, module: nn.Module, forward: Any) -> None:
        module.__dict__["forward"] = forward
        self._taken.append(module)

    def _own(self, answer: Answer, leader: nn.Module) -> Any:
        plain = leader.forward

        def forward(x: Tensor) -> Tensor:
            if self._now is None:
                return plain(x)
            return answer(x, *self._now)

        return forward

    def _together(self, modules: Sequence[nn.Module], plain: Any) -> Any:
        leader = modules[0]
        own = stacked_of(modules, self._stacked)
        product: Any
        if type(leader) is nn.Linear and set(own) == {"weight", "bias"}:
            product = linear_together
        elif type(leader) is LoRA and set(own) == {"lora_A", "lora_B"}:
            product = _LowRank(leader)
        else:
            product = _Vmapped(leader)

        def forward(*inputs: Any) -> Any:
            if self._now is None or product.busy:
                return plain(*inputs)
            blocks, draws = self._now
            for x in inputs:
                if isinstance(x, Tensor) and len(x) != blocks.total:
                    raise UnfitError(f"a site sees {tuple(x.shape)}, not the rows of a pass")
            return product(chosen(own, blocks), inputs, blocks, draws)

        return forward


def stacked_of(modules: Sequence[nn.Module], stacked: Stacked) -> dict[str, Tensor]:
    """Of N modules at one place what trains, and what else the runs have otherwise, as (N,…).

    Raises:
        UnfitError: the shapes differ.
    """
    trained = {n: id(p) for n, p in modules[0].named_parameters() if p.requires_grad}
    if any(each not in stacked for each in trained.values()):
        raise UnfitError("parameters of other shapes at a site")
    own = {name: stacked[each] for name, each in trained.items()}
    return own | _differing(modules, own)


def chosen(stacked: Mapping[str, Tensor], blocks: Blocks) -> dict[str, Tensor]:
    """Of (N,…) of all runs, those of the runs in the pass."""
    runs, everyone = blocks.runs, len(next(iter(stacked.values())))
    if len(runs) == everyone:
        return dict(stacked)
    return {name: tensor[runs] for name, tensor in stacked.items()}


class _Linear:
    """N linears, (M,…,in) → (M,…,out): one batched product."""

    busy = False

    def __call__(
        self, own: Mapping[str, Tensor], inputs: Sequence[Any], blocks: Blocks, _: Draws
    ) -> Tensor:
        x = blocks.spread(inputs[0])
        out = torch.baddbmm(
            own["bias"].unsqueeze(1), x.flatten(1, -2), own["weight"].transpose(1, 2)
        )
        return blocks.gather(out.view(*x.shape[:-1], out.shape[-1]))


linear_together = _Linear()


class _LowRank:
    """N LoRAs of ``adapters``, (M,T,in) → (M,T,out): two batched products."""

    busy = False

    def __init__(self, leader: Any) -> None:
        self._scale = leader.scaling
        drop = leader.lora_dropout
        self._dropout = drop.p if isinstance(drop, nn.Dropout) else 0.0
        self._leader = leader

    def __call__(
        self, own: Mapping[str, Tensor], inputs: Sequence[Any], blocks: Blocks, draws: Draws
    ) -> tuple[Tensor, None]:
        states, x = inputs
        if states is not None:
            raise UnfitError("a LoRA behind another")
        if self._dropout and self._leader.training:
            x = draws.dropped(x, self._dropout)
        laid = blocks.spread(x)
        low = laid.flatten(1, -2) @ own["lora_A"].transpose(1, 2) * self._scale
        out = low @ own["lora_B"].transpose(1, 2)
        return blocks.gather(out.view(*laid.shape[:-1], out.shape[-1])), None


class _Vmapped:
    """N modules of any kind, by ``torch.vmap`` over their tensors and rows."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self.busy = module, False

    def __call__(
        self, own: Mapping[str, Tensor], inputs: Sequence[Any], blocks: Blocks, draws: Draws
    ) -> Any:
        places = [place for place, x in enumerate(inputs) if isinstance(x, Tensor)]

        def one(tensors: dict[str, Tensor], lane: Tensor, *rows: Tensor) -> Any:
            draws.lane = lane
            given = list(inputs)
            for place, x in zip(places, rows, strict=True):
                given[place] = x
            out = functional_call(self._module, tensors, tuple(given))
            # What is none comes back as none, which vmap does not carry.
            return tuple(p for p in out if p is not None) if isinstance(out, tuple) else out

        self.busy = True
        try:
            lanes = torch.arange(len(blocks.members), device=inputs[places[0]].device)
            rows = [blocks.spread(inputs[place]) for place in places]
            # "same": the masks are those of all runs, and drawn by none of vmap's rules
            out = torch.vmap(one, randomness="same")(dict(own), lanes, *rows)
        finally:
            self.busy, draws.lane = False, None
        if isinstance(out, tuple):  # LoRA's: the rows, and no gate
            return blocks.gather(out[0]), None
        return blocks.gather(out)


def _is_site(module: nn.Module) -> bool:
    if getattr(module, "use_gating", False):
        raise UnfitError("a gate that is a mean over the tokens of a row, of which a pass has more")
    return isinstance(module, (LoRA, IA3, Adapter, FusionSite))


def _units(modules: Sequence[nn.Module]) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """The parts of a site that answer together: each as the leader's, and all runs'."""
    leader = modules[0]
    if not isinstance(leader, Adapter):
        yield leader, list(modules)
        return
    for name, child in leader.named_children():
        own = [module.get_submodule(name) for module in modules]
        if type(child) is nn.Sequential or getattr(child, "calls_linears", False):
            for inner, part in child.named_children():
                if list(part.parameters()):
                    yield part, [module.get_submodule(inner) for module in own]
        elif list(child.parameters()):
            yield child, own


def _in_step(encoders: Sequence[nn.Module]) -> Iterator[tuple[str, list[nn.Module]]]:
    walks = [list(encoder.named_modules()) for encoder in encoders]
    if len({len(walk) for walk in walks}) != 1:
        raise UnfitError("encoders that are built otherwise")
    for column in zip(*walks, strict=True):
        if len({type(module).__qualname__ for _, module in column}) != 1:  # adapters makes classes
            raise UnfitError(f"encoders that are built otherwise, at {column[0][0]}")
        if any(_numbers(module) != _numbers(column[0][1]) for _, module in column[1:]):
            raise UnfitError(f"modules with other numbers at {column[0][0]}")
        yield column[0][0], [module for _, module in column]


def _numbers(module: nn.Module) -> dict[str, float]:
    """What is no tensor and says how a module computes: widths, scalings, where its norms stand."""
    return {key: value for key, value in vars(module).items() if isinstance(value, int | float)}


def _differing(modules: Sequence[nn.Module], trained: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of what does not train, the tensors that the runs have otherwise: name → (N,…)."""
    found = {}
    held = [_tensors(module) for module in modules]
    for name, tensor in held[0].items():
        if name in trained:
            continue
        column = [own.get(name) for own in held]
        if any(other is None or other.shape != tensor.shape for other in column):
            raise UnfitError(f"frozen tensors of other shapes at a site ({name})")
        theirs = [other for other in column if other is not None]
        if not all(torch.equal(other, tensor) for other in theirs):
            found[name] = torch.stack(theirs)
    return found


def _held_alike(modules: Sequence[nn.Module]) -> bool:
    """Whether what the modules hold themselves and do not train is equal."""
    leader, *others = [
        [
            tensor
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
            if not tensor.requires_grad
        ]
        for module in modules
    ]
    return all(
        len(own) == len(leader)
        and all(
            one.data_ptr() == other.data_ptr() or torch.equal(one, other)
            for one, other in zip(leader, own, strict=True)
        )
        for own in others
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def alike(modules: Sequence[nn.Module]) -> bool:
    """Whether all tensors of the modules are equal, so that one stands for all."""
    try:
        return not _differing(modules, {})
    except UnfitError:
        return False


def _under(encoder: nn.Module, prefix: str) -> set[int]:
    return {id(p) for name, p in encoder.named_parameters() if name.startswith(prefix)}


def share_frozen(leader: nn.Module, other: nn.Module) -> None:
    """Let frozen parameters of ``other`` that equal the leader's lie in memory once."""
    for mine, its in zip(leader.parameters(), other.parameters(), strict=False):
        same = mine.shape == its.shape and not (mine.requires_grad or its.requires_grad)
        if same and mine.data_ptr() != its.data_ptr() and torch.equal(mine, its):
            its.data = mine.data
