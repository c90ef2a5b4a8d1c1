"""Groups of hidden units: the weights that write them and all that read them, put together from probed readers."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Final, final

import numpy as np
import torch
from torch import nn

from wheeltap.gauge.hidden import Hidden
from wheeltap.gauge.probe import Cut, Reading, Seen
from wheeltap.gauge.stages import Experts, Inputs, Place, Slices, Widths, kind_of, one_by_one
from wheeltap.gauge.trace import Trace
from wheeltap.gauge.weights import Weights

_MOST_PARTS: Final = 12
"""Parts of a group of which some are looked for that a factor may be applied to."""
_EQUAL: Final = {torch.float64: 1e-6, torch.float32: 1e-3}
"""How far the growths of some parts may be from the whole, relatively, to make it up."""


@final
@dataclass(frozen=True)
class Group:
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

    hidden: Hidden
    readings: tuple[Reading, ...]
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
        cuts = [(stage.place.axis, stage.place.before, stage.place.after) for stage in self.stages]
        return self.hidden.units, bool(self.dense), tuple(cuts)

    @property
    def stages(self) -> list[Slices | Inputs]:
        """The stages that hold tensors."""
        return [stage for stage in self.hidden.stages if isinstance(stage, Slices | Inputs)]

    def within(self, paths: Set[str]) -> bool:
        """Whether one of the modules at ``paths`` holds a part of it."""
        return any(stage.path in paths for stage in self.stages)

    def widened(self) -> Hidden:
        """The hidden layer with the attributes that may have to follow its width."""
        return replace(self.hidden, stages=(*self.widths, *self.hidden.stages))


@final
@dataclass
class _Gathered:
    """Readers that share units, while they are collected."""

    readings: list[Reading] = field(default_factory=list[Reading])
    slots: dict[tuple[str, int], Cut] = field(default_factory=dict[tuple[str, int], Cut])
    readers: dict[tuple[str, int], Cut] = field(default_factory=dict[tuple[str, int], Cut])

    def add(self, reading: Reading) -> None:
        self.readings.append(reading)
        self.readers[reading.name, reading.cut.axis] = reading.cut
        for name, cut in reading.touched.items():
            known = self.slots.get((name, cut.axis))
            parts = cut.parts if known is None else tuple(sorted({*known.parts, *cut.parts}))
            self.slots[name, cut.axis] = replace(cut, parts=parts)

    @property
    def keys(self) -> set[tuple[str, int]]:
        return {*self.slots, *self.readers}

    @property
    def home(self) -> str:
        """Path of the module that holds all of it."""
        shared: list[str] = []
        for parts in zip(*(name.split(".")[:-1] for name, _ in self.keys), strict=False):
            if len(set(parts)) > 1:
                break
            shared.append(parts[0])
        return ".".join(shared)

    @property
    def fits(self) -> bool:
        """Whether its readers agree on what a unit is."""
        one = self.readings[0]
        cuts = {(key, self.slots[key].before, self.slots[key].after) for key in self.slots}
        own = {
            ((name, cut.axis), cut.before, cut.after)
            for reading in self.readings
            for name, cut in [*reading.touched.items(), (reading.name, reading.cut)]
            if (name, cut.axis) in self.slots
        }
        return own == cuts and all(reading.units == one.units for reading in self.readings)


def groups(model: nn.Module, found: Seen, weights: Weights, trace: Trace) -> tuple[Group, ...]:
    """The groups that the readings make up, in the order of the calls.

    Args:
        model: What was probed, or a copy.
        found: What is read in it.
        weights: Its tensors.
        trace: Of the pass.
    """
    gathered: list[_Gathered] = []
    for reading in found.readings:
        new = _Gathered()
        new.add(reading)
        shared = [one for one in gathered if one.keys & new.keys]
        for one in shared:
            gathered.remove(one)
            for known in one.readings:
                new.add(known)
        gathered.append(new)
    made = [_group(model, one, weights, _problem(one, found, weights, trace)) for one in gathered]
    made.sort(key=lambda group: min(reading.order for reading in group.readings))
    names = Counter(group.hidden.name for group in made)
    return tuple(group if names[group.hidden.name] == 1 else _told_apart(group) for group in made)


def _told_apart(group: Group) -> Group:
    """The group by the names of what writes and what reads it."""
    read = ", ".join(dict.fromkeys(reading.name for reading in group.readings))
    return replace(group, hidden=replace(group.hidden, name=f"{group.hidden.name} to {read}"))


def _group(model: nn.Module, found: _Gathered, weights: Weights, problem: str | None) -> Group:
    found.readings.sort(key=lambda reading: reading.order)
    units = found.readings[0].units
    tied = tuple(sorted({name for name, axis in found.slots if (name, axis) in found.readers}))
    factors = () if tied else _factors(found.readings, weights)
    written = {name for reading in found.readings for name in reading.written}
    slots = [
        Slices(
            Place(weights.names[name], axis, cut.before, cut.after),
            cut.parts,
            scaled=tuple(part for part in cut.parts if (name, axis, part) in factors),
            writes=name in written,
        )
        for (name, axis), cut in found.slots.items()
    ]
    readers = [
        Inputs(
            Place(weights.names[name], axis, cut.before, cut.after),
            weights.held[name].numel() // weights.held[name].shape[axis],
            called=all(
                reading.inside <= {name.rpartition(".")[0]} for reading in found.readings if reading.name == name
            ),
        )
        for (name, axis), cut in found.readers.items()
        if (name, axis) not in found.slots
    ]
    slots.sort(key=lambda stage: (not stage.writes, -weights.held[stage.place.names[0]].numel()))
    paths = dict.fromkeys(stage.path for stage in (*slots, *readers))
    experts = [Experts(path, units) for path in paths if one_by_one(model.get_submodule(path))]
    hidden = Hidden(slots[0].place.label, units, (*experts, *slots, *readers))
    dense = tuple(dict.fromkeys(thing for reading in found.readings for thing in reading.dense))
    return Group(hidden, tuple(found.readings), bool(factors), tied, dense, _widths(model, hidden, found.home), problem)


def _within(path: str, home: str) -> bool:
    return not home or path == home or path.startswith(f"{home}.")


def _problem(found: _Gathered, seen: Seen, weights: Weights, trace: Trace) -> str | None:
    """Why nothing that a few examples show could prove that the units can be rewritten, or ``None``."""
    units, home = found.readings[0].units, found.home
    if not found.fits:
        return "its units are cut in different ways by what reads them"
    for name, axis in sorted(found.slots.keys() & (seen.readers - found.readers.keys())):
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


def _widths(model: nn.Module, hidden: Hidden, home: str) -> tuple[Widths, ...]:
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
            made.append(Widths(path, names))
    return tuple(made)


def _factors(found: Sequence[Reading], weights: Weights) -> frozenset[tuple[str, int, int]]:
    """The parts that a factor may be applied to, so that it comes out where the units are read.

    Where what is read is of the first degree in some parts, their growths add up to it (Euler's theorem). Of several
    such sets the one with the most weights is taken.
    """
    probes = [probe for reading in found for probe in reading.probes]
    parts = sorted({part for probe in probes for part in probe.terms})
    if len(parts) > _MOST_PARTS:
        return frozenset()
    grown = np.array([[probe.terms.get(part, 0.0) for part in parts] for probe in probes])
    values = np.array([probe.value for probe in probes])
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
