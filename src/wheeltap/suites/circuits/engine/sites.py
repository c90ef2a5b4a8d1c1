"""Where the units of a decoder are: what each of its layers of attention and MLP reads, holds and writes.

Found by watching one pass, whatever the model's classes are called: layers that read the same input, followed by one
layer that writes back to the residual stream.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal, cast, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.inputs import as_scores
from wheeltap.core.typed import named_modules

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
    calls, head = _calls(model, few)
    groups = _grouped(calls)
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
        raise _unknown(groups, stream)
    return tuple(found)


def _unknown(groups: Sequence["_Group"], stream: int) -> ModelError:
    listed = "; ".join(f"{', '.join(group.paths)} [{group.width} -> {group.outputs}]" for group in groups[:4])
    return ModelError(
        "The units of this model are not known.", where="circuits",
        expected="layers that read the residual stream, then one that writes to it, again and again; each called once",
        got=f"a stream of {stream}: {listed}"[:300] if groups else "no linear layer",
        do="Use a decoder made of attention and MLPs with plain linear layers.",
    )  # fmt: skip


def sources(model: nn.Module, tokens: Tensor, layer: Sublayer) -> Tensor:
    """Of attention: which output of its ``ins``, counted through all of them, each input of ``out`` is the value of.

    ``[hidden]``. Each output is raised by itself, everywhere; an input of ``out`` follows its value one to one, and
    follows queries and keys less.
    """
    total, few = sum(layer.widths), tokens[:1, :2]
    raised = torch.zeros(layer.hidden, device=tokens.device)
    found = torch.zeros(layer.hidden, dtype=torch.long, device=tokens.device)
    clean = _hidden_of(model, few, layer.out)[0, -1]
    for start in range(0, total, _ROWS):
        rows = min(_ROWS, total - start)
        with _raised(model, layer, start, rows):
            moved = (_hidden_of(model, few.expand(rows, -1), layer.out)[:, -1] - clean).abs()
        most, at = moved.max(0)
        found = torch.where(most > raised, at + start, found)
        raised = torch.maximum(raised, most)
    return found


_ROWS: Final = 512


@contextmanager
def _raised(model: nn.Module, layer: Sublayer, start: int, rows: int) -> Generator[None]:
    """In row ``r`` of a batch, output ``start + r`` is raised by 1 at all places."""
    offsets = [sum(layer.widths[:at]) for at in range(len(layer.widths))]

    def raise_(offset: int, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        own = torch.arange(start - offset, start - offset + rows, device=output.device)
        inside = (own >= 0) & (own < output.shape[-1])
        changed[inside.nonzero()[:, 0], :, own[inside]] += 1.0
        return changed

    with _hooked((model.get_submodule(path), partial(raise_, offset)) for path, offset in zip(layer.ins, offsets,
                                                                                           strict=True)):  # fmt: skip
        yield


class _Enough(Exception):
    """What was wanted has been seen: the rest of the pass is not needed."""


def _hidden_of(model: nn.Module, tokens: Tensor, out: str) -> Tensor:
    """What the layer ``out`` is given, ``[example, place, unit]``."""
    held: list[Tensor] = []

    def take(_module: nn.Module, args: tuple[Any, ...]) -> None:
        held.append(args[0].detach())
        raise _Enough

    hook = model.get_submodule(out).register_forward_pre_hook(take)
    try:
        with torch.no_grad():
            model(tokens)
    except _Enough:
        pass
    finally:
        hook.remove()
    return held[0]


def _mixes(model: nn.Module, tokens: Tensor, ins: Sequence[str], out: str) -> bool:
    """Whether later places of what ``out`` is given depend on what ``ins`` give at the first one."""
    clean = _hidden_of(model, tokens, out)

    def change(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, 0] = changed[:, 0] + 1.0
        return changed

    with _hooked((model.get_submodule(path), change) for path in ins):
        return not torch.equal(_hidden_of(model, tokens, out)[:, 1:], clean[:, 1:])


@contextmanager
def _hooked(hooks: Any) -> Generator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# ---- the order of layers ---------------------------------------------------------------------------------------


@final
@dataclass
class _Group:
    """Layers that were given the same tensor, one after another."""

    given: Tensor
    calls: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.calls)

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(width for _, width in self.calls)

    @property
    def width(self) -> int:
        return self.given.shape[-1]


@final
@dataclass(frozen=True)
class _Call:
    path: str
    given: Tensor
    width: int


def _calls(model: nn.Module, tokens: Tensor) -> tuple[list[_Call], str]:
    """Every call of a linear layer, in order, and which layer gives the scores (empty: none does).

    Raises:
        ModelError: If a layer is called twice, or the model cannot read the tokens.
    """
    calls: list[_Call] = []
    last: list[Tensor] = []

    def note(path: str, _module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        calls.append(_Call(path, cast("Tensor", args[0]).detach().clone(), int(output.shape[-1])))
        last[:] = [output]

    leaves = [(path, module) for path, module in named_modules(model) if type(module).__name__ in LAYERS]
    with _hooked((module, partial(note, path)) for path, module in leaves), torch.no_grad():
        scores = as_scores(model(tokens))
    paths = [call.path for call in calls]
    shaped = all(call.given.shape[:-1] == tokens.shape for call in calls)
    if len(set(paths)) != len(paths) or not shaped:
        raise ModelError(
            "The units of this model are not known.", where="circuits",
            expected="linear layers that are called once for each pass, with [example, place, unit]",
            got="a layer that is called twice" if shaped else "inputs of another shape",
        )  # fmt: skip
    gives = bool(last) and last[0].shape == scores.shape and torch.equal(last[0].to(scores), scores)
    return calls, paths[-1] if gives else ""


def _grouped(calls: Sequence[_Call]) -> list[_Group]:
    groups: list[_Group] = []
    for call in calls:
        same = groups and groups[-1].given.shape == call.given.shape and torch.equal(groups[-1].given, call.given)
        if not same:
            groups.append(_Group(call.given))
        groups[-1].calls.append((call.path, call.width))
    return groups
