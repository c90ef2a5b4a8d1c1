"""Plain nets (MLP, CNN): pairs of layers with only unit-wise operations between them, mostly ReLU.

The forward is traced symbolically (``torch.fx``), so hand-written forwards count as well as ``Sequential``. A pair
is taken only if all values between its two layers are used once, its weights are its own, and every operation
between passes units on one by one (activations, pooling, zero padding, dropout in eval mode), lays them out anew
(flatten), or is a batch norm, whose running statistics take a factor up. Of an activation it is noted whether a
positive factor passes through and whether 0 stays 0. What feeds a residual sum, a concatenation or the output is left
as it is; but a batch norm is folded into the layer that alone feeds it wherever it stands.
"""

import inspect
import operator
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from wheeltap.core.typed import copied
from wheeltap.gauge.base import ROUNDED, Family, GaugeSettings, Refusal, SharedTensors, altered, inexact, modules_of
from wheeltap.gauge.hidden import HiddenLayer, Inputs, NormStage, Slices, UnitStage, put, rows, times, weight_of
from wheeltap.gauge.moves import unit_moves

_TRIED = (-3.0, -1.5, -0.5, -0.1, 0.0, 0.2, 0.7, 1.6, 3.1, 7.0)
_FACTORS = (0.25, 3.0)


class Traits(NamedTuple):
    """What holds for an activation that acts unit by unit.

    Attributes:
        homogeneous: A positive factor passes through.
        silent: Zero stays zero, exactly.
    """

    homogeneous: bool
    silent: bool

    def then(self, other: "Traits") -> "Traits":
        """What holds for this activation followed by another."""
        return Traits(self.homogeneous and other.homogeneous, self.silent and other.silent)


TRANSPARENT = Traits(homogeneous=True, silent=True)
"""Nothing in the way."""


def traits(function: Callable[[Tensor], Tensor]) -> Traits | None:
    """The traits of ``function``; ``None`` if an output depends on more than the input at its own place."""
    values = torch.tensor([_TRIED])
    try:
        with torch.no_grad():
            whole = function(values.clone())
            alone = torch.cat([function(values[:, [k]]) for k in range(values.shape[1])], dim=1)
            # Backwards as well: a slope per place would pass the first comparison.
            turned = function(values.flip(1)).flip(1)
            scaled = [(function(factor * values), factor * whole) for factor in _FACTORS]
            zero = bool((function(torch.zeros(1, 1)) == 0).all())
    except Exception:
        return None
    if whole.shape != values.shape or not (_alike(whole, alone) and _alike(whole, turned)):
        return None
    return Traits(all(_alike(one, two) for one, two in scaled), zero)


def _alike(one: Tensor, two: Tensor) -> bool:
    return torch.allclose(one, two, rtol=1e-5, atol=1e-6)


CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


@final
@dataclass(frozen=True)
class UnitLayout:
    """Where the units are in a tensor.

    Attributes:
        axis: ``last``: ``[..., unit]``; ``spatial``: ``[example, unit, *place]``; ``unit-major``: flattened, each
            unit's places together; ``place-major``: flattened, units varying fastest.
        spatial: Number of place axes, for ``spatial``.
        widens: Whether the code on the way works with any number of units.
        traits: What holds for the activations on the way, taken together.
    """

    axis: Literal["last", "spatial", "unit-major", "place-major"]
    spatial: int = 0
    widens: bool = True
    traits: Traits = TRANSPARENT


