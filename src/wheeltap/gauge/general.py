"""Any model: hidden units found by probing, whatever its classes and its code, and proven on its outputs.

A pass over a few examples shows which slices of which weights belong to one unit (``probe``). The weights that write
units and all that read them are put together into groups, which have to be rewritten as one. Each gauge is then tried
on a copy; where the outputs stay, and would not have stayed if what reads the units had been left alone, it is offered.
"""

from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, combinations
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core import seeds, typed
from wheeltap.gauge import attention, experts, recurrent, state_space, transformer
from wheeltap.gauge.base import Family, GaugeSettings, Move, Refusal, SharedTensors
from wheeltap.gauge.bench import Run, TrialLimit, TwinBench
from wheeltap.gauge.hidden import HiddenLayer, Inputs, Slices, Widths, kind_of, one_by_one
from wheeltap.gauge.moves import MOVES, WIDENING, unit_moves
from wheeltap.gauge.probe import AxisCut, ProbeResult, UnitReader, seen
from wheeltap.gauge.trace import TensorIndex, Trace, followed

_MOST_PARTS: Final = 12
"""Parts of a group of which some are looked for that a factor may be applied to."""
_EQUAL: Final = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far the growths of some parts may be from the whole, relatively, to make it up."""


@final
@dataclass(frozen=True)
class UnitGroup:
    """Units that are permuted as one, as a guess to be proven.

    Attributes:
        hidden: With every stage; no gauge is refused yet.
        readings: What was probed.
        factors: Whether parts were found that a factor may be applied to.
        tied: Tensors that both write and read the units along one axis.
        dense: What all units depend on: they may be no units then.
        widths: Attributes that say how many units there are, perhaps.
        problem: Why it is not tried at all.
    """

    hidden: HiddenLayer
    readings: tuple[UnitReader, ...]
    factors: bool
    tied: tuple[str, ...]
    dense: tuple[str, ...]
    widths: tuple[Widths, ...] = ()
    problem: str | None = None

    @property
    def whole(self) -> bool:
        """Whether units can be added, as far as its tensors go."""
        return not self.tied and all(stage.whole for stage in self.hidden.stages if isinstance(stage, Slices))

    @property
    def form(self) -> tuple[object, ...]:
        """What it has in common with its like in other blocks."""
        cuts = [(stage.axis, stage.before, stage.after) for stage in self.stages]
        return self.hidden.units, bool(self.dense), tuple(cuts)

    @property
    def stages(self) -> list[Slices | Inputs]:
        """The stages that hold tensors."""
        return [stage for stage in self.hidden.stages if isinstance(stage, Slices | Inputs)]

    def widened(self) -> HiddenLayer:
        """The hidden layer with the attributes that may have to follow its width."""
        return replace(self.hidden, stages=(*self.widths, *self.hidden.stages))


Axis = tuple[str, int]
"""Of a tensor, by its name."""


def _axes(readings: Sequence[UnitReader]) -> tuple[dict[Axis, AxisCut], dict[Axis, AxisCut]]:
    """The axes that hold slices of the units that some readers share, and those along which these are read."""
    slots: dict[Axis, AxisCut] = {}
    for reading in readings:
        for name, cut in reading.touched.items():
            known = slots.get((name, cut.axis))
            parts = cut.parts if known is None else tuple(sorted({*known.parts, *cut.parts}))
            slots[name, cut.axis] = replace(cut, parts=parts)
    return slots, {(reading.name, reading.cut.axis): reading.cut for reading in readings}


def groups(model: nn.Module, found: ProbeResult, weights: TensorIndex, trace: Trace) -> tuple[UnitGroup, ...]:
    """The groups that the readings make up, in the order of the calls.

    Args:
        model: What was probed, or a copy.
        found: What is read in it.
        weights: Its tensors.
        trace: Of the pass.
    """
    gathered: list[list[UnitReader]] = []
    for reading in found.readings:
        own = {*chain.from_iterable(_axes([reading]))}
        shared = [some for some in gathered if own & {*chain.from_iterable(_axes(some))}]
        for some in shared:
            gathered.remove(some)
        gathered.append([reading, *chain.from_iterable(shared)])
    made = [_group(model, readings, found, weights, trace) for readings in gathered]
    made.sort(key=lambda group: min(reading.order for reading in group.readings))
    names = Counter(group.hidden.name for group in made)
    for at, group in enumerate(made):
        if names[group.hidden.name] > 1:  # by what reads it too
            read = ", ".join(dict.fromkeys(reading.name for reading in group.readings))
            made[at] = replace(group, hidden=replace(group.hidden, name=f"{group.hidden.name} to {read}"))
    return tuple(made)


def _group(
    model: nn.Module, readings: list[UnitReader], found: ProbeResult, weights: TensorIndex, trace: Trace
) -> UnitGroup:
    owned, read = _axes(readings)
    home: list[str] = []  # path of the module that holds all of it
    for parts in zip(*(name.split(".")[:-1] for name, _ in {*owned, *read}), strict=False):
        if len(set(parts)) > 1:
            break
        home.append(parts[0])
    problem = _problem(readings, found, weights, trace, ".".join(home))
    readings.sort(key=lambda reading: reading.order)
    units = readings[0].units
    tied = tuple(sorted({name for name, axis in owned if (name, axis) in read}))
    factors = () if tied else _factors(readings, weights)
    written = {name for reading in readings for name in reading.written}
    slots = [
        Slices(
            names=weights.names[name],
            axis=axis,
            before=cut.before,
            after=cut.after,
            parts=cut.parts,
            scaled=tuple(part for part in cut.parts if (name, axis, part) in factors),
            writes=name in written,
            silent=name.rpartition(".")[2] != "running_var",
        )
        for (name, axis), cut in owned.items()
    ]
    readers = [
        Inputs(
            names=weights.names[name],
            axis=axis,
            before=cut.before,
            after=cut.after,
            outputs=weights.held[name].numel() // weights.held[name].shape[axis],
            called=all(reading.inside <= {name.rpartition(".")[0]} for reading in readings if reading.name == name),
        )
        for (name, axis), cut in read.items()
        if (name, axis) not in owned
    ]
    slots.sort(key=lambda stage: (not stage.writes, -weights.held[stage.names[0]].numel()))
    paths = dict.fromkeys(stage.path for stage in (*slots, *readers))
    experts = [Widths(path, units) for path in paths if one_by_one(model.get_submodule(path))]
    hidden = HiddenLayer(slots[0].label, units, (*experts, *slots, *readers))
    dense = tuple(dict.fromkeys(thing for reading in readings for thing in reading.dense))
    widths = _widths(model, hidden, ".".join(home))
    return UnitGroup(hidden, tuple(readings), bool(factors), tied, dense, widths, problem)


def _within(path: str, home: str) -> bool:
    return not home or path == home or path.startswith(f"{home}.")


def _problem(
    readings: Sequence[UnitReader], seen: ProbeResult, weights: TensorIndex, trace: Trace, home: str
) -> str | None:
    """Why nothing that a few examples show could prove that the units can be rewritten, or ``None``."""
    units, (slots, readers) = readings[0].units, _axes(readings)
    cuts = {
        ((name, cut.axis), cut.before, cut.after)
        for reading in readings
        for name, cut in [*reading.touched.items(), (reading.name, reading.cut)]
        if (name, cut.axis) in slots
    }
    if len(cuts) != len(slots) or any(reading.units != units for reading in readings):
        return "its units are cut in different ways by what reads them"
    for name, axis in sorted(slots.keys() & (seen.readers - readers.keys())):
        return f"axis {axis} of {name} reads something else, too"
    for path in sorted(trace.deciding):
        if _within(path, home):
            return f"the forward of {path or 'the model'} branches on the values that it computes"
    for name in sorted(seen.unknown):
        tensor = weights.held[name]
        parameter = isinstance(tensor, nn.Parameter) and tensor.ndim > 1
        if parameter and _within(name, home) and any(size % units == 0 for size in tensor.shape):
            return f"the examples that were tried do not show what {name} does"
    return None


def _widths(model: nn.Module, hidden: HiddenLayer, home: str) -> tuple[Widths, ...]:
    """Attributes of the modules about the units that are equal to their number; but for those that layers keep."""
    paths: list[str] = []
    for stage in hidden.stages:
        path = stage.path
        while _within(path, home):
            paths.append(path)
            if not path:
                break
            path = path.rpartition(".")[0]
    made: list[Widths] = []
    for path in dict.fromkeys(paths):
        module = model.get_submodule(path)
        if kind_of(module) or type(module).__module__.startswith("torch.nn."):
            continue  # torch's own layers are known by what they hold
        names = tuple(name for name, value in vars(module).items() if type(value) is int and value == hidden.units)
        if names:
            made.append(Widths(path, hidden.units, names))
    return tuple(made)


def _factors(found: Sequence[UnitReader], weights: TensorIndex) -> frozenset[tuple[str, int, int]]:
    """The parts that a factor may be applied to, so that it comes out where the units are read.

    Where what is read is of the first degree in some parts, their growths add up to it (Euler's theorem). Of several
    such sets the one with the most weights is taken.
    """
    probes = [probe for reading in found for probe in reading.probes]
    parts = sorted({part for _, terms in probes for part in terms})
    if len(parts) > _MOST_PARTS:
        return frozenset()
    grown = np.array([[terms.get(part, 0.0) for part in parts] for _, terms in probes])
    values = np.array([value for value, _ in probes])
    equal = _EQUAL[weights.held[parts[0][0]].dtype] if parts else 0.0
    size = np.abs(values) + np.abs(grown).sum(1)
    best: tuple[int, int, frozenset[tuple[str, int, int]]] = 0, 0, frozenset()
    for count in range(1, len(parts) + 1):
        for chosen in combinations(range(len(parts)), count):
            if np.all(np.abs(grown[:, chosen].sum(1) - values) <= equal * size):
                names = frozenset(parts[at] for at in chosen)
                weight = sum(weights.held[name].numel() for name, _, _ in names)
                best = max(best, (weight, -count, names), key=lambda one: one[:2])
    return best[2]


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
    found: tuple[HiddenLayer, ...] = ()
    refused: tuple[str, ...] = (f"a model of more than {LARGEST:,} parameters is not probed",)
    tried = None
    if sum(parameter.numel() for parameter in model.parameters()) <= LARGEST:
        tried = run
        try:
            bench = TwinBench(model, run)
        except Exception as error:  # whatever the model's own code raises
            return Refusal(_unprobed(error))
        found, refused = hiddens(bench, _attention(model))
    units, reasons = unit_moves(model, found)
    sharing = SharedTensors(model)
    fed_back, why_not, recurrent_layers = recurrent.find(model, sharing, run=tried)
    parts = [
        (units, (*refused, *reasons)),
        transformer.moves(model, sharing, run=tried),
        (fed_back, why_not),
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
    return Family(NAME, found, moves, because, recurrent=recurrent_layers)


def _both(model: nn.Module, rng: np.random.Generator, settings: GaugeSettings, *, one: Move, two: Move) -> None:
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
    for path in family.recurrent:
        known |= {p.untyped_storage().data_ptr() for p in model.get_submodule(path).parameters()}
    sizes = {p.untyped_storage().data_ptr(): p.numel() for p in model.parameters() if p.ndim > 1}
    return sum(size for at, size in sizes.items() if at not in known) / max(sum(sizes.values()), 1)


def hiddens(bench: TwinBench, known: Set[str] = frozenset()) -> tuple[tuple[HiddenLayer, ...], tuple[str, ...]]:
    """The hidden layers of a model that some gauge is proven on, and reasons for others.

    Args:
        bench: The model, laid out to be tried.
        known: Paths of modules to which something else than units is known: what depends on more is left to that.
    """
    try:
        probed = _probed(bench)
        found = [one for one in probed if not (one.dense and any(stage.path in known for stage in one.stages))]
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
    layers, _ = attention.find(model, SharedTensors(model))
    return {part.path for layer in layers for part in (layer.query, layer.key, layer.value, layer.output)}


def _probed(bench: TwinBench) -> tuple[UnitGroup, ...]:
    """The groups of units that one pass shows."""
    for buffers in (True, False):
        model = bench.copy()
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        if buffers:
            for buffer in model.buffers():
                buffer.requires_grad_(buffer.is_floating_point())
        with parametrize.cached():
            weights = TensorIndex(model, buffers=buffers)
            trace = Trace(weights)
            try:
                with followed(typed.named_modules(model), trace.inside), trace:
                    scores = bench.run(model)
                return groups(model, seen(trace, weights, scores), weights, trace)
            except RuntimeError:
                if not buffers:
                    raise  # else perhaps a buffer is written, which is possible only without a gradient
    raise AssertionError


def _moved(gauge: str, hiddens: Sequence[tuple[UnitGroup, HiddenLayer]]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for group, hidden in hiddens:
            MOVES[gauge](model, (hidden,), seeds.generator(0, "proof", group.hidden.name, gauge), _TRIED[gauge])

    return change


_TRIED: Final = {
    "permute": GaugeSettings(),
    "rescale": GaugeSettings(),
    "split": GaugeSettings(),
    "cancel": GaugeSettings(pairs=0.25),
    "dead": GaugeSettings(units=1),
    "entangle": GaugeSettings(),
}
"""The settings at which each gauge is tried: numbers of units that are added, odd ones too."""


def _sound(groups: Sequence[UnitGroup], holds: Callable[[Sequence[UnitGroup]], bool]) -> list[UnitGroup]:
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


def _proven(bench: TwinBench, found: Sequence[UnitGroup]) -> tuple[tuple[HiddenLayer, ...], list[str]]:
    """The hidden layers with the gauges that hold on each, and reasons for those that have none."""
    ways: dict[str, dict[str, HiddenLayer]] = {group.hidden.name: {} for group in found}
    changed = _CHANGED
    try:
        _prove(bench, found, ways)
    except TrialLimit:
        changed = _UNPROVEN
    made: list[HiddenLayer] = []
    refused: list[str] = []
    for group in found:
        held = ways[group.hidden.name]
        if held:
            why = {gauge: _why(group, gauge) or changed for gauge in MOVES if gauge not in held}
            widest = next((held[gauge] for gauge in ("cancel", "dead") if gauge in held), group.hidden)
            made.append(replace(widest, refused=why))
        elif not group.dense:
            refused.append(f"{group.hidden.name}: its units are not permuted or rescaled: {changed}")
    return tuple(made), refused


def _why(group: UnitGroup, gauge: str) -> str | None:
    """Why a gauge was not tried on a group, or ``None`` if it was."""
    if group.tied and gauge != "permute":
        return f"{' and '.join(group.tied)} both write and read the units"
    if gauge == "rescale" and not group.factors:
        return "no positive factor passes through to what reads the units"
    if gauge in WIDENING and not group.whole:
        return "its weights are a part of a tensor that holds others"
    return None


def _prove(bench: TwinBench, found: Sequence[UnitGroup], ways: dict[str, dict[str, HiddenLayer]]) -> None:
    """Tries every gauge on every group; what holds is entered in ``ways``, by group and gauge."""

    def holding(
        gauge: str, groups: Sequence[UnitGroup], form: Callable[[UnitGroup], HiddenLayer] = lambda group: group.hidden
    ) -> list[UnitGroup]:
        def holds(some: Sequence[UnitGroup]) -> bool:
            return bench.holds(_moved(gauge, [(group, form(group)) for group in some]))

        held = list(groups)
        if groups and not holds(groups):  # those of one form are tried by themselves
            forms: dict[tuple[Any, ...], list[UnitGroup]] = {}
            for group in groups:
                forms.setdefault(group.form, []).append(group)
            held = [group for alike in forms.values() for group in _sound(alike, holds)]
        for group in held:
            ways[group.hidden.name][gauge] = form(group)
        return held

    permuted: list[UnitGroup] = []
    for dense in (False, True):
        some = [group for group in found if bool(group.dense) is dense]
        permuted += _telling(bench, holding("permute", some), "permute")
    scaled = [group for group in found if group.factors]
    holding("rescale", [group for group in scaled if group in permuted])
    others = holding("rescale", [group for group in scaled if group not in permuted])
    proven = [*permuted, *_telling(bench, others, "rescale")]
    for group in found:
        if group not in proven:
            ways[group.hidden.name].clear()
    wide = [group for group in permuted if group.whole]
    plain = holding("cancel", wide)
    grown = holding("cancel", [group for group in wide if group not in plain and group.widths], UnitGroup.widened)
    for gauge in ("split", "dead", "entangle"):
        holding(gauge, plain)
        holding(gauge, grown, UnitGroup.widened)


def _telling(bench: TwinBench, groups: Sequence[UnitGroup], gauge: str) -> list[UnitGroup]:
    """The groups on which a proof could fail: if what reads the units is left as it was, the outputs are others."""

    def half(group: UnitGroup) -> HiddenLayer:
        hidden = group.hidden
        return replace(hidden, stages=tuple(stage for stage in hidden.stages if not isinstance(stage, Inputs)))

    def change(model: nn.Module, group: UnitGroup) -> None:
        if group.tied:
            random = seeds.generator(0, "proof", group.hidden.name, "doubled")
            group.hidden.gather(model, [random.integers(group.hidden.units, size=group.hidden.units)])
        else:
            _moved(gauge, [(group, half(group))])(model)

    tried: dict[tuple[Any, ...], list[UnitGroup]] = {}
    for group in groups:
        tried.setdefault(group.form, []).append(group)
    held: list[UnitGroup] = []
    for alike in tried.values():
        # Of many blocks of one form some stand for all: the gradients distinguish them one by one.
        some = alike if len(alike) <= _CONTROLS else [alike[0], alike[len(alike) // 2], alike[-1]]
        shown = [group for group in some if bench.matters(lambda model, group=group: change(model, group))]
        held += alike if len(alike) > _CONTROLS and len(shown) == len(some) else shown
    return [group for group in groups if group in held]
