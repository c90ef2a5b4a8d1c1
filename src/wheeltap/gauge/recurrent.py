"""Recurrent layers: hidden units permuted through all gates, and units added that cancel or are dead.

A unit of an LSTM, GRU or plain recurrent layer is a row of every gate, a column of the weights with which the layer
reads itself, and one of what reads the layer. What that is cannot be read off the modules: the units of a copy are
permuted, and each layer whose inputs are then permuted alike is one that reads them, until the outputs are the same.

Source: Hochreiter & Schmidhuber 1997, "Long short-term memory" (gates); Cho et al. 2014, "Learning phrase
representations using RNN encoder-decoder", appendix A (GRU).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.gauge.base import GaugeSettings, Move, SharedTensors, altered, modules_of
from wheeltap.gauge.bench import Run, TwinBench
from wheeltap.gauge.hidden import AxisStage, HiddenLayer, Slices, UnitStage, Widths, reading, reorder, sliced
from wheeltap.gauge.moves import moves_in_turn
from wheeltap.gauge.parts import plain

_GATES: Final[Mapping[str, int]] = {"LSTM": 4, "GRU": 3, "RNN": 1, "LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}
"""By class of torch, rows of the weights for each unit."""

_READERS: Final[Mapping[str, tuple[int, str]]] = {"Linear": (-1, "in_features"), "Conv1d": (-2, "in_channels")}
"""Classes that may read units: along which axis of their inputs, and what holds its length."""

_ROWS: Final = 4096
"""Numbers of a unit that are compared, at most."""
_ROUNDING: Final = {torch.float64: 1e-6, torch.float32: 1e-3}
"""By how much two units that are the same may differ, as a share of the largest: norms between may be less exact."""

_STATE: Final = " (state)"
"""Added to the path of a recurrent layer for what it starts from."""
_FIXED: Final = "units cannot be added: the model's code has their number written in it, or a norm takes all"


@final
@dataclass(frozen=True)
class _Input:
    """Weights that may read units, or a norm that hands them on.

    Attributes:
        path: Module path.
        names: Of the tensors there.
        axis: Of the module's inputs, along which units may lie.
        size: Attribute that holds the length of that axis; empty for a norm, whose length has to stay.
    """

    path: str
    names: tuple[str, ...]
    axis: int
    size: str


def find(
    model: nn.Module, sharing: SharedTensors, *, run: Run | None = None
) -> tuple[dict[str, Move], tuple[str, ...], tuple[str, ...]]:
    """The gauges of the recurrent layers of ``model``, each proven on its outputs; reasons for the others.

    Also the paths of the layers that some gauge holds on.

    Args:
        model: Any; it is not touched.
        sharing: Of the model.
        run: Runs a model on a few of a task's examples; without it nothing can be proven.
    """
    kinds = (nn.RNNBase, nn.RNNCellBase)
    layers = {path: module for path, module in modules_of(model).items() if isinstance(module, kinds)}
    if not layers:
        return {}, (), ()
    if run is None:
        return {}, tuple(f"{path or 'the model'}: no examples to find out what reads it" for path in layers), ()
    found: list[HiddenLayer] = []
    refused: dict[str, str] = {}
    bench: TwinBench | None = None
    for path, layer in layers.items():
        if any(path in _writers(units) for units in found):
            continue  # it starts from another one's units
        try:
            bench = bench or TwinBench(model, run)
            read = _reason(layer, sharing) or _Follower(bench, path, layer, sharing).units()
            read = read if isinstance(read, str) else _proven(bench, read)
        except Exception as error:  # whatever the model's own code raises, or that it was tried too often
            read = f"it cannot be tried ({type(error).__name__})"
        if isinstance(read, str):
            refused[path] = read
            continue
        found.append(read)
        if not read.widens:
            refused[path] = f"cancel, dead: {_FIXED}"
    started = {path for units in found for path in _writers(units) if path != units.name}
    reasons = (f"{path or 'the model'}: {reason}" for path, reason in refused.items() if path not in started)
    rewritten = tuple(path for path in layers if any(path in _writers(units) for units in found))
    return moves_in_turn(found), tuple(reasons), rewritten


def _writers(units: HiddenLayer) -> set[str]:
    """Paths of the modules that make the units."""
    return {stage.path for stage in units.stages if isinstance(stage, Slices)}


def plain_recurrent(module: nn.Module) -> bool:
    """Whether ``module`` is a recurrent layer or cell of torch itself."""
    return type(module).__name__ in _GATES and plain(module, type(module).__name__)


def _reason(layer: nn.Module, sharing: SharedTensors) -> str | None:
    """Why a recurrent layer is not what its class says, or ``None``."""
    if not plain_recurrent(layer):
        return f"it is a {type(layer).__name__}, not a recurrent layer of torch itself"
    if getattr(layer, "hidden_size", 0) < 2:
        return "it has one unit only"
    if getattr(layer, "proj_size", 0):
        return "what its units write is projected before it is read"
    if sharing.shared(layer):
        return "it shares its weights with another module"
    return altered(layer)


def _suffixes(layer: Any) -> list[list[str]]:
    """The endings of the names of its weights, by layer and direction; a cell has none."""
    if isinstance(layer, nn.RNNCellBase):
        return [[""]]
    both = ("", "_reverse") if layer.bidirectional else ("",)
    return [[f"_l{at}{way}" for way in both] for at in range(layer.num_layers)]


def _own(path: str, layer: Any) -> tuple[AxisStage, ...]:
    """What has one slice per unit in the layer itself; each layer and direction is a group."""
    width, gates = layer.hidden_size, _GATES[type(layer).__name__]
    ends, prefix = _suffixes(layer), f"{path}." if path else ""
    made: list[AxisStage] = []
    for at, ways in enumerate(ends):
        for way, end in enumerate(ways):
            group = at * len(ways) + way
            gate_rows = tuple((gate * width, group) for gate in range(gates))
            names = [f"{name}{end}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            present = [name for name in names if getattr(layer, name, None) is not None]
            made += [sliced(layer, prefix + name, gate_rows, width) for name in present]
            rows = sliced(layer, f"{prefix}weight_hh{end}", gate_rows, width).blocks
            made.append(reading(layer, f"{prefix}weight_hh{end}", ((0, group),), width, rows=rows))
            if at:
                below = tuple((each * width, group - way - len(ways) + each) for each in range(len(ways)))
                made.append(reading(layer, f"{prefix}weight_ih{end}", below, width, rows=rows))
    return tuple(made)


@final
class _Follower:
    """Finds all that reads the units of one recurrent layer, and the layers that start from its units.

    Args:
        bench: Of the model.
        path: Module path of the layer.
        layer: The layer, of two units or more.
        sharing: Of the model.
    """

    def __init__(self, bench: TwinBench, path: str, layer: Any, sharing: SharedTensors) -> None:
        self.bench, self.path, self.layer, self.sharing = bench, path, layer, sharing
        ends = _suffixes(layer)
        self.groups = sum(map(len, ends))
        self.last = range(self.groups - len(ends[-1]), self.groups)
        random = seeds.generator(0, "recurrent", path)
        self.orders = [random.permutation(layer.hidden_size) for _ in range(self.groups)]
        self.candidates = {each.path: each for each in _inputs(bench.model, path, layer.hidden_size)}
        self.own = _own(path, layer)
        self.stages: list[UnitStage] = [Widths(path, layer.hidden_size, ("hidden_size",)), *self.own]
        self.done = {path, path + _STATE}

    def units(self) -> HiddenLayer | str:
        """The units with all that reads them, or why that is not found."""
        clean, _ = self.seen(moved=False)
        while True:
            seen, order = self.seen(moved=True)
            if set(order) != set(clean):
                return "which layers are called depends on what it computes"
            changed = [at for at in order if at not in self.done and not _same(self.bench, clean[at], seen[at])]
            if not changed:
                break
            problem = self.add(changed[0], clean[changed[0]], seen[changed[0]])
            if problem is not None:
                return problem
        if not self.bench.holds(partial(reorder, stages=self.stages, index=self.orders)):
            return "what it computes is read by more than layers"
        if not self.bench.matters(partial(reorder, stages=self.own, index=self.orders)):
            return "the model's outputs do not depend on it"
        homogeneous = type(self.layer).__name__ in ("RNN", "RNNCell") and self.layer.nonlinearity == "relu"
        width, stages = self.layer.hidden_size, tuple(self.stages)
        return HiddenLayer(self.path, width, stages, homogeneous=homogeneous, groups=self.groups)

    def add(self, at: str, clean: Tensor, seen: Tensor) -> str | None:
        """Take in what reads units first, or says why it cannot be."""
        path = at.removesuffix(_STATE)
        module: Any = self.bench.model.get_submodule(path)
        problem = "it shares its weights with another module" if self.sharing.shared(module) else altered(module)
        problem = problem if at == path else _reason(module, self.sharing)
        if problem is not None:
            return f"{path}, which reads its units: {problem}"
        self.done.add(at)
        if at != path:
            own = _own(path, module)
            groups = {group for stage in own if stage.blocks is not None for group in stage.blocks.groups}
            width = self.layer.hidden_size
            whole = torch.cat([clean[:, width * group :][:, order] for group, order in enumerate(self.orders)], dim=1)
            if groups != set(range(self.groups)) or not _same(self.bench, whole, seen):
                return f"{path} starts from its units in a way that is not followed"
            self.stages += [Widths(path, width, ("hidden_size",)), *own]
            return None
        blocks = _blocks(self.bench, clean, seen, {group: self.orders[group] for group in self.last})
        if not blocks:
            return f"{path} reads its units in a way that is not followed"
        entry = self.candidates[path]
        width, describe = self.layer.hidden_size, reading if entry.size else sliced
        self.stages += [describe(module, f"{path}.{name}", blocks, width) for name in entry.names]
        if entry.size == "input_size":  # other layers keep their sizes by themselves
            self.stages.append(Widths(path, width, (entry.size,), groups=len(blocks)))
        return None

    def seen(self, *, moved: bool) -> tuple[dict[str, Tensor], list[str]]:
        """What each candidate reads and starts from, ``[row, input]``, and in which order they are called."""
        model = self.bench.copy()
        reorder(model, self.stages if moved else (), self.orders)
        calls: dict[str, list[Tensor]] = {}
        for path, candidate in self.candidates.items():

            def keep(module: nn.Module, args: Any, kwargs: dict[str, Any], at: _Input = candidate) -> None:
                given, *more = (*args, *kwargs.values())
                rows: Tensor = given.data if isinstance(given, nn.utils.rnn.PackedSequence) else given
                calls.setdefault(at.path, []).append(_by_row(rows.movedim(at.axis, -1)))
                if plain_recurrent(module) and more and more[0] is not None:
                    # What is read: an LSTM starts from its cells too.
                    state = more[0] if isinstance(more[0], Tensor) else more[0][0]
                    state = state.movedim(0, -2).flatten(-2) if isinstance(module, nn.RNNBase) else state
                    calls.setdefault(at.path + _STATE, []).append(_by_row(state))

            model.get_submodule(path).register_forward_pre_hook(keep, with_kwargs=True)
        self.bench.scores(model)
        return {path: torch.cat(rows)[:_ROWS] for path, rows in calls.items()}, list(calls)


def _proven(bench: TwinBench, units: HiddenLayer) -> HiddenLayer:
    """With the gauges that hold: a permutation does."""

    def holds(gauge: str) -> bool:
        move = moves_in_turn([replace(units, widens=True, homogeneous=True)])[gauge]
        return bench.holds(
            lambda model: move(model, seeds.generator(0, "recurrent", gauge), GaugeSettings(units=1, pairs=2))
        )

    widens = holds("cancel") and holds("dead")
    return replace(units, widens=widens, homogeneous=units.homogeneous and holds("rescale"))


def _inputs(model: nn.Module, path: str, width: int) -> Iterator[_Input]:
    """Everything that may read units, other than the layer at ``path`` itself."""
    for name, module in modules_of(model).items():
        held: Any = module
        kind = type(module).__name__
        entry, length = None, 0
        if plain_recurrent(module) and name != path:
            entry = _Input(name, tuple(f"weight_ih{end}" for end in _suffixes(module)[0]), -1, "input_size")
            length = max(held.input_size, held.hidden_size)
        elif kind in _READERS and plain(module, kind) and getattr(held, "groups", 1) == 1:
            axis, size = _READERS[kind]
            entry, length = _Input(name, ("weight",), axis, size), getattr(held, size)
        elif plain(module, "LayerNorm") and held.weight is not None and held.weight.ndim == 1:
            names = ("weight",) if held.bias is None else ("weight", "bias")
            entry, length = _Input(name, names, -1, ""), len(held.weight)
        if entry is not None and length >= width:
            yield entry


def _by_row(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1, tensor.shape[-1]).double().cpu()


def _same(bench: TwinBench, first: Tensor, second: Tensor) -> bool:
    bound = _ROUNDING[bench.dtype] * float(first.abs().max())
    return first.shape == second.shape and float((first - second).abs().max()) <= bound


def _blocks(
    bench: TwinBench, clean: Tensor, seen: Tensor, orders: Mapping[int, NDArray[np.int64]]
) -> tuple[tuple[int, int], ...]:
    """Where groups of units begin among a layer's inputs, and which; none where that does not explain what it reads."""
    blocks: list[tuple[int, int]] = []
    moved, at = clean.clone(), 0
    while at < clean.shape[1]:
        for group, order in orders.items():
            ordered = clean[:, at : at + len(order)]
            if ordered.shape[1] < len(order):
                continue
            ordered = ordered[:, order]
            if _same(bench, ordered, seen[:, at : at + len(order)]) and not _same(
                bench, ordered, clean[:, at : at + len(order)]
            ):
                blocks.append((at, group))
                moved[:, at : at + len(order)] = ordered
                at += len(order)
                break
        else:
            at += 1
    return tuple(blocks) if _same(bench, moved, seen) else ()
