"""Gated MLPs as in Llama: ``down(act(gate(x)) * up(x))``.

A neuron is a row of gate and up and a column of down. Neurons may change places, and the up row may be multiplied
by any factor that the down column is divided by: exact for every activation, since up enters linearly.

Source: Shazeer 2020, "GLU variants improve transformer", equation 6, for the form of the layer.
"""

import operator
from collections.abc import Callable
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
from torch import fx, nn

from wheeltap.gauge import hidden
from wheeltap.gauge.base import Family, Refusal, Sharing, altered, modules_of
from wheeltap.gauge.hidden import Columns, Hidden, Rows
from wheeltap.gauge.settings import Cancel, Recode

_PARTS = ("gate_proj", "up_proj", "down_proj")


@final
class SwiGLU(Family):
    """The gated MLPs of a Llama-like model."""

    name: ClassVar[str] = "swiglu"

    def __init__(self, hiddens: tuple[Hidden, ...], refused: tuple[str, ...]) -> None:
        self.hiddens, self.refused = hiddens, refused

    @classmethod
    def recognise(cls, model: nn.Module) -> Self | Refusal:
        """Every module with exactly gate_proj, up_proj, down_proj and act_fn whose forward combines them as above."""
        sharing = Sharing(model)
        found: list[Hidden] = []
        refused: list[str] = []
        seen = 0
        for path, module in modules_of(model).items():
            if not all(isinstance(getattr(module, part, None), nn.Module) for part in _PARTS):
                continue
            seen += 1
            reason = _reason(module, sharing)
            if reason is None:
                found.append(_hidden(path, module))
            else:
                refused.append(f"{path or 'the model'}: {reason}")
        if found:
            return cls(tuple(found), tuple(refused))
        if not seen:
            return Refusal("no module has gate_proj, up_proj and down_proj")
        return Refusal("; ".join(refused[:3]))

    def recode(self, model: nn.Module, rng: np.random.Generator, *, settings: Recode) -> None:
        """See ``Family.recode``."""
        for layer in self.hiddens:
            hidden.recode(model, layer, rng, settings=settings)

    def cancel(self, model: nn.Module, rng: np.random.Generator, *, settings: Cancel) -> None:
        """See ``Family.cancel``."""
        hidden.cancel(model, self.hiddens, rng, settings=settings)
        _declare_widths(model, self.hiddens)


def _hidden(path: str, module: nn.Module) -> Hidden:
    prefix = f"{path}." if path else ""
    down: Any = module.get_submodule("down_proj")
    return Hidden(
        name=f"{prefix}up_proj",
        units=down.in_features,
        stages=(
            Rows(f"{prefix}gate_proj", scaled=False),
            Rows(f"{prefix}up_proj"),
            Columns(f"{prefix}down_proj", outputs=down.out_features),
        ),
    )


def _reason(module: nn.Module, sharing: Sharing) -> str | None:
    """Why ``module`` cannot be rewritten, or ``None``."""
    parts: list[Any] = [module.get_submodule(part) for part in _PARTS]
    gate, up, down = parts
    for name, part in zip(_PARTS, parts, strict=True):
        if type(part) is not nn.Linear:
            return f"{name} is a {type(part).__name__}, not a plain Linear"
        if not part.weight.is_floating_point():
            return f"{name} has weights of type {part.weight.dtype}"
        if sharing.shared(part):
            return f"{name} shares its weights with another module"
    if not gate.out_features == up.out_features == down.in_features:
        return "gate_proj, up_proj and down_proj differ in width"
    for name, part in [("it", module), *zip(_PARTS, parts, strict=True)]:
        change = altered(part)
        if change:
            return change if name == "it" else f"{name}: {change}"
    return _forward_reason(module)


@final
class _Leaves(fx.Tracer):
    """Traces one module and looks into none of its children."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def _forward_reason(module: nn.Module) -> str | None:
    """Why the forward of ``module`` is not ``down(act(gate(x)) * up(x))``, or ``None`` if it is."""
    try:
        graph = _Leaves().trace(module)
    except Exception as error:
        return f"its forward cannot be traced ({type(error).__name__})"
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    down = next((node for node in reversed(graph.nodes) if node.op == "output"), None)
    problem = "its forward is not down(act(gate(x)) * up(x))"
    if len(nodes) != 5 or len(inputs) != 1 or down is None:
        return problem
    by_target = {str(node.target): node for node in nodes if node.op == "call_module"}
    product = next((n for n in nodes if n.op == "call_function" and n.target in (operator.mul, torch.mul)), None)
    if product is None or not set(_PARTS) <= set(by_target):
        return problem
    up, gate, last = by_target["up_proj"], by_target["gate_proj"], by_target["down_proj"]
    act = next(node for node in nodes if node not in (up, gate, last, product))
    right = (
        up.args == (inputs[0],)
        and gate.args == (inputs[0],)
        and act.args == (gate,)
        and set(product.args) == {act, up}
        and last.args == (product,)
        and down.args == (last,)
    )
    if not right:
        return problem
    function = _activation(module, act)
    return None if function is not None and _unitwise(function) else "its activation does not act unit by unit"


def _activation(module: nn.Module, node: fx.Node) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if node.op == "call_module":
        act = module.get_submodule(str(node.target))
        return None if altered(act) else act
    return node.target if node.op == "call_function" and callable(node.target) and not node.kwargs else None


def _unitwise(function: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether each output of an activation depends on its own input alone; tried on nine numbers."""
    values = torch.tensor([[-3.0, -1.5, -0.5, -0.1, 0.0, 0.2, 0.7, 1.6, 3.1]])
    try:
        with torch.no_grad():
            whole = function(values)
            alone = torch.cat([function(values[:, [k]]) for k in range(values.shape[1])], dim=1)
    except Exception:
        return False
    return whole.shape == values.shape and torch.allclose(whole, alone, rtol=1e-5, atol=1e-6)


def _declare_widths(model: nn.Module, hiddens: tuple[Hidden, ...]) -> None:
    """Write the new widths where Hugging Face modules and their configs keep a copy of them."""
    widths: set[int] = set()
    for layer in hiddens:
        owner = model.get_submodule(layer.name.rpartition(".")[0])
        down: Any = owner.get_submodule("down_proj")
        widths.add(down.in_features)
        if isinstance(vars(owner).get("intermediate_size"), int):
            owner.intermediate_size = down.in_features  # pyright: ignore[reportAttributeAccessIssue]
    before = {layer.units for layer in hiddens}
    if len(widths) > 1 or len(before) > 1:
        return
    configs: dict[int, Any] = {}
    for module in model.modules():
        config = vars(module).get("config")
        if config is not None:
            configs[id(config)] = config
    for config in configs.values():
        if getattr(config, "intermediate_size", None) in before:
            config.intermediate_size = next(iter(widths))
