"""Transformers whose MLPs are known by the names of their parts, with attention and a residual stream.

*Llama-like*: gated MLPs ``down(act(gate(x)) * up(x))``. A neuron is a row of gate and up and a column of down. Neurons
may change places, and the up row may be multiplied by any factor that the down column is divided by: exact for every
activation, since up enters linearly. *GPT-2-like*: ``c_proj(act(c_fc(x)))`` with biases; a neuron is a column of c_fc
(its bias with it) and a row of c_proj, as the Conv1D of transformers stores ``[in, out]``. Both are recognized by the
names and classes of the parts and by the traced forward; transformers is never imported.

Source: Shazeer 2020, "GLU variants improve transformer", equation 6 (gated MLPs); Radford et al. 2019, "Language models
are unsupervised multitask learners" (GPT-2).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from wheeltap.gauge import attention, residual
from wheeltap.gauge.base import (
    ROUNDED,
    Family,
    Gauges,
    Move,
    Refusal,
    SharedTensors,
    altered,
    in_turn,
    inexact,
    modules_of,
)
from wheeltap.gauge.bench import Run
from wheeltap.gauge.hidden import HiddenLayer, Inputs, rows
from wheeltap.gauge.moves import unit_moves
from wheeltap.gauge.parts import layer_reason
from wheeltap.gauge.relu_chain import Traits, traits


def leaf_graph(module: nn.Module) -> fx.Graph | str:
    """The graph of the forward of ``module``, with its children as black boxes, or why there is none."""
    tracer = fx.Tracer()
    tracer.is_leaf_module = lambda m, module_qualified_name: True  # it looks into no child
    try:
        return tracer.trace(module)
    except Exception as error:
        return f"its forward cannot be traced ({type(error).__name__})"


def traits_of(module: nn.Module, node: fx.Node) -> Traits | None:
    """The traits of the activation that ``node`` applies in the forward of ``module``; ``None`` if it is not one."""
    if node.op == "call_module":
        act = module.get_submodule(str(node.target))
        return None if altered(act) else traits(act)
    return traits(node.target) if node.op == "call_function" and callable(node.target) and not node.kwargs else None


def family(
    model: nn.Module,
    *,
    name: str,
    parts: Mapping[str, str],
    hidden: Callable[[str, nn.Module, dict[str, Any]], HiddenLayer | str],
    width: str,
) -> Family | Refusal:
    """The gauges of a kind of transformer: of its MLPs, its attention and its residual stream.

    Args:
        model: Any.
        name: Of the kind.
        parts: What a module must have to be one of its MLPs, with their classes.
        hidden: The hidden layer of an MLP, given its path with a dot, itself and its parts; or why there is none.
        width: Which setting of the configuration says how wide the MLPs are.
    """
    sharing = SharedTensors(model)
    found: list[HiddenLayer] = []
    refused: list[str] = []
    for path, module in modules_of(model).items():
        held: dict[str, Any] = {part: getattr(module, part, None) for part in parts}
        if not all(isinstance(part, nn.Module) for part in held.values()):
            continue
        problems = ((part, layer_reason(held[part], sharing, name=kind)) for part, kind in parts.items())
        problem = next((f"{part}: {reason}" for part, reason in problems if reason is not None), None)
        known = problem or altered(module) or hidden(f"{path}." if path else "", module, held)
        if isinstance(known, HiddenLayer):
            found.append(known)
        else:
            refused.append(f"{path or 'the model'}: {known}")
    if not found and not refused:
        *first, last = parts
        return Refusal(f"no module has {', '.join(first)} and {last}")
    hiddens = tuple(found)
    units, reasons = unit_moves(model, hiddens, after=partial(_declare, hiddens=hiddens, name=width))
    others, more = moves(model, sharing)
    if not units and not others:
        return Refusal("; ".join(refused[:3]))
    return Family(name, hiddens, {**units, **others}, (*refused, *reasons, *more))


def moves(model: nn.Module, sharing: SharedTensors, *, run: Run | None = None) -> Gauges:
    """The gauges of attention and residual stream that hold on ``model``, and reasons for the others.

    Args:
        model: Any.
        sharing: Of the model.
        run: Runs a model on a few examples; with it, attention of unknown classes is tried.
    """
    layers, refused = attention.find(model, sharing, run=run)
    held: dict[str, Move] = {}
    reasons = list(refused)
    for gauge, move in attention.REWRITES.items():
        fit = tuple(layer for layer in layers if gauge in layer.moves)
        if not fit:
            reasons.append(f"{gauge}: {'no attention layer allows it' if layers else 'no attention layer is known'}")
        elif inexact(model, gauge, *(layer.output.path for layer in fit)):
            reasons.append(f"{gauge}: {ROUNDED}")
        else:
            held[gauge] = partial(in_turn, parts=fit, rewrite=move)
    stream = residual.find(model)
    if isinstance(stream, Refusal):
        return held, (*reasons, *(f"{gauge}: {stream.because}" for gauge in residual.REWRITES))
    reasons += stream.refused
    paths = {reader.path for normed in (*stream.folds, *stream.shifts) for reader in normed.readers}
    paths |= {stream.stream.embedding} if stream.stream else set()
    for gauge, move in residual.REWRITES.items():
        if gauge in stream.moves and inexact(model, gauge, *paths):
            reasons.append(f"{gauge}: {ROUNDED}")
        elif gauge in stream.moves:
            held[gauge] = partial(in_turn, parts=(stream,), rewrite=move)
    return held, tuple(reasons)


def _declare(model: nn.Module, *, hiddens: Sequence[HiddenLayer], name: str) -> None:
    """Writes the new widths where Hugging Face modules and their configs keep a copy of them.

    Args:
        model: With units added.
        hiddens: As they were before.
        name: Of the attribute that holds a width.
    """
    widths: set[int] = set()
    for layer in hiddens:
        width = layer.readers[0].view(model).shape[2]
        widths.add(width)
        owner = model.get_submodule(layer.name.rpartition(".")[0])
        if isinstance(vars(owner).get(name), int):
            setattr(owner, name, width)
    before = {layer.units for layer in hiddens}
    if len(widths) > 1 or len(before) > 1:
        return
    configs = (vars(module).get("config") for module in model.modules())
    for config in {id(config): config for config in configs if config is not None}.values():
        # GPT-2 leaves it out where it is four times the width of the residual stream.
        if getattr(config, name, 0) in (None, *before):
            setattr(config, name, next(iter(widths)))


LLAMA = "llama"
_GATED: Mapping[str, str] = dict.fromkeys(("gate_proj", "up_proj", "down_proj"), "Linear")


def llama(model: nn.Module) -> Family | Refusal:
    """Every module with exactly gate_proj, up_proj, down_proj and act_fn whose forward combines them as above.

    Of the attention and the residual stream around them, what ``moves`` knows.
    """
    return family(model, name=LLAMA, parts=_GATED, hidden=_gated_hidden, width="intermediate_size")


def _gated_hidden(prefix: str, module: nn.Module, parts: dict[str, Any]) -> HiddenLayer | str:
    """The hidden layer, or why the forward of ``module`` is not ``down(act(gate(x)) * up(x))``."""
    gate, up, down = parts.values()
    if not gate.out_features == up.out_features == down.in_features:
        return "gate_proj, up_proj and down_proj differ in width"
    graph = leaf_graph(module)
    if isinstance(graph, str):
        return graph
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    end = next((node for node in reversed(graph.nodes) if node.op == "output"), None)
    called = {str(node.target): node for node in nodes if node.op == "call_module"}
    product = next((n for n in nodes if n.op == "call_function" and n.target in (operator.mul, torch.mul)), None)
    problem = "its forward is not down(act(gate(x)) * up(x))"
    if len(nodes) != 5 or len(inputs) != 1 or end is None or product is None or not set(_GATED) <= set(called):
        return problem
    gated, raised, last = (called[name] for name in _GATED)
    act = next(node for node in nodes if node not in (gated, raised, last, product))
    right = (
        raised.args == (inputs[0],)
        and gated.args == (inputs[0],)
        and act.args == (gated,)
        and set(product.args) == {act, raised}
        and last.args == (product,)
        and end.args == (last,)
    )
    if not right:
        return problem
    if traits_of(module, act) is None:
        return "its activation does not act unit by unit"
    writers = *rows(gate, f"{prefix}gate_proj", scaled=False), *rows(up, f"{prefix}up_proj")
    reader = Inputs(names=(f"{prefix}down_proj.weight",), axis=1, outputs=down.out_features)
    return HiddenLayer(f"{prefix}up_proj", down.in_features, (*writers, reader))


GPT2 = "gpt2"
_PLAIN: Mapping[str, str] = dict.fromkeys(("c_fc", "c_proj"), "Conv1D")


def gpt2(model: nn.Module) -> Family | Refusal:
    """Every module with c_fc and c_proj, both Conv1D, whose forward combines them as above.

    Of the attention and the residual stream around them, what ``moves`` knows.
    """
    return family(model, name=GPT2, parts=_PLAIN, hidden=_plain_hidden, width="n_inner")


def _plain_hidden(prefix: str, module: nn.Module, parts: dict[str, Any]) -> HiddenLayer | str:
    """The hidden layer, if the forward is ``c_proj(act(c_fc(x)))``, with dropout after it or not; or why it is not."""
    graph = leaf_graph(module)
    if isinstance(graph, str):
        return graph
    first, *nodes = graph.nodes
    chain = [node for node in nodes if node.op != "output"]
    single = all(node.args == (previous,) for node, previous in zip(nodes, [first, *chain], strict=False))
    problem = "its forward is not c_proj(act(c_fc(x)))"
    if not single or nodes[-1].op != "output" or first.op != "placeholder":
        return problem
    called = [str(node.target) if node.op == "call_module" else "" for node in chain]
    if len(chain) == 4 and called[3] and isinstance(module.get_submodule(called[3]), nn.Dropout):
        called = called[:3]
    if len(called) != 3 or (called[0], called[2]) != tuple(_PLAIN):
        return problem
    found = traits_of(module, chain[1])
    if found is None:
        return "its activation does not act unit by unit"
    units, outputs = parts["c_proj"].weight.shape
    writers = rows(parts["c_fc"], f"{prefix}c_fc", transposed=True)
    reader = Inputs(names=(f"{prefix}c_proj.weight",), axis=0, outputs=outputs)
    return HiddenLayer(f"{prefix}c_fc", units, (*writers, reader), homogeneous=found.homogeneous, silent=found.silent)
