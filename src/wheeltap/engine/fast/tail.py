"""The rest of a traced model: from the output of one module on, for as many changed rows as are wanted.

A forward that ``torch.fx`` can trace is run once with everything kept that a later operation reads; then the
operations behind one module run again for changed rows of its output, each with the kept values of the example it
belongs to.
"""

import copy
import inspect
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast, final

from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from wheeltap.core.task import as_scores


@final
class Tail:
    """Everything behind one module in a traced forward.

    Args:
        model: Whose forward.
        graph: Its graph (see ``traced``).
        start: The node whose output is changed.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph, start: fx.Node) -> None:
        self.model, self.graph, self.start = model, graph, start
        behind = {start}
        self.nodes = [node for node in graph.nodes if node is not start and _joins(node, behind)]
        self._reads = {read for node in self.nodes for read in node.all_input_nodes if read not in behind}

    def kept(self, inputs: Tensor) -> dict[fx.Node, Any]:
        """One pass over a batch: the values that the rest reads, the start's own, and its inputs."""
        values: dict[fx.Node, Any] = {}
        kept: dict[fx.Node, Any] = {}
        wanted = {self.start, *self.start.all_input_nodes, *self._reads}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = inputs
            elif node.op != "output":
                values[node] = computed(self.model, node, values)
            if node in wanted:
                kept[node] = values[node]
                if isinstance(values[node], Tensor) and node.op != "get_attr":
                    values[node] = values[node].clone()  # what follows may change it in place
        return kept

    def refused(self, kept: Mapping[fx.Node, Any], *, rows: int) -> str:
        """Why the rest cannot be run for other rows than these; empty if it can."""
        for node in self._reads:
            value = kept[node]
            if node.op != "get_attr" and not (isinstance(value, Tensor) and value.ndim and len(value) == rows):
                return f"{node.name} is not one row per example"
        return ""

    def scores(self, changed: Tensor, kept: Mapping[fx.Node, Any], examples: Tensor) -> Tensor:
        """Scores of changed rows of the start's output.

        Args:
            changed: ``[row, ...]``.
            kept: Of the batch that the rows come from.
            examples: Which row of the batch each is one of, ``[row]``.
        """
        values: dict[fx.Node, Any] = {self.start: changed}
        for node in self._reads:
            values[node] = kept[node] if node.op == "get_attr" else kept[node].index_select(0, examples)
        for node in self.nodes:
            if node.op == "output":
                return as_scores(_given(node.args[0], values))
            values[node] = computed(self.model, node, values)
        raise AssertionError("a graph ends with its output")


def _joins(node: fx.Node, behind: set[fx.Node]) -> bool:
    """Whether ``node`` reads anything in ``behind``; it is then put there."""
    if any(read in behind for read in node.all_input_nodes):
        behind.add(node)
        return True
    return False


def traced(model: nn.Module) -> fx.Graph | str:
    """The graph of a forward of one argument (others at their defaults), or why there is none.

    Traced on a copy that shares the parameters, so that a forward that writes attributes leaves the model alone.
    """
    parameters = inspect.signature(type(model).forward).parameters
    empty = inspect.Parameter.empty
    defaults = {name: parameter.default for name, parameter in parameters.items() if parameter.default is not empty}
    try:
        shell = copy.deepcopy(model, {id(p): p for p in model.parameters()})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(shell, concrete_args=defaults or None)
    except Exception as error:
        return f"its forward cannot be traced ({type(error).__name__})"
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        return "its forward takes more than one argument"
    return graph


def _given(value: Any, values: Mapping[fx.Node, Any]) -> Any:
    return map_arg(value, lambda node: values[node])


def computed(model: nn.Module, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """What ``node`` gives, from the values of those that it reads."""
    args = cast("tuple[Any, ...]", _given(node.args, values))
    kwargs = cast("dict[str, Any]", _given(node.kwargs, values))
    if node.op == "call_module":
        return model.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    if node.op == "get_attr":
        return operator.attrgetter(str(node.target))(model)
    return cast("Callable[..., Any]", node.target)(*args, **kwargs)
