"""Llama-like models: gated MLPs ``down(act(gate(x)) * up(x))``, with attention and a residual stream.

A neuron is a row of gate and up and a column of down. Neurons may change places, and the up row may be multiplied
by any factor that the down column is divided by: exact for every activation, since up enters linearly.

Source: Shazeer 2020, "GLU variants improve transformer", equation 6, for the form of the layer.
"""

import operator
from typing import Any

import torch
from torch import nn

from wheeltap.gauge import transformer
from wheeltap.gauge.base import Family, Refusal, Sharing, altered
from wheeltap.gauge.hidden import Columns, Hidden, Rows
from wheeltap.gauge.leaves import leaf_graph, traits_of
from wheeltap.gauge.parts import layer_reason

NAME = "llama"
_PARTS = ("gate_proj", "up_proj", "down_proj")


def recognise(model: nn.Module) -> Family | Refusal:
    """Every module with exactly gate_proj, up_proj, down_proj and act_fn whose forward combines them as above.

    Of the attention and the residual stream around them, what ``transformer`` knows.
    """
    return transformer.family(model, name=NAME, parts=_PARTS, hidden=_hidden, width="intermediate_size")


def _hidden(path: str, module: nn.Module, sharing: Sharing) -> Hidden | str:
    """The hidden layer of an MLP, or why it cannot be rewritten."""
    reason = _reason(module, sharing)
    if reason is not None:
        return reason
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
        problem = layer_reason(part, sharing, name="Linear")
        if problem is not None:
            return f"{name}: {problem}"
    if not gate.out_features == up.out_features == down.in_features:
        return "gate_proj, up_proj and down_proj differ in width"
    return altered(module) or _forward_reason(module)


def _forward_reason(module: nn.Module) -> str | None:
    """Why the forward of ``module`` is not ``down(act(gate(x)) * up(x))``, or ``None`` if it is."""
    graph = leaf_graph(module)
    if isinstance(graph, str):
        return graph
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
    return None if traits_of(module, act) is not None else "its activation does not act unit by unit"