Step = tuple[UnitLayout, UnitStage | None]
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_ACTIVATIONS = (
    nn.ReLU, nn.LeakyReLU, nn.Identity, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Tanh,
    nn.Sigmoid, nn.Softsign, nn.Hardtanh, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip
_POOLS: dict[Any, int] = {
    kind: dims
    for dims, kinds in {
        1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveMaxPool1d, nn.AdaptiveAvgPool1d, nn.ZeroPad1d,
            F.max_pool1d, F.avg_pool1d, F.adaptive_max_pool1d, F.adaptive_avg_pool1d, torch.max_pool1d),
        2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d,
            F.max_pool2d, F.avg_pool2d, F.adaptive_max_pool2d, F.adaptive_avg_pool2d, torch.max_pool2d),
        3: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveMaxPool3d, nn.AdaptiveAvgPool3d, nn.ZeroPad3d,
            F.max_pool3d, F.avg_pool3d, F.adaptive_max_pool3d, F.adaptive_avg_pool3d, torch.max_pool3d),
    }.items()
    for kind in kinds
}  # fmt: skip
_NORMS: dict[type[nn.Module], tuple[int, ...]] = {
    nn.BatchNorm1d: (0, 1),
    nn.BatchNorm2d: (2,),
    nn.BatchNorm3d: (3,),
}
_ACTIVATION_CALLS: set[Any] = {
    torch.relu, torch.relu_, F.relu, F.leaky_relu, F.leaky_relu_, F.gelu, F.silu, F.mish, F.elu, F.celu, F.selu,
    F.softplus, F.tanh, torch.tanh, F.sigmoid, torch.sigmoid, F.softsign, F.hardtanh, F.relu6, F.hardswish,
    F.hardsigmoid, "relu", "relu_", "tanh", "tanh_", "sigmoid", "sigmoid_",
    torch.sin, torch.cos, torch.exp, torch.abs, torch.square, torch.neg, operator.neg,
    "sin", "cos", "exp", "abs", "square", "neg",
}  # fmt: skip
_ARITHMETIC: set[Any] = {getattr(operator, name) for name in ("add", "sub", "mul", "truediv")}
"""Acts unit by unit where the other operand is a number."""
_DROPOUT_CALLS: set[Any] = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
_CLAMPS: set[Any] = {torch.clamp, torch.clamp_min, "clamp", "clamp_", "clamp_min", "clamp_min_"}
_FLATTENS: set[Any] = {torch.flatten, "flatten"}
_VIEWS: set[Any] = {"view", "reshape", torch.reshape}
_MEANS: set[Any] = {"mean", torch.mean}


def step(node: fx.Node, module: nn.Module | None, layout: UnitLayout, *, units: int) -> Step | str:
    """The layout after ``node`` and the stage that it is, if it has tensors per unit; or why it is refused."""
    if module is not None:
        return _module_step(module, str(node.target), layout, units=units)
    target = node.target
    if target in _ACTIVATION_CALLS or with_number(node):
        return _activation_call(node, layout)
    if target in _DROPOUT_CALLS and _argument(node, 2, "training", True) is not False:
        return "dropout is active"
    if target in _CLAMPS and (_argument(node, 1, "min", None) != 0 or _argument(node, 2, "max", None) is not None):
        return "clamp has a bound other than 0"
    if target in _DROPOUT_CALLS or target in _CLAMPS or target == "contiguous":
        return layout, None
    if target in _POOLS:
        return _pooled(layout, _POOLS[target], indices=node.kwargs.get("return_indices", False) is not False)
    if target is F.pad:
        return _pad_call(node, layout)
    if target in _FLATTENS:
        return _flattened(layout, (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)))
    if target in _VIEWS:
        return _view_call(node, layout)
    if target in _MEANS:
        return _mean_call(node, layout)
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return f"{name} is not an operation known to act unit by unit"


def with_number(node: fx.Node) -> bool:
    """Whether it is arithmetic of one tensor and numbers."""
    return node.op == "call_function" and node.target in _ARITHMETIC and len(node.all_input_nodes) == 1


