"""Any model: hidden units found by probing, whatever its classes and its code, and proven on its outputs.

A pass over a few examples shows which slices of which weights belong to one unit (``probe``), and so what would have
to be rewritten together (``groups``). Each gauge is then tried on a copy; where the outputs stay, and would not have
stayed if what reads the units had been left alone, it is offered.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core import seeds
from wheeltap.gauge import attention, experts, recurrent, state_space, transformer
from wheeltap.gauge.base import Family, Move, Refusal, Sharing
from wheeltap.gauge.bench import Bench, Exhausted
from wheeltap.gauge.groups import Group, groups
from wheeltap.gauge.hidden import Hidden, Reader
from wheeltap.gauge.moves import MOVES, WIDENING, unit_moves
from wheeltap.gauge.probe import seen
from wheeltap.gauge.proof import Run
from wheeltap.gauge.settings import Settings
from wheeltap.gauge.trace import Trace
from wheeltap.gauge.weights import Weights

NAME: Final = "general"
LARGEST: Final = 500_000_000
"""Parameters of the largest model that is probed: its copy in double precision takes eight bytes for each."""

_CONTROLS: Final = 4
"""Of as many groups of one form each one is shown to matter; of more, some."""
_CHANGED = "what the model computes changes with it"
_UNPROVEN = "too many trials would be needed to prove it"


def recognise(model: nn.Module, run: Run | None = None) -> Family | Refusal:
    """Hidden units found by probing, with the attention, experts and residual stream that are known by class.

    Args:
        model: Any; it is not touched.
        run: Runs a model on a few of a task's examples; without it nothing can be probed.
    """
    if run is None:
        return Refusal("no examples to probe the model with")
    found: tuple[Hidden, ...] = ()
    refused: tuple[str, ...] = (f"a model of more than {LARGEST:,} parameters is not probed",)
    tried = None
    if sum(parameter.numel() for parameter in model.parameters()) <= LARGEST:
        tried = run
        try:
            bench = Bench(model, run)
        except Exception as error:  # whatever the model's own code raises
            return Refusal(_unprobed(error))
        found, refused = hiddens(bench, _attention(model))
    units, reasons = unit_moves(model, found)
    sharing = Sharing(model)
    parts = [
        (units, (*refused, *reasons)),
        transformer.moves(model, sharing, run=tried),
        recurrent.find(model, sharing, run=tried),
        state_space.find(model, sharing),
        experts.find(model, sharing, run=tried),
    ]
    because = tuple(dict.fromkeys(reason for _, why in parts for reason in why))
    moves: dict[str, Move] = {}
    for held, _ in parts:
        for gauge, move in held.items():
            moves[gauge] = partial(_both, one=moves[gauge], two=move) if gauge in moves else move
    if not moves:
        return Refusal("; ".join(because) or "no hidden units were found by probing")
    return Family(NAME, found, moves, because)


def _both(model: nn.Module, rng: np.random.Generator, settings: Settings, *, one: Move, two: Move) -> None:
    one(model, rng, settings)
    two(model, rng, settings)


def left(model: nn.Module, family: Family) -> float:
    """Share of the weights between the ends of ``model`` that no hidden layer, attention or recurrent layer holds.

    The ends are embeddings, and the last layer, whose rows are the outputs.
    """
    held = ((module, getattr(module, "weight", None)) for module in model.modules())
    wide = [module for module, weight in held if isinstance(weight, Tensor) and weight.ndim > 1]
    ends = [layer for layer in wide if isinstance(layer, nn.Embedding) or layer is wide[-1]]
    known = {tensor.untyped_storage().data_ptr() for hidden in family.hiddens for tensor in hidden.tensors(model)}
    known |= {
        p.untyped_storage().data_ptr() for path in _attention(model) for p in model.get_submodule(path).parameters()
    }
    known |= {p.untyped_storage().data_ptr() for end in ends for p in end.parameters(recurse=False)}
    for path in recurrent.rewritten(model, family.refused) if family.name == NAME else ():
        known |= {p.untyped_storage().data_ptr() for p in model.get_submodule(path).parameters()}
    sizes = {p.untyped_storage().data_ptr(): p.numel() for p in model.parameters() if p.ndim > 1}
    return sum(size for at, size in sizes.items() if at not in known) / max(sum(sizes.values()), 1)


def hiddens(bench: Bench, known: Set[str] = frozenset()) -> tuple[tuple[Hidden, ...], tuple[str, ...]]:
    """The hidden layers of a model that some gauge is proven on, and reasons for others.

    Args:
        bench: The model, laid out to be tried.
        known: Paths of modules to which something else than units is known: what depends on more is left to that.
    """
    try:
        found = [group for group in _probed(bench) if not (group.dense and group.within(known))]
    except Exception as error:  # whatever the model's own code raises
        return (), (_unprobed(error),)
    refused = [f"{group.hidden.name}: {group.problem}" for group in found if group.problem is not None]
    if not found:
        refused.append("no hidden units were found by probing")
    proven, more = _proven(bench, [group for group in found if group.problem is None])
    return proven, tuple(dict.fromkeys([*refused, *more]))


def _unprobed(error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0]
    return f"it cannot be probed ({type(error).__name__}: {reason[:120]})"


def _attention(model: nn.Module) -> set[str]:
    """Paths of the layers of attention that is known by its class: its values have gauges of their own."""
    layers, _ = attention.find(model, Sharing(model))
    return {part.path for layer in layers for part in (layer.query, layer.key, layer.value, layer.output)}


def _probed(bench: Bench) -> tuple[Group, ...]:
    """The groups of units that one pass shows."""
    for buffers in (True, False):
        model = bench.copy()
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        if buffers:
            for buffer in model.buffers():
                buffer.requires_grad_(buffer.is_floating_point())
        with parametrize.cached():
            weights = Weights(model, buffers=buffers)
            trace = Trace(weights)
            trace.follow(model)
            try:
                with trace:
                    scores = bench.pass_over(model)
                return groups(model, seen(trace, weights, scores), weights, trace)
            except RuntimeError:
                if not buffers:
                    raise  # else perhaps a buffer is written, which is possible only without a gradient
    raise AssertionError


def _rng(group: Group, gauge: str) -> np.random.Generator:
    return seeds.generator(0, "proof", group.hidden.name, gauge)


def _moved(gauge: str, hiddens: Sequence[tuple[Group, Hidden]]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for group, hidden in hiddens:
            MOVES[gauge](model, (hidden,), _rng(group, gauge), _TRIED[gauge])

    return change


_TRIED: Final = {
    "permute": Settings(),
    "rescale": Settings(),
    "split": Settings(),
    "cancel": Settings(pairs=0.25),
    "dead": Settings(units=1),
    "entangle": Settings(),
}
"""The settings at which each gauge is tried: numbers of units that are added, odd ones too."""


def _sound(groups: Sequence[Group], holds: Callable[[Sequence[Group]], bool]) -> list[Group]:
    """Those of which something holds, all together and so each of them; tried on ever fewer together."""
    if not groups or holds(groups):
        return list(groups)
    if len(groups) == 1:
        return []
    ends = [groups[0], groups[-1]]
    if len(groups) > 2 and len({group.form for group in groups}) == 1 and not any(holds([end]) for end in ends):
        return []  # blocks of one form: all alike
    half = len(groups) // 2
    return [*_sound(groups[:half], holds), *_sound(groups[half:], holds)]


def _by_form(groups: Sequence[Group], holds: Callable[[Sequence[Group]], bool]) -> list[Group]:
    """As ``_sound``; those of one form are tried by themselves if they do not hold with the rest."""
    if not groups or holds(groups):
        return list(groups)
    forms: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        forms.setdefault(group.form, []).append(group)
    return [group for alike in forms.values() for group in _sound(alike, holds)]


def _proven(bench: Bench, found: Sequence[Group]) -> tuple[tuple[Hidden, ...], list[str]]:
    """The hidden layers with the gauges that hold on each, and reasons for those that have none."""
    ways: dict[str, dict[str, Hidden]] = {group.hidden.name: {} for group in found}
    changed = _CHANGED
    try:
        _prove(bench, found, ways)
    except Exhausted:
        changed = _UNPROVEN
    made: list[Hidden] = []
    refused: list[str] = []
    for group in found:
        held = ways[group.hidden.name]
        if held:
            why = {gauge: _why(group, gauge) or changed for gauge in MOVES if gauge not in held}
            widest = next((held[gauge] for gauge in ("cancel", "dead") if gauge in held), group.hidden)
            made.append(replace(widest, refused=why))
        elif not group.dense:
            refused.append(f"{group.hidden.name}: its units cannot be permuted or rescaled: {changed}")
    return tuple(made), refused


def _why(group: Group, gauge: str) -> str | None:
    """Why a gauge was not tried on a group, or ``None`` if it was."""
    if group.tied and gauge != "permute":
        return f"{' and '.join(group.tied)} both write and read the units"
    if gauge == "rescale" and not group.factors:
        return "no positive factor passes through to what reads the units"
    if gauge in WIDENING and not group.whole:
        return "its weights are a part of a tensor that holds others"
    return None


def _prove(bench: Bench, found: Sequence[Group], ways: dict[str, dict[str, Hidden]]) -> None:
    """Tries every gauge on every group; what holds is entered in ``ways``, by group and gauge."""

    def holding(gauge: str, groups: Sequence[Group], form: Callable[[Group], Hidden]) -> list[Group]:
        held = _by_form(groups, lambda some: bench.holds(_moved(gauge, [(group, form(group)) for group in some])))
        for group in held:
            ways[group.hidden.name][gauge] = form(group)
        return held

    permuted: list[Group] = []
    for some in (
        [group for group in found if not group.dense],
        [group for group in found if group.dense],
    ):
        permuted += _telling(bench, holding("permute", some, _as_it_is), "permute")
    scaled = [group for group in found if group.factors]
    holding("rescale", [group for group in scaled if group in permuted], _as_it_is)
    others = holding("rescale", [group for group in scaled if group not in permuted], _as_it_is)
    told = [*permuted, *_telling(bench, others, "rescale")]
    for group in found:
        if group not in told:
            ways[group.hidden.name].clear()
    wide = [group for group in permuted if group.whole]
    plain = holding("cancel", wide, _as_it_is)
    grown = holding("cancel", [group for group in wide if group not in plain and group.widths], Group.widened)
    for gauge in ("split", "dead", "entangle"):
        holding(gauge, plain, _as_it_is)
        holding(gauge, grown, Group.widened)


def _as_it_is(group: Group) -> Hidden:
    return group.hidden


def _telling(bench: Bench, groups: Sequence[Group], gauge: str) -> list[Group]:
    """The groups on which a proof could fail: if what reads the units is left as it was, the outputs are others."""

    def half(group: Group) -> Hidden:
        hidden = group.hidden
        return replace(hidden, stages=tuple(stage for stage in hidden.stages if not isinstance(stage, Reader)))

    def change(model: nn.Module, group: Group) -> None:
        if group.tied:
            random = _rng(group, "doubled")
            group.hidden.gather(model, random.integers(group.hidden.units, size=group.hidden.units))
        else:
            _moved(gauge, [(group, half(group))])(model)

    tried: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        tried.setdefault(group.form, []).append(group)
    held: list[Group] = []
    for alike in tried.values():
        # Of many blocks of one form some stand for all: the gradients have told them apart one by one.
        some = alike if len(alike) <= _CONTROLS else [alike[0], alike[len(alike) // 2], alike[-1]]
        told = [group for group in some if bench.matters(lambda model, group=group: change(model, group))]
        held += alike if len(alike) > _CONTROLS and len(told) == len(some) else told
    return [group for group in groups if group in held]
