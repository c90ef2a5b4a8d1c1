"""The forward of one module, with its children as black boxes: does it combine them as its class promises?"""

from typing import final

from torch import fx, nn

from wheeltap.gauge.activation import Traits, traits
from wheeltap.gauge.base import altered


@final
class _Leaves(fx.Tracer):
    """Traces one module and looks into none of its children."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def leaf_graph(module: nn.Module) -> fx.Graph | str:
    """The graph of the forward of ``module``, or why there is none."""
    try:
        return _Leaves().trace(module)
    except Exception as error:
        return f"its forward cannot be traced ({type(error).__name__})"


def traits_of(module: nn.Module, node: fx.Node) -> Traits | None:
    """The traits of the activation that ``node`` applies in the forward of ``module``; ``None`` if it is not one."""
    if node.op == "call_module":
        act = module.get_submodule(str(node.target))
        return None if altered(act) else traits(act)
    return traits(node.target) if node.op == "call_function" and callable(node.target) and not node.kwargs else None
