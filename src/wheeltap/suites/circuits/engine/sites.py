"""Where the units of a decoder are: what each of its layers of attention and MLP reads, holds and writes.

Found by watching one pass, whatever the model's classes are called: layers that read the same input, followed by one
layer that writes back to the residual stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.suites.circuits.engine.calls import ModuleCall, hooked, watched

LAYERS: Final = ("Linear", "Conv1D", "NonDynamicallyQuantizableLinear")
"""Classes of layers whose inputs and outputs are units; Conv1D is that of GPT-2."""

_TRIED: Final = 3
"""Places of the sequence that a model is watched on."""


@final
@dataclass(frozen=True)
class UnitSite:
    """Units that a circuit may keep: the channels of what some layers are given, or of what one gives.

    Attributes:
        name: ``attention0.read``, ``attention0.query``, ``mlp0.units``, ``mlp0.write`` and so on.
        layers: Module paths.
        side: Of these layers.
        units: Channels.
    """

    name: str
    layers: tuple[str, ...]
    side: Literal["input", "output"]
    units: int


@final
@dataclass(frozen=True)
class Sublayer:
    """Attention or MLP of one block.

    Attributes:
        name: ``attention0``, ``mlp0``: by kind, counted from 0.
        mixes: Whether it is attention: places act on each other.
        ins: Module paths of the layers that read the residual stream.
        out: Module path of the layer that writes to it.
        widths: Outputs of each of ``ins``.
        hidden: Inputs of ``out``.
        stream: Width of the residual stream.
    """

    name: str
    mixes: bool
    ins: tuple[str, ...]
    out: str
    widths: tuple[int, ...]
    hidden: int
    stream: int

    @property
    def sites(self) -> tuple[UnitSite, ...]:
        """What it reads, holds and writes; of attention the outputs of ``ins``, of an MLP the inputs of ``out``."""
        read = UnitSite(f"{self.name}.read", self.ins, "input", self.stream)
        write = UnitSite(f"{self.name}.write", (self.out,), "output", self.stream)
        if not self.mixes:
            return (read, UnitSite(f"{self.name}.units", (self.out,), "input", self.hidden), write)
        held = (
            UnitSite(f"{self.name}.{path.rpartition('.')[2]}", (path,), "output", width)
            for path, width in zip(self.ins, self.widths, strict=True)
        )
        return (read, *held, write)


def sublayers(model: nn.Module, tokens: Tensor) -> tuple[Sublayer, ...]:
    """Attention and MLPs of a decoder, in order of computation.

    Args:
        model: From tokens ``[example, place]`` to scores ``[example, place, token]``; in eval mode.
        tokens: Examples that it can read; a few places of the first are used.

    Raises:
        ModelError: If its layers are not of that form.
    """
    few = tokens[:1, -_TRIED:]
    groups, head = _grouped(model, few)
    found, kinds = list[Sublayer](), dict[bool, int]()
    stream = groups[0].width if groups else 0
    for ins, out in zip(groups[::2], groups[1::2], strict=False):
        if ins.width != stream or len(out.paths) != 1 or out.outputs != (stream,) or out.paths[0] == head:
            break
        mixes = _mixes(model, few, ins.paths, out.paths[0])
        at = kinds[mixes] = kinds.get(mixes, -1) + 1
        name = f"{'attention' if mixes else 'mlp'}{at}"
        found.append(Sublayer(name, mixes, ins.paths, out.paths[0], ins.outputs, out.width, stream))
    rest = groups[2 * len(found) :]
    others = [group for group in rest if group.paths != (head,)]  # a vocabulary may be as wide as the stream
    if not found or any(group.outputs == (stream,) for group in others) or sum(len(one.paths) for one in rest) > 1:
        listed = "; ".join(f"{', '.join(group.paths)} [{group.width} -> {group.outputs}]" for group in groups[:4])
        expected = "layers that read the residual stream, then one that writes to it, again and again; each called once"
        raise _unknown(expected, f"a stream of {stream}: {listed}"[:300] if groups else "no linear layer")
    return tuple(found)


def _unknown(expected: str, got: str) -> ModelError:
    return ModelError("The units of this model are not known.", where="circuits", expected=expected, got=got,
                      do="Use a decoder made of attention and MLPs with plain linear layers.")  # fmt: skip


def sources(model: nn.Module, tokens: Tensor, layer: Sublayer) -> Tensor:
    """Of attention: which output of its ``ins``, counted through all of them, each input of ``out`` is the value of.

    ``[hidden]``. Each output is raised by itself, everywhere; an input of ``out`` follows its value one to one, and
    follows queries and keys less.
    """
    total, few = sum(layer.widths), tokens[:1, :2]
    largest = torch.zeros(layer.hidden, device=tokens.device)
    found = torch.zeros(layer.hidden, dtype=torch.long, device=tokens.device)
    clean = _hidden_of(model, few, layer.out)[0, -1]

    def raised(first: int, rows: int, output: Tensor) -> Tensor:
        """In row ``r`` of a batch, output ``first + r`` of a layer is raised by 1 at all places."""
        changed = output.clone()
        own = torch.arange(first, first + rows, device=output.device)
        inside = (own >= 0) & (own < output.shape[-1])
        changed[inside.nonzero()[:, 0], :, own[inside]] += 1.0
        return changed

    for start in range(0, total, _ROWS):
        rows = min(_ROWS, total - start)
        firsts = {path: start - sum(layer.widths[:at]) for at, path in enumerate(layer.ins)}
        with hooked(model, after={path: partial(raised, first, rows) for path, first in firsts.items()}):
            moved = (_hidden_of(model, few.expand(rows, -1), layer.out)[:, -1] - clean).abs()
        most, at = moved.max(0)
        found = torch.where(most > largest, at + start, found)
        largest = torch.maximum(largest, most)
    return found


_ROWS: Final = 512


def _hidden_of(model: nn.Module, tokens: Tensor, out: str) -> Tensor:
    """What the layer ``out`` is given, ``[example, place, unit]``."""
    held: list[Tensor] = []

    def take(given: Tensor) -> Tensor:
        held.append(given.detach().clone())  # later layers may add to it in place
        return given

    with torch.no_grad(), hooked(model, {out: take}):
        model(tokens)
    return held[0]


def _mixes(model: nn.Module, tokens: Tensor, ins: Sequence[str], out: str) -> bool:
    """Whether later places of what ``out`` is given depend on what ``ins`` give at the first one."""
    clean = _hidden_of(model, tokens, out)

    def change(output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, 0] = changed[:, 0] + 1.0
        return changed

    with hooked(model, after=dict.fromkeys(ins, change)):
        return not torch.equal(_hidden_of(model, tokens, out)[:, 1:], clean[:, 1:])


class _Group(NamedTuple):
    """Layers that were given the same tensor, one after another: paths, how wide each output and the input are."""

    paths: tuple[str, ...]
    outputs: tuple[int, ...]
    width: int


def _grouped(model: nn.Module, tokens: Tensor) -> tuple[list[_Group], str]:
    """The linear layers in order of calls, and which of them gives the scores (empty: none does).

    Raises:
        ModelError: If a layer is called twice, or the model cannot read the tokens.
    """
    calls, counts, scores = watched(model, tokens)
    linear = [call for call in calls if type(model.get_submodule(call.path)).__name__ in LAYERS]
    shaped = all(call.took.shape[:-1] == tokens.shape for call in linear)
    if not shaped or any(counts[call.path] > 1 for call in linear):
        expected = "linear layers that are called once for each pass, with [example, place, unit]"
        raise _unknown(expected, "a layer that is called twice" if shaped else "inputs of another shape")
    groups: list[list[ModuleCall]] = []
    for call in linear:
        if not groups or not torch.equal(groups[-1][0].took, call.took):
            groups.append([])
        groups[-1].append(call)
    last = linear[-1] if linear else None
    gives = last is not None and last.gave.shape == scores.shape and torch.equal(last.gave.to(scores), scores)
    found = [
        _Group(tuple(call.path for call in own), tuple(call.returned.shape[-1] for call in own), own[0].took.shape[-1])
        for own in groups
    ]
    return found, last.path if last is not None and gives else ""