def _module_step(module: nn.Module, path: str, layout: UnitLayout, *, units: int) -> Step | str:
    kind = type(module)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) and kind in _NORMS:
        if module.training or module.running_mean is None or module.running_var is None:
            return "a batch norm uses the statistics of the batch"
        spatial = layout.spatial if layout.axis == "spatial" else 0
        if module.num_features != units or spatial not in _NORMS[kind]:
            return "a batch norm's features are not the units"
        return layout, NormStage(path)
    if kind in _ACTIVATIONS:
        return _activated(layout, module)
    if kind in _DROPOUTS and not module.training:
        return layout, None
    if kind in _DROPOUTS:
        return "dropout is active"
    if kind in _POOLS:
        return _pooled(layout, _POOLS[kind], indices=bool(getattr(module, "return_indices", False)))
    if isinstance(module, nn.Flatten):
        return _flattened(layout, (module.start_dim, module.end_dim))
    if isinstance(module, nn.PReLU):
        if module.num_parameters == 1:
            return layout, None
        fits = module.num_parameters == units and layout.axis in {"last", "spatial"}
        slopes = Slices(names=(f"{path}.weight",), axis=0, silent=False)
        return (layout, slopes) if fits else "a PReLU has slopes that do not belong to units"
    return f"{kind.__name__} is not an operation known to act unit by unit"


def _activated(layout: UnitLayout, function: Callable[[Tensor], Tensor]) -> Step | str:
    found = traits(function)
    if found is None:
        return "an activation does not act unit by unit"
    return replace(layout, traits=layout.traits.then(found)), None


def _pooled(layout: UnitLayout, dims: int, *, indices: bool = False) -> Step | str:
    if indices:
        return "pooling returns indices"
    if layout.axis != "spatial" or layout.spatial != dims:
        return "pooling mixes units"
    return layout, None


def _flattened(layout: UnitLayout, dims: tuple[Any, Any]) -> Step | str:
    if dims != (1, -1):
        return "flatten does not start at the first axis after the examples"
    if layout.axis == "spatial":
        return replace(layout, axis="unit-major", spatial=0), None
    return replace(layout, axis="place-major") if layout.axis == "last" else layout, None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _activation_call(node: fx.Node, layout: UnitLayout) -> Step | str:
    target: Any = node.target
    if len(node.all_input_nodes) != 1 or any(isinstance(value, fx.Node) for value in node.kwargs.values()):
        return "an activation depends on other values"

    def function(values: Tensor) -> Tensor:
        call = getattr(torch.Tensor, target) if isinstance(target, str) else target
        return call(*(values if isinstance(arg, fx.Node) else arg for arg in node.args), **node.kwargs)

    return _activated(layout, function)


def _pad_call(node: fx.Node, layout: UnitLayout) -> Step | str:
    pad: Any = _argument(node, 1, "pad", None)
    mode, value = _argument(node, 2, "mode", "constant"), _argument(node, 3, "value", None)
    if mode == "constant" and value not in {None, 0}:
        return "padding is not with zeros"
    ends = len(pad) if isinstance(pad, tuple | list) else None  # pyright: ignore[reportUnknownArgumentType]
    if layout.axis != "spatial" or ends is None or ends > 2 * layout.spatial:
        return "padding adds units"
    return layout, None


def _view_call(node: fx.Node, layout: UnitLayout) -> Step | str:
    given: Any = node.args[1:] or (node.kwargs.get("shape"),)
    shape: Any = given[0] if len(given) == 1 and isinstance(given[0], tuple | list) else given
    if len(shape) != 2:
        return "a view does not flatten to examples and features"
    rows, features = shape
    if features == -1 and _counts_examples(rows):
        return _flattened(layout, (1, -1))
    if isinstance(features, int) and features > 0 and (rows == -1 or _counts_examples(rows)):
        # The width is written in the code: units can be re-coded, not added.
        return _flattened(replace(layout, widens=False), (1, -1))
    return "a view does not flatten to examples and features"


def _mean_call(node: fx.Node, layout: UnitLayout) -> Step | str:
    dims: Any = _argument(node, 1, "dim", None)
    dims = (dims,) if isinstance(dims, int) else dims
    if layout.axis != "spatial" or not isinstance(dims, tuple | list):
        return "a mean mixes units"
    axes = {d if d >= 0 else d + layout.spatial + 2 for d in dims}  # pyright: ignore[reportUnknownVariableType]
    if axes != set(range(2, layout.spatial + 2)):
        return "a mean is not over all places of a unit"
    kept = _argument(node, 2, "keepdim", False)
    return (layout if kept else replace(layout, axis="last", spatial=0)), None


