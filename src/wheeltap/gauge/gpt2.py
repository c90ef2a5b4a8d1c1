"""GPT-2-like models: MLPs ``c_proj(act(c_fc(x)))`` with biases, with packed attention and LayerNorms.

A neuron is a column of c_fc (its bias with it) and a row of c_proj: the Conv1D of transformers stores ``[in, out]``.
Recognised by the names and classes of the parts and by the traced forward; transformers is never imported.

Source: Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

from typing import Any

from torch import fx, nn

from wheeltap.gauge import transformer
from wheeltap.gauge.activation import Traits
from wheeltap.gauge.base import Family, Refusal, Sharing, altered
from wheeltap.gauge.hidden import Columns, Hidden, Rows
from wheeltap.gauge.leaves import leaf_graph, traits_of
from wheeltap.gauge.parts import layer_reason

NAME = "gpt2"
_PARTS = ("c_fc", "c_proj")


def recognise(model: nn.Module) -> Family | Refusal:
    """Every module with c_fc and c_proj, both Conv1D, whose forward combines them as above.

    Of the attention and the residual stream around them, what ``transformer`` knows.
    """
    return transformer.family(model, name=NAME, parts=_PARTS, hidden=_hidden, width="n_inner")


def _hidden(path: str, module: nn.Module, sharing: Sharing) -> Hidden | str:
    """The hidden layer of an MLP, or why it cannot be rewritten."""
    parts: dict[str, Any] = {name: module.get_submodule(name) for name in _PARTS}
    for name, part in parts.items():
        problem = layer_reason(part, sharing, name="Conv1D")
        if problem is not None:
            return f"{name}: {problem}"
    found = altered(module) or _forward(module)
    if isinstance(found, str):
        return found
    prefix = f"{path}." if path else ""
    units, outputs = parts["c_proj"].weight.shape
    return Hidden(
        f"{prefix}c_fc",
        units,
        (Rows(f"{prefix}c_fc", transposed=True), Columns(f"{prefix}c_proj", outputs, transposed=True)),
        homogeneous=found.homogeneous,
        silent=found.silent,
    )


def _forward(module: nn.Module) -> Traits | str:
    """The traits of the activation, if the forward is ``c_proj(act(c_fc(x)))``, with dropout after it or not."""
    graph = leaf_graph(module)
    if isinstance(graph, str):
        return graph
    chain = _chain(graph)
    called = [str(node.target) if node.op == "call_module" else "" for node in chain]
    if len(chain) == 4 and called[3] and isinstance(module.get_submodule(called[3]), nn.Dropout):
        called = called[:3]
    if len(called) != 3 or (called[0], called[2]) != _PARTS:
        return "its forward is not c_proj(act(c_fc(x)))"
    return traits_of(module, chain[1]) or "its activation does not act unit by unit"


def _chain(graph: fx.Graph) -> list[fx.Node]:
    """The operations between the one input and the output, if each reads only the one before; else none."""
    first, *nodes = graph.nodes
    steps = [node for node in nodes if node.op != "output"]
    before = [first, *steps]
    single = all(node.args == (previous,) for node, previous in zip(nodes, before, strict=False))
    return steps if single and nodes[-1].op == "output" and first.op == "placeholder" else []
