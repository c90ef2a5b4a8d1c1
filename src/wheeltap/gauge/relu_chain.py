"""Plain nets (MLP, CNN): pairs of layers with only unit-wise operations between them, mostly ReLU.

The forward is traced symbolically (``torch.fx``), so hand-written forwards count as well as ``Sequential``. A pair
is taken only if all values between its two layers are used once, its weights are its own, and every operation
between is one that ``ops`` knows. What feeds a residual sum, a concatenation or the output is left as it is; but a
batch norm is folded into the layer that alone feeds it wherever it stands.
"""

import inspect
import warnings
from collections import Counter
from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import fx, nn

from wheeltap.core.copies import copied
from wheeltap.gauge.base import ROUNDED, Family, Refusal, Sharing, altered, inexact, modules_of
from wheeltap.gauge.hidden import Columns, Hidden, Norm, Rows, Stage, put, times, weight_of
from wheeltap.gauge.moves import unit_moves
from wheeltap.gauge.ops import CONVOLUTIONS, Layout, readers, step, with_number
from wheeltap.gauge.settings import Settings

NAME = "relu-chain"


def recognise(model: nn.Module) -> Family | Refusal:
    """Every pair of a Linear or convolution and the one that alone reads it; see the module's text."""
    layers = [module for module in model.modules() if _plain(module)]
    if len(layers) < 2:
        return Refusal("fewer than two plain Linear or convolution layers")
    change = altered(model)
    if change:
        return Refusal(f"the model: {change}")
    graph = _traced(model)
    if isinstance(graph, str):
        return Refusal(graph)
    search = _Search(model, graph)
    nodes = [node for node in graph.nodes if search.is_layer(node)]
    outcomes = {str(node.target): search.follow(node) for node in nodes}
    hiddens = tuple(outcome for outcome in outcomes.values() if isinstance(outcome, Hidden))
    refused = tuple(f"{path}: {outcome}" for path, outcome in outcomes.items() if isinstance(outcome, str))
    moves, reasons = unit_moves(model, hiddens)
    normed = tuple(pair for pair in map(search.normed, nodes) if pair is not None)
    exact = tuple(pair for pair in normed if not inexact(model, "fold", pair[0]))
    if exact:
        moves["fold"] = partial(_fold, normed=exact)
    else:
        reasons += (f"fold: {ROUNDED}" if normed else "fold: no batch norm has a layer of its own that feeds it",)
    if not moves:
        return Refusal("; ".join(refused[:3]) or "no layer is called as a module", tuple(outcomes))
    called = tuple(str(node.target) for node in nodes if search.unsafe(node) is None)
    return Family(NAME, hiddens, moves, (*refused, *reasons), called=called, normed=exact)


def _fold(
    model: nn.Module, rng: np.random.Generator, settings: Settings, *, normed: tuple[tuple[str, str], ...]
) -> None:
    """Each batch norm's gain / sqrt(variance + eps) goes into the rows that feed it; what stays is a shift."""
    for layer, norm in normed:
        module: Any = model.get_submodule(norm)
        factor = (module.running_var.double() + module.eps).rsqrt()
        if module.affine:
            factor = factor * module.weight.detach().double()
            put(module, "weight", torch.ones_like(module.weight))
        put(module, "running_mean", times(module.running_mean, factor, dim=0))
        put(module, "running_var", torch.full_like(module.running_var, 1 - module.eps))
        Rows(layer).rescale(model, factor, fresh=None)


def _plain(module: nn.Module) -> bool:
    # Exact types: a subclass or a parametrised layer may compute something else.
    return type(module) is nn.Linear or type(module) in CONVOLUTIONS


def _layout(writer: nn.Module) -> Layout:
    """Where the units are in what a layer writes."""
    spatial = CONVOLUTIONS.get(type(writer), 0)
    return Layout("spatial", spatial) if spatial else Layout("last")


def _traced(model: nn.Module) -> fx.Graph | str:
    """The graph of the forward with its defaults, or why there is none.

    Traced on a copy that shares the parameters, so that a forward that writes attributes leaves the model alone.
    """
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(model).forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    try:
        shell = copied(model, sharing=model.parameters())
    except (TypeError, RuntimeError, NotImplementedError) as error:
        return f"it cannot be copied ({type(error).__name__}: {error})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return fx.Tracer().trace(shell, concrete_args=defaults or None)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"its forward cannot be traced ({type(error).__name__}: {reason[:120]})"