def _is_shape(node: Any) -> bool:
    if not isinstance(node, fx.Node):
        return False
    whole = node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs
    return whole or (node.op == "call_function" and node.target is getattr and _argument(node, 1, "", None) == "shape")


def _counts_examples(node: Any) -> bool:
    """Whether a value is the length of the first axis of some tensor."""
    if not isinstance(node, fx.Node):
        return False
    if node.op == "call_method" and node.target == "size":
        return _argument(node, 1, "dim", None) == 0
    item = node.op == "call_function" and node.target is operator.getitem
    return item and _is_shape(node.args[0]) and _argument(node, 1, "", None) == 0


def readers(node: fx.Node) -> list[fx.Node]:
    """The nodes that use the values of ``node``; those that only ask how many examples there are do not."""

    def harmless(user: fx.Node) -> bool:
        if _counts_examples(user):
            return True
        return _is_shape(user) and all(_counts_examples(item) or not item.users for item in user.users)

    return [user for user in node.users if not harmless(user)]


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
    hiddens = tuple(outcome for outcome in outcomes.values() if isinstance(outcome, HiddenLayer))
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
    model: nn.Module, rng: np.random.Generator, settings: GaugeSettings, *, normed: tuple[tuple[str, str], ...]
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
        for stage in rows(model.get_submodule(layer), layer):
            stage.rescale(model, factor, fresh=None)


def _plain(module: nn.Module) -> bool:
    # Exact types: a subclass or a parametrised layer may compute something else.
    return type(module) is nn.Linear or type(module) in CONVOLUTIONS


def _layout(writer: nn.Module) -> UnitLayout:
    """Where the units are in what a layer writes."""
    spatial = CONVOLUTIONS.get(type(writer), 0)
    return UnitLayout("spatial", spatial) if spatial else UnitLayout("last")


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
        self.sharing = SharedTensors(model)
        called = [self.modules[str(node.target)] for node in graph.nodes if node.op == "call_module"]
        self.calls = Counter(id(module) for module in called)
        self.read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_layer(self, node: fx.Node) -> bool:
        module = self.module(node)
        return module is not None and _plain(module)

    def follow(self, start: fx.Node) -> HiddenLayer | str:
        """The hidden layer that ``start`` writes, or why it cannot be rewritten."""
        writer = self.modules[str(start.target)]
        reason = self.unsafe(start)
        if reason:
            return reason
        units, layout = len(weight_of(writer)), _layout(writer)
        stages: list[UnitStage] = [*rows(writer, str(start.target))]
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
                reader = self._inputs(node, layout, units=units)
                if isinstance(reader, str):
                    return reader
                return HiddenLayer(str(start.target), units, (*stages, reader), layout.widens, *layout.traits)
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
        return (str(start.target), norm.path) if isinstance(norm, NormStage) else None

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

    def _inputs(self, node: fx.Node, layout: UnitLayout, *, units: int) -> Inputs | str:
        """How the layer that ``node`` calls reads units laid out as ``layout``."""
        module = self.modules[str(node.target)]
        path, (outputs, width, *_) = str(node.target), weight_of(module).shape
        if type(module) in CONVOLUTIONS:
            fits = layout.axis == "spatial" and layout.spatial == CONVOLUTIONS[type(module)] and width == units
            inputs = Inputs(names=(f"{path}.weight",), axis=1, outputs=outputs, taps=True)
            return inputs if fits else f"{path} does not read the units as its channels"
        places, rest = divmod(width, units)
        if rest or layout.axis == "spatial" or (layout.axis == "last" and places != 1):
            return f"{path} does not read the units as its features"
        before, after = (1, places) if layout.axis == "unit-major" else (places, 1)
        return Inputs(names=(f"{path}.weight",), axis=1, before=before, after=after, outputs=outputs)
