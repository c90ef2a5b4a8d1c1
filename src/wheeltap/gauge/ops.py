"""What may stand between the layer that writes hidden units and the layer that reads them.

Each traced operation is looked up here. It passes units on one by one (activations, pooling, zero padding, dropout in
eval mode), or lays them out anew (flatten), or is a batch norm, whose running statistics take a factor up. Everything
else is refused. Of an activation it is noted whether a positive factor passes through and whether 0 stays 0.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from wheeltap.gauge.activation import TRANSPARENT, Traits, traits
from wheeltap.gauge.hidden import Norm, Slopes, Stage

CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


@final
@dataclass(frozen=True)
class Layout:
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


Step = tuple[Layout, Stage | None]
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
_UNCHANGED: set[Any] = {"contiguous"}
_DROPOUT_CALLS: set[Any] = {F.dropout, F.dropout1d, F.dropout2d, F.dropout3d}
_CLAMPS: set[Any] = {torch.clamp, torch.clamp_min, "clamp", "clamp_", "clamp_min", "clamp_min_"}
_FLATTENS: set[Any] = {torch.flatten, "flatten"}
_VIEWS: set[Any] = {"view", "reshape", torch.reshape}
_MEANS: set[Any] = {"mean", torch.mean}


def step(node: fx.Node, module: nn.Module | None, layout: Layout, *, units: int) -> Step | str:
    """The layout after ``node`` and the stage that it is, if it has tensors per unit; or why it is refused."""
    if module is not None:
        return _module_step(module, str(node.target), layout, units=units)
    target = node.target
    for known, handle in _CALLS:
        if target in known:
            return handle(node, layout)
    if with_number(node):
        return _activation_call(node, layout)
    name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return f"{name} is not an operation known to act unit by unit"


def with_number(node: fx.Node) -> bool:
    """Whether it is arithmetic of one tensor and numbers."""
    return node.op == "call_function" and node.target in _ARITHMETIC and len(node.all_input_nodes) == 1


def _module_step(module: nn.Module, path: str, layout: Layout, *, units: int) -> Step | str:
    kind = type(module)
    if kind in _NORMS:
        return _norm_step(module, path, layout, units=units)
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
        return (layout, Slopes(path)) if fits else "a PReLU has slopes that do not belong to units"
    return f"{kind.__name__} is not an operation known to act unit by unit"


def _activated(layout: Layout, function: Callable[[Tensor], Tensor]) -> Step | str:
    found = traits(function)
    if found is None:
        return "an activation does not act unit by unit"
    return replace(layout, traits=layout.traits.then(found)), None


def _norm_step(module: nn.Module, path: str, layout: Layout, *, units: int) -> Step | str:
    assert isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
    if module.training or module.running_mean is None or module.running_var is None:
        return "a batch norm uses the statistics of the batch"
    spatial = layout.spatial if layout.axis == "spatial" else 0
    if module.num_features != units or spatial not in _NORMS[type(module)]:
        return "a batch norm's features are not the units"
    return layout, Norm(path)


def _pooled(layout: Layout, dims: int, *, indices: bool = False) -> Step | str:
    if indices:
        return "pooling returns indices"
    if layout.axis != "spatial" or layout.spatial != dims:
        return "pooling mixes units"
    return layout, None


def _flattened(layout: Layout, dims: tuple[Any, Any]) -> Step | str:
    if dims != (1, -1):
        return "flatten does not start at the first axis after the examples"
    if layout.axis == "spatial":
        return replace(layout, axis="unit-major", spatial=0), None
    return replace(layout, axis="place-major") if layout.axis == "last" else layout, None


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _pass(node: fx.Node, layout: Layout) -> Step | str:
    return layout, None


def _activation_call(node: fx.Node, layout: Layout) -> Step | str:
    target: Any = node.target
    if len(node.all_input_nodes) != 1 or any(isinstance(value, fx.Node) for value in node.kwargs.values()):
        return "an activation depends on other values"

    def function(values: Tensor) -> Tensor:
        call = getattr(torch.Tensor, target) if isinstance(target, str) else target
        return call(*(values if isinstance(arg, fx.Node) else arg for arg in node.args), **node.kwargs)

    return _activated(layout, function)


def _dropout_call(node: fx.Node, layout: Layout) -> Step | str:
    return "dropout is active" if _argument(node, 2, "training", True) is not False else (layout, None)


def _clamp_call(node: fx.Node, layout: Layout) -> Step | str:
    low, high = _argument(node, 1, "min", None), _argument(node, 2, "max", None)
    return (layout, None) if low == 0 and high is None else "clamp has a bound other than 0"


def _pool_call(node: fx.Node, layout: Layout) -> Step | str:
    target: Any = node.target
    return _pooled(layout, _POOLS[target], indices=node.kwargs.get("return_indices", False) is not False)


def _pad_call(node: fx.Node, layout: Layout) -> Step | str:
    pad: Any = _argument(node, 1, "pad", None)
    mode, value = _argument(node, 2, "mode", "constant"), _argument(node, 3, "value", None)
    if mode == "constant" and value not in {None, 0}:
        return "padding is not with zeros"
    ends = len(pad) if isinstance(pad, tuple | list) else None  # pyright: ignore[reportUnknownArgumentType]
    if layout.axis != "spatial" or ends is None or ends > 2 * layout.spatial:
        return "padding adds units"
    return layout, None


def _flatten_call(node: fx.Node, layout: Layout) -> Step | str:
    return _flattened(layout, (_argument(node, 1, "start_dim", 0), _argument(node, 2, "end_dim", -1)))


def _view_call(node: fx.Node, layout: Layout) -> Step | str:
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


def _mean_call(node: fx.Node, layout: Layout) -> Step | str:
    dims: Any = _argument(node, 1, "dim", None)
    dims = (dims,) if isinstance(dims, int) else dims
    if layout.axis != "spatial" or not isinstance(dims, tuple | list):
        return "a mean mixes units"
    axes = {d if d >= 0 else d + layout.spatial + 2 for d in dims}  # pyright: ignore[reportUnknownVariableType]
    if axes != set(range(2, layout.spatial + 2)):
        return "a mean is not over all places of a unit"
    kept = _argument(node, 2, "keepdim", False)
    return (layout if kept else replace(layout, axis="last", spatial=0)), None


_Handler = Callable[[fx.Node, Layout], Step | str]
_CALLS: tuple[tuple[Any, _Handler], ...] = (
    (_ACTIVATION_CALLS, _activation_call),
    (_UNCHANGED, _pass),
    (_DROPOUT_CALLS, _dropout_call),
    (_CLAMPS, _clamp_call),
    (_POOLS, _pool_call),
    ({F.pad}, _pad_call),
    (_FLATTENS, _flatten_call),
    (_VIEWS, _view_call),
    (_MEANS, _mean_call),
)


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