@final
class _Search:
    """Follows the output of each layer to the one layer that reads it."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.modules = modules_of(model)
        self.sharing = Sharing(model)
        called = [self.modules[str(node.target)] for node in graph.nodes if node.op == "call_module"]
        self.calls = Counter(id(module) for module in called)
        self.read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_layer(self, node: fx.Node) -> bool:
        module = self.module(node)
        return module is not None and _plain(module)

    def follow(self, start: fx.Node) -> Hidden | str:
        """The hidden layer that ``start`` writes, or why it cannot be rewritten."""
        writer = self.modules[str(start.target)]
        reason = self.unsafe(start)
        if reason:
            return reason
        units, layout = len(weight_of(writer)), _layout(writer)
        stages: list[Stage] = [Rows(str(start.target))]
        node = start
        while True:
            users = readers(node)
            if len(users) != 1:
                return f"its values are used {len(users)} times" if users else "its values are not used"
            previous, node = node, users[0]
            if node.op == "output":
                return "it feeds the model's output"
            as_input = node.args and node.args[0] is previous and previous in node.all_input_nodes
            if not as_input and not with_number(node):
                return f"{node.name} uses it in another way than as its input"
            reason = self.unsafe(node)
            if reason:
                return reason
            if self.is_layer(node):
                reader = self._columns(node, layout, units=units)
                if isinstance(reader, str):
                    return reader
                return Hidden(str(start.target), units, (*stages, reader), layout.widens, *layout.traits)
            taken = step(node, self.module(node), layout, units=units)
            if isinstance(taken, str):
                return taken
            layout, stage = taken
            stages += [stage] if stage else []

    def normed(self, start: fx.Node) -> tuple[str, str] | None:
        """The paths of the layer that ``start`` calls and of the batch norm that alone reads it, if one does."""
        users = readers(start)
        if len(users) != 1 or users[0].args != (start,) or self.unsafe(start) or self.unsafe(users[0]):
            return None
        writer, module = self.modules[str(start.target)], self.module(users[0])
        layout = _layout(writer)
        taken = step(users[0], module, layout, units=len(weight_of(writer))) if module is not None else ""
        norm = None if isinstance(taken, str) else taken[1]
        return (str(start.target), norm.path) if isinstance(norm, Norm) else None

    def unsafe(self, node: fx.Node) -> str | None:
        """Why the module that ``node`` calls must be left alone, or ``None``."""
        module = self.module(node)
        if module is None:
            return None
        path = str(node.target)
        change = altered(module)
        if change:
            return f"{path}: {change}"
        held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not held:
            return None
        if not all(tensor.is_floating_point() for tensor in module.parameters(recurse=False)):
            return f"{path} has weights that are not floating point"
        if self.calls[id(module)] > 1:
            return f"{path} is called {self.calls[id(module)]} times"
        if self.sharing.shared(module) or any(name.startswith(f"{path}.") for name in self.read):
            return f"{path} shares its weights with another part of the model"
        if getattr(module, "groups", 1) != 1:
            return f"{path} is a grouped convolution"
        return None

    def _columns(self, node: fx.Node, layout: Layout, *, units: int) -> Columns | str:
        """How the layer that ``node`` calls reads units laid out as ``layout``."""
        module = self.modules[str(node.target)]
        path, (outputs, width, *kernel) = str(node.target), weight_of(module).shape
        if type(module) in CONVOLUTIONS:
            fits = layout.axis == "spatial" and layout.spatial == CONVOLUTIONS[type(module)] and width == units
            places = int(np.prod(kernel))
            return Columns(path, outputs, after=places) if fits else f"{path} does not read the units as its channels"
        places, rest = divmod(width, units)
        if rest or layout.axis == "spatial" or (layout.axis == "last" and places != 1):
            return f"{path} does not read the units as its features"
        if layout.axis == "unit-major":
            return Columns(path, outputs, after=places)
        return Columns(path, outputs, before=places)
