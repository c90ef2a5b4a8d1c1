"""Which components of a bare transformer act on which, seen from its weights: the edges of its true circuit."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from benchmarks.nets.bare_transformer import BareTransformer
from wheeltap.suites.circuits.circuit import EdgeGraph

Lines = Mapping[str, Tensor]
"""Of each component (or of what it reads by one channel), which directions of the residual stream, ``[line]``."""


def true_edges(net: BareTransformer, *, carried: Iterable[int] | None = None) -> frozenset[str]:
    """Edges over which something is written that is read, by a component that in turn is read, up to the logits.

    Two components share a direction if it is an axis of the residual stream; so the net must be one whose axes have
    meanings.

    Args:
        net: The net.
        carried: Axes that count; all of them if not given.
    """
    counted = torch.zeros(net.shape.width, dtype=torch.bool)
    counted[list(range(net.shape.width) if carried is None else carried)] = True
    wrote, read, found, used = written(net), readers(net), set[str](), {"logits"}
    graph = EdgeGraph(net.shape.layers, net.shape.heads, net.shape.heads, net.shape.width)
    for stage in reversed(graph.stages):
        for reader in stage.readers:
            if reader.partition("<")[0] not in used:
                continue
            for writer in graph.writers[: stage.writers]:
                if bool((wrote[writer] & read[reader] & counted).any()):
                    found.add(f"{writer}->{reader}")
                    used.add(writer)
    return frozenset(found)


def written(net: BareTransformer) -> Lines:
    """Axes that each component writes to."""
    found = {"input": ((net.embed.weight != 0).any(0)) | (net.position.weight != 0).any(0)}
    for layer in range(net.shape.layers):
        attention, mlp = net.attention(layer), net.mlp(layer)
        for head in range(net.shape.heads):
            part = slice(head * net.shape.head, (head + 1) * net.shape.head)
            found[f"a{layer}.h{head}"] = ((attention.output.weight[:, part] @ attention.value.weight[part]) != 0).any(1)
        found[f"m{layer}"] = (mlp.fall.weight != 0).any(1)
    return found


def readers(net: BareTransformer) -> Lines:
    """Axes that each component reads, by channel of heads."""
    found = dict[str, Tensor]()
    for layer in range(net.shape.layers):
        attention = net.attention(layer)
        channels = {"q": attention.query, "k": attention.key, "v": attention.value}
        for head in range(net.shape.heads):
            part = slice(head * net.shape.head, (head + 1) * net.shape.head)
            found |= {f"a{layer}.h{head}<{name}>": (own.weight[part] != 0).any(0) for name, own in channels.items()}
        found[f"m{layer}"] = (net.mlp(layer).rise.weight != 0).any(0)
    return found | {"logits": (net.unembed.weight != 0).any(0)}
